"""A scoring script written for Azure ML answers here as it does there, and what it collects is kept."""

import base64
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from mlops_nb.scoring.config import Config, Wish
from mlops_nb.scoring.script import Asked, Script, ScriptFailed, load_script


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Script]]:
    """Load a scoring script: its source, and the model's files."""
    modules, path, variables, folder = set(sys.modules), list(sys.path), dict(os.environ), Path.cwd()

    def make(source: str, **files: str) -> Script:
        (tmp_path / "code").mkdir(exist_ok=True)
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "code/score.py").write_text(textwrap.dedent(source))
        for name, content in files.items():
            (tmp_path / "model" / name).write_text(content)
        script = {"code": str(tmp_path / "code"), "scoring_script": "score.py"}
        wish = Wish("model:dev.words/1", str(tmp_path / "model"), script=script)
        return load_script(Config("shop", "blue", "dev", "blue-0", str(tmp_path / "run" / "blue.sock"), wish))

    yield make
    os.chdir(folder)
    sys.path[:] = path
    os.environ.clear()
    os.environ.update(variables)
    for name in set(sys.modules) - modules:
        if name == "entry_module" or name.startswith(("azureml.contrib", "azureml_inference_server_http")):
            del sys.modules[name]


def asked(body: bytes | str = b"{}", method: str = "POST", query: str = "", **headers: str) -> Asked:
    known = {"content-type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return Asked(method, "/score", query, known, body.encode() if isinstance(body, str) else body)


WORDS = """
    import json, os
    import helper

    def init():
        global words
        words = open(os.path.join(os.getenv("AZUREML_MODEL_DIR"), "model", "words.json")).read()
        assert open("score.py").read(), "the code folder is the working folder"

    def run(data):
        return {"words": json.loads(words), "asked": json.loads(data)["text"], "helped": helper.help()}
"""


def test_a_script_finds_its_model_its_modules_and_its_folder(load: Callable[..., Script], tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/helper.py").write_text("def help(): return 'yes'")
    script = load(WORDS, **{"words.json": '["a"]'})
    answered = script.run(asked('{"text": "é"}'))
    assert json.loads(answered.body) == {"words": ["a"], "asked": "é", "helped": "yes"}
    assert (answered.status, answered.media_type) == (200, "application/json")
    assert float(answered.headers["x-ms-run-fn-exec-ms"]) >= 0
    assert (Path(os.environ["AZUREML_MODEL_DIR"]) / "words.json").is_file()  # as it was registered without a folder of its own
    assert os.environ["AZUREML_ENTRY_SCRIPT"] == "score.py"


@pytest.mark.parametrize(("returned", "sent"), [
    ("[1, 2.5]", b"[1, 2.5]"),
    ("{'a': None}", b'{"a": null}'),
    ("'text'", b'"text"'),  # a text is JSON, too: in quotes
    ("None", b"{}"),
    ("float('nan')", b"NaN"),  # not mended: clients of Azure ML get it, too
])
def test_what_run_returns_is_sent_as_azure_sends_it(load: Callable[..., Script], returned: str, sent: bytes) -> None:
    script = load(f"def init(): pass\ndef run(data): return {returned}")
    assert script.run(asked()).body == sent


def test_run_gets_the_headers_if_it_asks_for_them_and_a_get_its_parameters(load: Callable[..., Script]) -> None:
    script = load("def init(): pass\ndef run(raw, request_headers): return [raw, request_headers.get('X-Shop')]")
    assert json.loads(script.run(asked('{"a": 1}', x_shop="north")).body) == ['{"a": 1}', "north"]
    got = json.loads(script.run(asked(b"", "GET", "a=1&b=[1,2]&c=x&c=null")).body)[0]
    assert json.loads(got) == {"a": 1, "b": [1, 2], "c": ["x", None]}
    assert script.run(asked(b"\xff")).status == 400


RAW = """
    from azureml.contrib.services.aml_request import AMLRequest, rawhttp
    from azureml.contrib.services.aml_response import AMLResponse

    def init(): pass

    @rawhttp
    def run(request):
        if request.method == "OPTIONS":
            return AMLResponse("", 200, {"Allow": "GET,POST", "Content-Type": "text/plain"})
        if "photo" in request.files:
            photo = request.files["photo"]
            return AMLResponse(photo.read()[::-1], 200, {"content-type": "image/png", "X-Name": photo.filename + request.form["note"]})
        if request.args.get("status"):
            return AMLResponse({"why": request.headers.get("x-shop")}, int(request.args["status"]), json_str=True)
        return {"size": len(request.get_data()), "json": request.get_json(silent=True)}
"""


def test_a_script_with_rawhttp_gets_the_request_and_makes_the_answer(load: Callable[..., Script]) -> None:
    script = load(RAW)
    assert script.methods == ("GET", "POST", "OPTIONS")
    options = script.run(asked(b"", "OPTIONS"))
    assert (options.body, options.media_type, options.headers["allow"]) == (b"", "text/plain", "GET,POST")
    photo = bytes(range(256))
    form = (b'--B\r\ncontent-disposition: form-data; name="photo"; filename="a.png"\r\ncontent-type: image/png\r\n\r\n' + photo
            + b'\r\n--B\r\ncontent-disposition: form-data; name="note"\r\n\r\n!\r\n--B--\r\n')
    answered = script.run(asked(form, content_type="multipart/form-data; boundary=B"))
    assert (answered.body, answered.media_type, answered.headers["x-name"]) == (photo[::-1], "image/png", "a.png!")
    assert json.loads(script.run(asked(b'{"a": 1}')).body) == {"size": 8, "json": {"a": 1}}


def test_a_status_other_than_200_is_a_model_error_to_the_client_as_on_azure(load: Callable[..., Script]) -> None:
    answered = load(RAW).run(asked(b"", query="status=403", x_shop="north"))
    assert (answered.status, json.loads(answered.body)) == (424, {"why": "north"})
    assert answered.headers["ms-azureml-model-error-statuscode"] == "403"
    assert answered.headers["ms-azureml-model-error-reason"] == "Forbidden"


@pytest.mark.parametrize(("run", "told"), [
    ("raise ValueError('no cut')", "ValueError: no cut"),
    ("exit(3)", "SystemExit: 3"),
    ("return {1, 2}", r"set that is no JSON .*\.tolist\(\)"),
    ("from azureml.contrib.services.aml_response import AMLResponse as A; return A('', 200, {'a': 'b\\r\\nc: d'})", "header 'a'"),
])
def test_a_run_that_fails_says_what_and_leaves_its_traceback(
    load: Callable[..., Script], run: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    script = load(f"def init(): pass\ndef run(data): {run}")
    with pytest.raises(ScriptFailed, match=told):
        script.run(asked())
    assert ("score.py" in caplog.text) == run.startswith(("raise", "exit"))


@pytest.mark.parametrize(("source", "told"), [
    ("def init(): raise KeyError('words')\ndef run(data): pass", "words"),
    ("def run(data): pass", r"has no init\(\)"),
    ("def init(): pass\ndef run(): pass", "Give it a parameter"),
    ("def init(): pass\ndef run(*data): pass", r"\*args"),
    ("exit()", "Take that out"),
    ("import nowhere", "nowhere"),
])
def test_a_script_that_cannot_serve_does_not_start(load: Callable[..., Script], source: str, told: str) -> None:
    with pytest.raises((ScriptFailed, KeyError, ImportError), match=told):
        load(source)


def test_the_decorators_of_inference_schema_give_run_its_parts(load: Callable[..., Script]) -> None:
    pytest.importorskip("inference_schema")
    script = load("""
        from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
        from inference_schema.schema_decorators import input_schema
        import numpy as np

        def init(): pass

        @input_schema("data", NumpyParameterType(np.array([[1.0, 2.0]])))
        def run(data): return (data * 2).tolist()
    """)
    assert json.loads(script.run(asked('{"data": [[1, 2]]}')).body) == [[2.0, 4.0]]
    assert script.run(asked('{"other": 1}')).status == 400
    assert script.run(asked("{}", content_type="text/csv")).status == 415


# --- in the deployment's own process, with Azure's own package ---------------------------------------------------------

COLLECTS = """
    import json, os
    import pandas as pd
    from azureml.ai.monitoring import Collector
    from azureml.ai.monitoring.context import BasicCorrelationContext

    def init():
        global inputs, outputs, audit
        inputs, outputs, audit = (Collector(name=name) for name in ("model_inputs", "model_outputs", "audit"))
        print("ready to score")

    def run(data):
        asked = json.loads(data)
        if "where" in asked:
            return os.environ["AZUREML_MDC_PORT"]
        frame = pd.DataFrame(asked["rows"])
        context = inputs.collect(frame, BasicCorrelationContext(id=asked["id"]))
        outputs.collect(frame * 2, context)
        audit.collect(frame.head(1), context)
        return (frame * 2).to_dict()
"""


class Worker:
    """A deployment's process with a scoring script."""

    def __init__(self, folder: Path, source: str, collections: dict[str, float]):
        self.home = Path(tempfile.mkdtemp(prefix="w"))  # paths of sockets are short
        (folder / "code").mkdir()
        (folder / "code/score.py").write_text(textwrap.dedent(source))
        self.collected = folder / "collected"
        script = {"code": str(folder / "code"), "scoring_script": "score.py"}
        collector = {"collections": collections}
        wish = Wish("model:dev.words/1", str(folder), script=script, collected=str(self.collected), collector=collector)
        config = json.dumps(asdict(Config("shop", "blue", "dev", "blue-0", "blue.sock", wish)))
        self.log = folder / "blue.log"
        with self.log.open("w") as log:
            command = [sys.executable, "-P", "-m", "mlops_nb.scoring.app", config]
            self.process = subprocess.Popen(command, cwd=self.home, stdin=subprocess.PIPE, stdout=log, stderr=log)

    def post(self, content: dict[str, Any]) -> tuple[int, Any]:
        until = time.monotonic() + 60
        while True:
            connection = http.client.HTTPConnection("localhost", timeout=60)
            connection.sock = socket.socket(socket.AF_UNIX)
            try:
                connection.sock.connect(str(self.home / "blue.sock"))
                break
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < until
                time.sleep(0.02)
        connection.request("POST", "/score", json.dumps(content), {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    def events(self, collection: str) -> list[dict[str, Any]]:
        files = (self.collected / collection).rglob("*.jsonl")
        return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]

    def until_kept(self, collection: str, name: str) -> None:
        until = time.monotonic() + 60
        while not any(f'"{name}"'.encode() in file.read_bytes() for file in (self.collected / collection).rglob("*.jsonl")):
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.02)

    def end(self) -> int:
        self.process.terminate()
        code = self.process.wait(60)
        shutil.rmtree(self.home, ignore_errors=True)
        return code


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    pytest.importorskip("azureml.ai.monitoring")
    collections = {"model_inputs": 1.0, "model_outputs": 1.0, "audit": 0.5, "response": 1.0}
    worker = Worker(tmp_path_factory.mktemp("worker"), COLLECTS, collections)
    yield worker
    worker.process.kill()
    worker.process.wait()


def test_the_sink_takes_nothing_from_anybody_else(worker: Worker) -> None:
    _, port = worker.post({"where": True})
    for password in ("", "Basic " + base64.b64encode(b"mlops-nb:guess").decode()):
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
        headers = {"ce-type": "azureml.inference.model_inputs", "ce-time": "1", "trace-id": "forged", "authorization": password}
        connection.request("POST", "/modeldata/log", '[{"carat": 1}]', headers)
        assert connection.getresponse().status == 401
    listening = subprocess.run(["ss", "-ltnH", f"sport = :{port}"], capture_output=True, text=True) if shutil.which("ss") else None
    assert listening is None or f"127.0.0.1:{port}" in listening.stdout
    assert not [event for event in worker.events("model_inputs") if event["id"] == "forged"]


def test_azures_own_collector_writes_into_the_same_layout_until_the_end(worker: Worker) -> None:
    for number in range(20):
        if number == 19:  # the end bears the package for three seconds only: it is left with what one request makes
            worker.until_kept("model_outputs", "order-18")
        assert worker.post({"id": f"order-{number}", "rows": [{"carat": number}]}) == (200, {"carat": {"0": 2 * number}})
    assert worker.end() in (0, -signal.SIGTERM), worker.log.read_text()  # what waits in the package's own queue is kept, too
    asked, answered = worker.events("model_inputs"), worker.events("model_outputs")
    for collected in (asked, answered):
        assert [event["correlationid"] for event in collected] == [f"order-{number}" for number in range(20)]
    assert [event["data"] for event in answered] == [[{"carat": 2 * number}] for number in range(20)]
    assert asked[0]["type"] == "azureml.inference.model_inputs"
    assert asked[0]["collectdatatype"].endswith("DataFrame")
    assert asked[0]["agent"].startswith("azureml-ai-monitoring/")
    assert 0 < len(worker.events("audit")) < 20  # half of them, by the deployment's file
    assert worker.events("response")[-1]["data"] == {"carat": {"0": 38}}  # what the server keeps itself
    assert list(worker.collected.glob("audit/????/??/??/??/blue-0-*.jsonl"))
    assert "ready to score" in worker.log.read_text()


WITHOUT = """
import sys
from mlops_nb.scoring.config import Config, Wish
from mlops_nb.scoring.script import Asked, load_script
script = load_script(Config("shop", "blue", "dev", "b", sys.argv[1] + "/b.sock", Wish("", sys.argv[1], script={"code": sys.argv[1]})))
print(script.run(Asked("POST", "/score", "", {}, b'{"id": "a", "rows": [{"carat": 1}]}')).body.decode())
"""


def test_a_script_with_collectors_runs_where_nothing_is_collected(tmp_path: Path) -> None:
    pytest.importorskip("azureml.ai.monitoring")
    (tmp_path / "score.py").write_text(textwrap.dedent(COLLECTS))
    done = subprocess.run([sys.executable, "-c", WITHOUT, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert '{"carat": {"0": 2}}' in done.stdout


def test_a_deployment_whose_init_fails_ends_with_its_traceback(tmp_path: Path) -> None:
    worker = Worker(tmp_path, "def init():\n    print('about to fail')\n    1 / 0\ndef run(data): pass", {})
    assert worker.process.wait(60) not in (0, -signal.SIGTERM)
    told = worker.log.read_text()
    assert "about to fail" in told
    assert "ZeroDivisionError" in told
    assert 'score.py", line 3, in init' in told
