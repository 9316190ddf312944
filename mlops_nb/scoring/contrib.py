"""What a scoring script with `@rawhttp` imports from Azure ML, where the real packages are not installed.

`azureml.contrib.services` and `azureml_inference_server_http.api` stand on Flask. Here `AMLRequest` is the part of Flask's request
that scoring scripts use, and `AMLResponse` an answer of the script's own making: status, headers, any body. Where a real package
is installed, it is left alone, and scripts get Flask's own request.
"""

import importlib.util
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from email.parser import BytesParser
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import parse_qsl

_JSON = "application/json"
_PACKAGES = ("azureml.contrib.services", "azureml_inference_server_http.api")


def rawhttp(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give `run` the request itself."""
    function._is_raw = True  # type: ignore[attr-defined]
    return function


class _Names(dict[str, Any]):
    """Values by name, some names with several; `[]` gives the first."""

    def __init__(self, pairs: Iterable[tuple[str, Any]]):
        self.pairs = list(pairs)
        super().__init__(reversed(self.pairs))

    def get(self, name: str, default: Any = None, type: Callable[[Any], Any] | None = None) -> Any:
        """Return a value, turned into a type; the default where there is none, or one that does not turn."""
        try:
            value = self[name]
            return type(value) if type else value
        except (KeyError, ValueError):
            return default

    def getlist(self, name: str) -> list[Any]:
        """Return all values of a name."""
        return [value for key, value in self.pairs if key == name]


class _Headers(_Names):
    """Headers, whose names may be written in any case."""

    def __init__(self, pairs: Iterable[tuple[str, str]]):
        super().__init__((name.title(), value) for name, value in pairs)

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name.title())

    def __contains__(self, name: object) -> bool:
        return super().__contains__(str(name).title())


class File(io.BytesIO):
    """One uploaded file."""

    def __init__(self, data: bytes, filename: str, content_type: str):
        super().__init__(data)
        self.filename, self.content_type, self.mimetype, self.stream = filename, content_type, content_type, self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file somewhere."""
        Path(path).write_bytes(self.getvalue())


class AMLRequest:
    """A request as `@rawhttp` hands it over: the part of Flask's request that scoring scripts use."""

    def __init__(self, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes):
        self.method, self.path, self.query_string = method, path, query.encode()
        self.headers = _Headers(headers.items())
        self.args = _Names(parse_qsl(query, keep_blank_values=True))
        self.data, self.content_length = body, len(body)
        self.content_type = self.headers.get("content-type", "")
        self.mimetype = self.content_type.partition(";")[0].strip().lower()
        self.full_path = f"{path}?{query}"
        self.url = f"http://{self.headers.get('host', 'localhost')}{path}" + (f"?{query}" if query else "")
        self.stream = io.BytesIO(body)

    @property
    def is_json(self) -> bool:
        """Whether the body says that it is JSON."""
        return self.mimetype == _JSON or self.mimetype.endswith("+json")

    @property
    def json(self) -> Any:
        """The body, from JSON."""
        return self.get_json()

    def get_data(self, cache: bool = True, as_text: bool = False, parse_form_data: bool = False) -> Any:
        """Return the body."""
        return self.data.decode(errors="replace") if as_text else self.data

    def get_json(self, force: bool = False, silent: bool = False, cache: bool = True) -> Any:
        """Return the body from JSON; None when it does not say that it is JSON, unless it is forced."""
        try:
            return json.loads(self.data) if force or self.is_json else None
        except ValueError:
            if silent:
                return None
            raise

    @property
    def files(self) -> _Names:
        """The uploaded files of a form."""
        return _Names((name, value) for name, value in self._form if isinstance(value, File))

    @property
    def form(self) -> _Names:
        """The other fields of a form."""
        return _Names((name, value) for name, value in self._form if not isinstance(value, File))

    @property
    def values(self) -> _Names:
        """What stands in the address, then what stands in a form."""
        return _Names([*self.args.pairs, *self.form.pairs])

    @cached_property
    def _form(self) -> list[tuple[str, Any]]:
        if self.mimetype == "application/x-www-form-urlencoded":
            return list(parse_qsl(self.data.decode(errors="replace"), keep_blank_values=True))
        if self.mimetype != "multipart/form-data":
            return []
        message = BytesParser().parsebytes(f"Content-Type: {self.content_type}\r\n\r\n".encode() + self.data)
        found: list[tuple[str, Any]] = []
        for part in message.get_payload() if message.is_multipart() else []:
            data: bytes = part.get_payload(decode=True) or b""  # type: ignore[union-attr,assignment]
            name = str(part.get_param("name", "", "content-disposition"))  # type: ignore[union-attr]
            filename = part.get_filename()  # type: ignore[union-attr]
            found.append((name, data.decode(errors="replace") if filename is None
                          else File(data, filename, part.get_content_type())))  # type: ignore[union-attr,arg-type]
        return found


class AMLResponse:
    """An answer of the script's own making: status, headers, any body."""

    def __init__(self, message: Any, status_code: int, response_headers: Mapping[str, str] | None = None, json_str: bool = False,
                 run_function_failed: bool = False):
        is_json = json_str or message is None
        text = json.dumps({} if message is None else message) if is_json else message
        self.status_code = status_code
        self._data = text.encode() if isinstance(text, str) else bytes(text)
        self.headers: dict[str, str] = {"Content-Type": _JSON if is_json else "text/html; charset=utf-8"}
        for name, value in (response_headers or {}).items():
            same = [known for known in self.headers if known.lower() == name.lower()]
            for known in same:
                del self.headers[known]
            self.headers[name] = str(value)
        self.headers["x-ms-run-function-failed"] = str(run_function_failed)

    def get_data(self, as_text: bool = False) -> Any:
        """Return the body."""
        return self._data.decode() if as_text else self._data


def provide() -> None:
    """Let scripts import the stand-in by the real packages' names, where these are not installed."""
    for package in _PACKAGES:
        if _exists(package):
            continue
        for depth in range(package.count("."), -1, -1):  # parents first
            _stand_in(package.rsplit(".", depth)[0])
        request, response = _stand_in(f"{package}.aml_request"), _stand_in(f"{package}.aml_response")
        request.rawhttp, request.AMLRequest = rawhttp, AMLRequest  # type: ignore[attr-defined]
        response.AMLResponse = AMLResponse  # type: ignore[attr-defined]


def _exists(name: str) -> bool:
    try:
        return name in sys.modules or importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _stand_in(name: str) -> ModuleType:
    if _exists(name):
        return importlib.import_module(name)
    module = sys.modules[name] = ModuleType(name, f"Stands in for {name}, which is not installed.")
    module.__path__ = []
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, module)
    return module


def is_raw(function: Callable[..., Any]) -> bool:
    """Say whether a script's `run` has the decorator, ours or a real package's."""
    return _is_flasks() or getattr(function, "_is_raw", False)


def _is_flasks() -> bool:
    """Whether a real package's decorator was used; it only remembers that."""
    return any(getattr(sys.modules.get(f"{package}.aml_request"), "_rawHttpRequested", False) for package in _PACKAGES)


def make_request(method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Any:
    """Make the request that such a `run` gets."""
    if not _is_flasks():
        return AMLRequest(method, path, query, headers, body)
    from flask import Request

    variables = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}
    return Request(variables | {
        "REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, "SERVER_NAME": "localhost", "SERVER_PORT": "80",
        "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": headers.get("content-type", "")})
