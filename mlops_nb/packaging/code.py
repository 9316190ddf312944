"""Find the modules of ours that serving one deployment needs, and the libraries that these import."""

import ast
from functools import lru_cache
from pathlib import Path

import mlops_nb
from mlops_nb.packaging.lock import canonical

ENTRY = "mlops_nb.scoring.app"
_LOOPS = ["uvloop", "httptools"]  # uvicorn takes them where they are; nobody imports them by name


@lru_cache
def serving_modules() -> dict[str, Path]:
    """Follow the imports from the worker's entry point, also those inside functions; returns name in the package -> file."""
    root = Path(mlops_nb.__file__).parents[1]
    found: dict[str, Path] = {}
    waiting = [ENTRY]
    while waiting:
        path = _file(root, waiting.pop())
        if path is None or path.relative_to(root).as_posix() in found:
            continue
        found[path.relative_to(root).as_posix()] = path
        waiting += _imports(path, root)
    return dict(sorted(found.items()))


def _file(root: Path, module: str) -> Path | None:
    place = root.joinpath(*module.split("."))
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def _imports(path: Path, root: Path) -> list[str]:
    package = path.relative_to(root).with_suffix("").parts[:-1]
    names = [".".join(package[:depth]) for depth in range(1, len(package) + 1)]  # their __init__ runs first
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            start = ".".join(filter(None, [base, node.module]))
            names += [start, *(f"{start}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.partition(".")[0] == "mlops_nb"]


@lru_cache
def serving_requirements() -> list[str]:
    """Name the libraries that those modules import, of the ones that this project depends on."""
    from importlib.metadata import packages_distributions, requires

    from packaging.requirements import Requirement

    root = Path(mlops_nb.__file__).parents[1]
    ours = {canonical(Requirement(line).name): line for line in requires("mlops-nb") or [] if "extra ==" not in line}
    providers = packages_distributions()
    used = set(_LOOPS)
    for path in serving_modules().values():
        used |= {canonical(name) for top in _libraries(path, root) for name in providers.get(top, [])}
    used -= {"mlflow"}  # the model's own requirements name it, at the version that wrote the model
    return sorted(f"{name}; {marker}" if marker else name for name in used & ours.keys()
                  for marker in [str(Requirement(ours[name]).marker or "")])


def _libraries(path: Path, root: Path) -> set[str]:
    tops = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            tops |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            tops.add(node.module.partition(".")[0])
    return tops
