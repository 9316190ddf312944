"""Open a notebook where it failed: JupyterLab's own interface has a session whose kernel is at that state."""

import ast

import pytest
import requests
from jupyter_client import BlockingKernelClient

from mlops_nb.core.records import SpecificationError
from mlops_nb.kernels.debug import serve


def ask(page, path: str):
    return requests.get(f"{page.server}{path}", headers={"Authorization": f"token {page.token}"}, timeout=60).json()


@pytest.mark.slow
def test_a_failed_notebook_is_opened_at_the_state_before_the_failure(notebook, run, tmp_path):
    (tmp_path / "work").mkdir()
    path = notebook("x: int = 1", ("1 / 0", "raises-exception"), "import os\ny = x * 2", "y += 1 / (y - 6)", "y = 100")
    variables = {"ONLY_THERE": "yes", "MLFLOW_RUN_CONTEXT": "{}"}
    with pytest.raises(Exception, match="ZeroDivisionError"):
        run(path, {"x": 3}, cwd=tmp_path / "work", variables=variables)
    executed = tmp_path / "out-page.ipynb"
    before, said = executed.read_bytes(), []
    page = serve(executed, said.append)
    try:
        assert said == ["cell [1]: x: int = 1", "cell [2]: # Parameters", "cell [3]: 1 / 0", "cell [4]: import os"]
        (session,) = ask(page, "api/sessions")
        assert (session["path"], session["kernel"]["id"]) == ("out-page.debug.ipynb", page.kernel)
        client = BlockingKernelClient(connection_file=f"{page.folder}/kernel-{page.kernel}.json")
        client.load_connection_file()
        client.start_channels()
        look = {"state": "x, y, os.getcwd(), os.environ['ONLY_THERE'], 'MLFLOW_RUN_CONTEXT' in os.environ"}
        reply = client.execute("", reply=True, timeout=60, user_expressions=look)["content"]
        client.stop_channels()
        state = ast.literal_eval(reply["user_expressions"]["state"]["data"]["text/plain"])
        assert state == (3, 6, str(tmp_path / "work"), "yes", False)
        assert page.url.startswith(f"{page.server}lab/tree/out-page.debug.ipynb?token=")
    finally:
        page.close()
    assert page.process.poll() is not None
    assert executed.read_bytes() == before, "what the run left is evidence: a copy is opened"


def test_a_notebook_that_we_did_not_run_is_refused(notebook):
    with pytest.raises(SpecificationError, match="jupyter lab"):
        serve(notebook("x = 1"))
    with pytest.raises(FileNotFoundError):
        serve("none.ipynb")
