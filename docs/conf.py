"""How Sphinx builds the site. The sources it sees are staged by build.py: pages of this folder, and executed notebooks."""

import inspect
import re
from typing import Any

import mlops_nb

project = html_title = "mlops_nb"
version = release = mlops_nb.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "numpydoc", "sphinx_design", "sphinx_copybutton"]

nb_execution_mode = "off"  # build.py has executed them
nb_render_markdown_format = "myst"
nb_code_prompt_show = "Show the {type}"
nb_ipywidgets_js: dict[str, Any] = {}  # they would come from elsewhere
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
numpydoc_show_class_members = False

html_theme = "pydata_sphinx_theme"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
html_show_search_summary = False  # it would fetch the pages found, which a browser forbids to pages opened from the disk
html_sidebars = {"running-notebooks": []}  # a page without pages below it
html_theme_options = {
    "search_bar_text": "Search",
    "navbar_end": ["theme-switcher"],
    "header_links_before_dropdown": 6,
    "show_prev_next": True,
    "footer_start": [],
    "footer_end": [],
}


def document_parameters(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn a signature's comments into numpydoc's tables."""
    lines[:] = [literal(line) for line in lines]
    if what not in ("function", "method", "class"):
        return
    from fastcore.docments import docments

    try:
        found = docments(obj, full=True, returns=True)
    except (TypeError, ValueError, OSError, AttributeError):  # nothing that has a signature in a file
        return
    documented = {key: value for key, value in found.items() if value.get("docment") and key != "self"}
    result = documented.pop("return", None)
    if documented:
        heading = "Attributes" if what == "class" else "Parameters"
        lines += ["", heading, "-" * len(heading)]
        for key, value in documented.items():
            lines += [f"{key} : {annotation(value)}", *indented(value["docment"])]
    if result:
        lines += ["", "Returns", "-------", annotation(result) or "object", *indented(result["docment"])]


def annotation(value: Any) -> str:
    """Name a type as the signature does, without the `typing.` and the quotes."""
    found = value.get("anno")
    if found is None or found is inspect.Parameter.empty:
        return ""
    text = found if isinstance(found, str) else inspect.formatannotation(found)
    return re.sub(r"\b(typing|collections\.abc|pathlib|mlops_nb\.[\w.]+)\.", "", text)


def literal(line: str) -> str:
    """Write Markdown's `code` as reStructuredText does, and take its stars for stars; roles like :class:`this` stay."""
    parts = re.split(r"(?<![`:])`([^`]+)`(?![`_])", line)  # text, code, text, ...
    return "".join(f"``{part}``\\ " if i % 2 else part.replace("*", r"\*") for i, part in enumerate(parts))


def indented(text: str) -> list[str]:
    """Set a comment below its parameter."""
    return [f"    {literal(line.strip())}" for line in text.splitlines()]


def setup(app: Any) -> None:
    """Run before numpydoc, which reads what we write."""
    app.connect("autodoc-process-docstring", document_parameters, priority=100)
