"""Run a scoring script of the user's own, with `init()` and `run()`, as Azure ML's inference server runs it.

`run` gets what its signature asks for: the body as text; with `@rawhttp` the request; with the decorators of inference-schema
its parts, by name; and `request_headers`, if it has such a parameter. What it returns is sent as JSON with status 200, a text too
(in quotes); an AMLResponse is sent as it is, save that Azure ML tells the client 424 for any status but 200. What the script
prints and logs goes where this process writes, which is the deployment's log.
"""

import contextlib
import importlib.util
import inspect
import io
import json
import logging
import os
import re
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl

from mlops_nb.scoring import contrib
from mlops_nb.scoring.collector import make_collector
from mlops_nb.scoring.config import Config
from mlops_nb.scoring.sink import start_sink

log = logging.getLogger(__name__)

_OURS = {"connection", "content-length", "date", "keep-alive", "server", "te", "trailer", "transfer-encoding", "upgrade"}
_JSON = "application/json"


class ScriptFailed(Exception):
    """The script raised, or returned what cannot be sent; the message says what, as the client may read it. HTTP 424."""


@dataclass(frozen=True)
class Asked:
    """One request, as it came."""

    method: str
    path: str
    query: str  # without the question mark
    headers: Mapping[str, str]  # names in lower case, or a mapping that does not care
    body: bytes


@dataclass(frozen=True)
class Answered:
    """What to send."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)  # besides the type and the length of the body
    media_type: str = _JSON


@dataclass(frozen=True)
class Script:
    """A scoring script that is ready."""

    function: Callable[..., Any]  # its `run`
    parse: Callable[[Asked], dict[str, Any]]  # makes the arguments; raises `_Refused`
    methods: tuple[str, ...]  # HTTP methods that it answers

    def run(self, asked: Asked) -> Answered:
        """Answer one request; raises `ScriptFailed` with what the script raised."""
        try:
            arguments = self.parse(asked)
        except _Refused as problem:
            content = {"error": {"code": problem.code, "message": str(problem)}}
            return Answered(problem.status, json.dumps(content).encode())
        began = time.perf_counter()
        try:
            result = self.function(**arguments)
            taken = f"{(time.perf_counter() - began) * 1000:.3f}"
            return _answered(result, {"x-ms-run-fn-exec-ms": taken})
        except ScriptFailed:
            raise
        except (Exception, SystemExit) as problem:
            log.exception("run() failed")
            raise ScriptFailed(f"{type(problem).__name__}: {problem}") from problem


def load_script(config: Config) -> Script:
    """Import the deployment's scoring script and call its `init()`; raises whatever they raise.

    Sets AZUREML_MODEL_DIR, AZUREML_ENTRY_SCRIPT, AML_APP_ROOT and what azureml-ai-monitoring reads, puts the code folder first
    on sys.path, and makes it the process's working folder: bind a socket with a relative path before, and listen after.
    """
    wanted = config.wish.script or {}
    code = Path(wanted.get("code", ".")).absolute()
    path = code / wanted.get("scoring_script", "score.py")
    if not path.is_file():
        raise FileNotFoundError(f"No scoring script {path}. Correct code_configuration in the deployment's file.")
    room = Path(config.socket).absolute().parent
    start_sink(make_collector(config), room)
    model = Path(config.wish.path).absolute()
    view = show_model(room / f"model-{zlib.crc32(str(model).encode()):08x}", model)  # the same for all instances with this model
    os.environ.update(AZUREML_MODEL_DIR=str(view), AZUREML_ENTRY_SCRIPT=path.name, AML_APP_ROOT=str(code))
    sys.path[:0] = [str(code)] if path.parent == code else [str(code), str(path.parent)]
    os.chdir(code)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    contrib.provide()
    module = _load(path)
    module.init()
    return _script(_driven(module).run)


def show_model(view: Path, model: Path) -> Path:
    """Lay the folder in which scripts find the model as on Azure ML, which puts a registered folder's own name between.

    Depending on how the model was registered, a script asks for `model.pkl` or for `model/model.pkl`: both are there.
    """
    view.mkdir(parents=True, exist_ok=True)
    entries = {entry.name: entry for entry in model.iterdir()} if model.is_dir() else {}
    for name, target in {"model": model, model.name: model, **entries}.items():
        with contextlib.suppress(FileExistsError):  # another process of this model was first
            (view / name).symlink_to(target.resolve())
    return view


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("entry_module", path)
    if spec is None or spec.loader is None:
        raise ScriptFailed(f"{path} is no Python file. Correct scoring_script in the deployment's file.")
    module = sys.modules["entry_module"] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SystemExit as problem:
        raise ScriptFailed(f"{path} calls sys.exit({problem.code}) when it is imported. Take that out.") from problem
    if missing := [name for name in ("init", "run") if not callable(getattr(_driven(module) if name == "run" else module, name, None))]:
        raise ScriptFailed(f"{path} has no {' and no '.join(f'{name}()' for name in missing)}. Define init() and run(data).")
    return module


def _driven(module: ModuleType) -> ModuleType:
    """Return the script that a generated one stands before, as Azure ML's designer makes them."""
    behind = getattr(module, "driver_module", None)
    return behind if isinstance(behind, ModuleType) and hasattr(behind, "run") else module


# --- what run() gets -------------------------------------------------------------------------------------------------


class _Refused(Exception):
    """A request that does not fit the script."""

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.status, self.code = status, code


def _script(function: Callable[..., Any]) -> Script:
    """Find out from run()'s signature and decorators what it is to be given."""
    parameters = list(inspect.signature(function).parameters.values())
    if any(p.kind not in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters):
        raise ScriptFailed("run() has positional-only parameters, *args or **kwargs. Name its parameters.")
    given = [p for p in parameters if p.name != "request_headers"]
    if not given:
        raise ScriptFailed("run() takes no data. Give it a parameter, as in run(data).")
    raw, parted = contrib.is_raw(function), _is_schema_decorated(function)
    if raw and parted:
        raise ScriptFailed("run() has both @rawhttp and @input_schema. Take one of them out.")

    def parse(asked: Asked) -> dict[str, Any]:
        if raw:
            found = {given[0].name: contrib.make_request(asked.method, asked.path, asked.query, asked.headers, asked.body)}
        else:
            found = _parts(asked, given) if parted else {given[0].name: _text(asked)}
        if len(given) < len(parameters):
            found["request_headers"] = {name.title(): value for name, value in asked.headers.items()}
        return found

    return Script(function, parse, ("GET", "POST", "OPTIONS") if raw else ("GET", "POST"))


def _is_schema_decorated(function: Callable[..., Any]) -> bool:
    if "inference_schema" not in sys.modules:  # nobody can have used it
        return False
    from inference_schema.schema_util import is_schema_decorated

    return bool(is_schema_decorated(function))


def _text(asked: Asked) -> str:
    if asked.method == "GET":
        return json.dumps(_parameters(asked.query))
    try:
        return asked.body.decode()
    except UnicodeDecodeError as problem:
        raise _Refused(400, "BadRequest", f"The body is not UTF-8 (byte {problem.start}). Send text as UTF-8.") from None


def _parts(asked: Asked, wanted: Iterable[inspect.Parameter]) -> dict[str, Any]:
    body: Any = _parameters(asked.query)
    if asked.method != "GET":
        kind = asked.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != _JSON and not kind.endswith("+json"):
            raise _Refused(415, "UnsupportedMediaType", f"Content type '{kind}' is not read here. Send application/json.")
        try:
            body = json.loads(asked.body)
        except (ValueError, RecursionError) as problem:
            raise _Refused(400, "BadRequest", f"The body is not JSON: {problem}. Send an object.") from None
    if not isinstance(body, dict):
        raise _Refused(400, "BadRequest", f"The body is a {type(body).__name__}. Send a JSON object.")
    found = {parameter.name: body.get(parameter.name, parameter.default) for parameter in wanted}
    if missing := [name for name, value in found.items() if value is inspect.Parameter.empty]:
        raise _Refused(400, "BadRequest", f"No {', '.join(missing)} in the body (given: {', '.join(body) or 'nothing'}). Send each.")
    return found


def _parameters(query: str) -> dict[str, Any]:
    found: dict[str, list[Any]] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        try:
            found.setdefault(name, []).append(json.loads(value))
        except ValueError:
            found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


# --- what run() returns ----------------------------------------------------------------------------------------------


def _answered(result: Any, headers: dict[str, str]) -> Answered:
    if not (hasattr(result, "get_data") and hasattr(result, "status_code") and hasattr(result, "headers")):
        try:
            return Answered(200, json.dumps({} if result is None else result).encode(), headers | {"x-ms-run-function-failed": "False"})
        except (TypeError, ValueError) as problem:
            raise ScriptFailed(f"run() returned a {type(result).__name__} that is no JSON ({problem}). Return lists and dicts: "
                               "call .tolist() of an array, .to_dict() of a frame.") from problem
    status, kind = int(result.status_code), "text/html; charset=utf-8"
    for name, value in result.headers.items():
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not re.fullmatch(r"[\x20-\x7e\t\x80-\xff]*", value):
            raise ScriptFailed(f"run() returned the header {name!r}: {value!r}, which HTTP does not allow. Take out what is not text.")
        if name.lower() == "content-type":
            kind = value
        elif name.lower() not in _OURS:
            known = headers.get(name.lower())
            headers[name.lower()] = f"{known}, {value}" if known else value
    if status != 200:
        reason = HTTPStatus(status).phrase if status in list(HTTPStatus) else "model_error"
        headers |= {"ms-azureml-model-error-statuscode": str(status), "ms-azureml-model-error-reason": reason}
        headers["x-ms-run-function-failed"] = str(status >= 500)
    return Answered(200 if status == 200 else 424, result.get_data(), headers, kind)
