"""Build the documentation site: execute the notebooks, stage them beside the pages of this folder, call Sphinx.

Scenario notebooks are shown as the demo ran them; library notebooks run here, each in its own kernel, and are kept until
they or the library change. `python docs/build.py --fresh` executes everything again.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCS, BUILD = ROOT / "docs", ROOT / "docs/_build"
CACHE, STAGE, SITE = BUILD / "executed", BUILD / "source", BUILD / "html"
PHASES = {
    "core": "What every phase stands on",
    "data_estate": "From a source to a clean, versioned table",
    "setup": "Projects, access, infrastructure",
    "inner_loop": "Train, evaluate, register",
    "outer_loop": "Stage, approve, deploy, monitor, act",
    "genai": "Prompts, retrieval, evaluation, safety",
}
BORROWED = ("settings.ini", "environments", "ci/pipelines", "ci/components", "nbs/scenarios")  # what lessons may read


def notebooks(pattern: str) -> list[Path]:
    """List notebooks by their paths in nbs/, in the order of their numbers."""
    return sorted(path.relative_to(ROOT / "nbs") for path in (ROOT / "nbs").glob(pattern) if path.name[0] not in "_.")


def read(path: Path) -> dict[str, Any]:
    """Read a notebook, every source as one string."""
    notebook: dict[str, Any] = json.loads(path.read_text())
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    return notebook


def digest(*paths: Path) -> str:
    """Digest files and folders by content."""
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*.*"))) if file.is_file()]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.suffix != ".pyc")).hexdigest()[:16]


# --- library notebooks: executed here ---------------------------------------------------------------------------------


def executed_lesson(lesson: Path) -> Path:
    """Say where a library notebook's executed copy is kept; another source or another library is another place."""
    return CACHE / digest(ROOT / "mlops_nb", ROOT / "settings.ini", ROOT / "nbs" / lesson) / lesson


def execute_lesson(lesson: Path, executed: Path) -> str:
    """Execute one library notebook in an empty project; returns what went wrong, nothing when all went well."""
    import nbformat
    from papermill.iorw import load_notebook_node

    from mlops_nb.kernels.run import execute

    with tempfile.TemporaryDirectory() as project:
        for name in BORROWED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            (Path(project) / name).parent.mkdir(parents=True, exist_ok=True)
            copy(ROOT / name, Path(project) / name)
        folder = Path(project) / "nbs" / lesson.parent
        folder.mkdir(parents=True, exist_ok=True)
        notebook = execute(load_notebook_node(str(ROOT / "nbs" / lesson)), "python3", None, cwd=folder)
    for cell in notebook.cells:
        if cell.metadata.get("papermill", {}).get("exception"):
            error = next(output for output in cell.outputs if output.output_type == "error")
            return f"nbs/{lesson}: {error.ename}: {error.evalue}"
    executed.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, executed)
    return ""


def executed_lessons() -> dict[Path, Path]:
    """Execute the library notebooks that changed, two at a time; all of them when the library did."""
    places = {lesson: executed_lesson(lesson) for lesson in notebooks("*/*.ipynb")}
    todo = {lesson: place for lesson, place in places.items() if not place.exists()}
    print(f"docs: executing {len(todo)} of {len(places)} library notebooks", flush=True)
    with ThreadPoolExecutor(2) as pool:
        if faults := [fault for fault in pool.map(execute_lesson, todo, todo.values()) if fault]:
            sys.exit("\n".join(faults))
    kept = {place.relative_to(CACHE).parts[0] for place in places.values()}
    for folder in CACHE.iterdir() if CACHE.exists() else []:
        if folder.name not in kept:
            shutil.rmtree(folder)
    return places


def with_interface(notebook: dict[str, Any]) -> dict[str, Any]:
    """Drop nbdev's directives, fold the imports away, and add the module's reference at the end."""
    module, exports = "", False
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        directives = re.findall(r"^#\s*\|\s*(\w+)\s*(\S*)", cell["source"], re.MULTILINE)
        cell["source"] = re.sub(r"^#\s*\|.*\n?", "", cell["source"], flags=re.MULTILINE)
        module = dict(directives).get("default_exp", module)
        exports = exports or "export" in dict(directives)
        if not cell["source"].strip():
            cell["metadata"]["tags"] = ["remove-cell"]
        elif re.match(r"(import|from) ", cell["source"]) and "export" in dict(directives):
            cell["metadata"]["tags"] = ["hide-input"]
    if module and exports:
        text = f"## Reference\n\n```{{eval-rst}}\n.. automodule:: mlops_nb.{module}\n   :members:\n   :no-index:\n```"
        notebook["cells"].append({"cell_type": "markdown", "id": "reference", "metadata": {}, "source": text})
    return notebook


# --- scenario notebooks: as the demo ran them -------------------------------------------------------------------------


def code(notebook: dict[str, Any]) -> list[str]:
    """List the code cells that a person wrote."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [cell["source"] for cell in cells if "injected-parameters" not in cell["metadata"].get("tags", [])]


def executed_copy(step: Path) -> Path | None:
    """Find the copy, executed by the demo without an error from this very source, that shows most: a monitor's alert, not its quiet."""
    source = code(read(ROOT / "nbs" / step))
    copies = (ROOT / ".mlops/demo").glob(f"**/runs/*/{step.name}")
    for path in sorted(copies, key=lambda path: path.stat().st_size, reverse=True):
        notebook = read(path)
        outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
        if code(notebook) == source and not any(output["output_type"] == "error" for output in outputs):
            return path
    return None


def executed_steps() -> dict[Path, Path]:
    """Find the executed copy of every step; runs the demo first where one is missing or older than its notebook."""
    steps = notebooks("scenarios/*/*.ipynb")
    if not all(map(executed_copy, steps)):
        print("docs: no demo run of these notebooks yet; running the demo", flush=True)
        subprocess.run([Path(sys.executable).with_name("mlops-nb"), "demo", "--stop"], cwd=ROOT, check=True)  # noqa: S603
    found = {step: executed_copy(step) for step in steps}
    if missing := [str(step) for step, path in found.items() if path is None]:
        sys.exit(f"The demo left no sound executed copy of {', '.join(missing)}.")
    return {step: path for step, path in found.items() if path}


def as_page(notebook: dict[str, Any]) -> dict[str, Any]:
    """Fold away what papermill put in, and leave out what only a live kernel can show."""
    for cell in notebook["cells"]:
        if "injected-parameters" in cell["metadata"].get("tags", []):
            cell["metadata"]["tags"] = ["hide-input"]
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
    notebook["metadata"].pop("papermill", None)
    notebook["metadata"].pop("widgets", None)
    return notebook


# --- the site ---------------------------------------------------------------------------------------------------------


def stage(executed: dict[Path, Path], steps: dict[Path, Path]) -> None:
    """Lay everything that Sphinx reads into one folder: pages of this folder, library notebooks, steps as the demo ran them."""
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.copytree(DOCS, STAGE, ignore=shutil.ignore_patterns("_build", "*.py", "__pycache__"))
    shutil.copy(ROOT / "CHANGELOG.md", STAGE / "changelog.md")
    lessons = {lesson: with_interface(as_page(read(path))) for lesson, path in executed.items()}
    pages = lessons | {step: as_page(read(path)) for step, path in steps.items()}
    for path, notebook in pages.items():
        (STAGE / path).parent.mkdir(parents=True, exist_ok=True)
        (STAGE / path).write_text(json.dumps(notebook))
    phases = [phase for phase in PHASES if (STAGE / phase).exists()]
    for phase in phases:
        modules = [lesson.stem for lesson in lessons if lesson.parts[0] == phase]
        write_contents(STAGE / phase / "index.md", phase, PHASES[phase], modules)
    scenarios = sorted({step.parent for step in steps})
    for scenario in scenarios:
        title, text = scenario.name.capitalize(), "The steps of the loop, as `mlops-nb demo` ran them."
        write_contents(STAGE / scenario / "index.md", title, text, [step.stem for step in steps if step.parent == scenario])
    text = "Every module is a notebook: how it works, why, and its reference."
    write_contents(STAGE / "library.md", "Library", text, [f"{phase}/index" for phase in phases])
    text = "One folder of notebooks each; every step is run and read on its own."
    write_contents(STAGE / "scenarios.md", "Scenarios", text, [f"{scenario.as_posix()}/index" for scenario in scenarios])


def write_contents(path: Path, title: str, text: str, pages: list[str]) -> None:
    """Write a page that leads to others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([f"# {title}", "", text, "", "```{toctree}", ":maxdepth: 2", "", *pages, "```", ""]))


def main(fresh: bool) -> None:
    """Execute, stage, build; any warning is an error."""
    if fresh:
        shutil.rmtree(BUILD, ignore_errors=True)
    steps = executed_steps()
    stage(executed_lessons(), steps)
    shutil.rmtree(SITE, ignore_errors=True)  # pages of notebooks that are gone
    sphinx = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    built = subprocess.run([*sphinx, "-d", BUILD / "doctrees", "-c", DOCS, STAGE, SITE], cwd=ROOT)  # noqa: S603
    if built.returncode:
        sys.exit("docs: the warnings above are errors")
    for step, path in steps.items():  # the reports that a step's page leads to
        for report in (path.parent / "outputs").glob("*.report.html"):
            (SITE / step.parent / "outputs").mkdir(exist_ok=True)
            shutil.copy(report, SITE / step.parent / "outputs")
    print(f"docs: open {(SITE / 'index.html').relative_to(ROOT)}")


if __name__ == "__main__":
    main("--fresh" in sys.argv)
