"""Write a notebook's cells and outputs as plain files, so that tools which know no notebooks read them and name the cell."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_ANSI = re.compile(r"\x1b\[[0-9;]*m")


def lay_notebooks(
    notebooks: Iterable[tuple[str, Path]],  # how a finding shall call it, and the file
    folder: Path,  # to write into
) -> dict[Path, str]:  # file written -> the place it stands for
    """Write every code cell as `.py`, every output and other cell as `.txt`; raises `ValueError` for a file that is no notebook."""
    places = {}
    for number, (name, path) in enumerate(notebooks):
        try:
            content = json.loads(path.read_text())
            parts = list(_parts(content))
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise ValueError(f"{name} is no notebook ({problem}).") from None
        for index, (part, suffix, text) in enumerate(parts):
            file = folder / f"{number:04}" / f"{index:05}{suffix}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            places[file] = f"{name} {part}"
    return places


def _parts(content: dict[str, Any]) -> Iterator[tuple[str, str, str]]:  # the place, the kind of file, the text
    told = {key: value for key, value in content["metadata"].items() if key != "widgets"}  # their state is ids and numbers
    yield "metadata", ".txt", json.dumps(told, indent=1)
    for number, cell in enumerate(content["cells"], 1):
        source = _text(cell["source"])
        values = "injected-parameters" in cell["metadata"].get("tags", [])  # what a run was given: values, no code of anybody's
        if cell["cell_type"] == "code" and not values and not source.lstrip().startswith("%%"):
            yield f"cell {number}", ".py", _python(source)
        elif source.strip():
            yield f"cell {number}", ".txt", source
        for output in cell.get("outputs", []):
            if text := "\n".join(filter(None, _texts(output))):
                yield f"cell {number} output", ".txt", _ANSI.sub("", text)


def _texts(output: dict[str, Any]) -> Iterator[str]:
    yield from map(_text, (output.get("text", ""), "\n".join(output.get("traceback", []))))
    for kind, data in output.get("data", {}).items():
        if not kind.startswith(("image/", "video/", "audio/", "application/pdf")):
            yield _text(data) if isinstance(data, str | list) else json.dumps(data, indent=1)


def _text(lines: str | list[str]) -> str:
    return lines if isinstance(lines, str) else "".join(map(str, lines))


def _python(source: str) -> str:
    """Make plain Python of a cell; line magics and shell lines become calls, on the same line where that is possible."""
    if not re.search(r"^\s*[%!?]|^[^#\n]*\?\s*$|=\s*[%!]", source, re.MULTILINE):
        return source
    from IPython.core.inputtransformer2 import TransformerManager

    return TransformerManager().transform_cell(source)
