"""What cells put out: much of it, of every kind, and what is measured of them."""

import json
import re
import resource
import sys

import pytest

MIB = 2**20


def streams(page) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for cell in page.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                found.setdefault(output.name, []).append(output.text)
    return found


def test_a_cell_that_prints_200_mb_keeps_the_first_and_the_last_part(notebook, run, tmp_path):
    path = notebook("x = 1", "for n in range(200_000):\n    print(f'{n:06}', 'y' * 993)", "print('after')")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    page = run(path, log=tmp_path / "log")
    first, last, after = streams(page)["stdout"]
    assert len(first) + len(last) < 9 * MIB
    assert first.startswith("000000 y")
    assert last.endswith("199999 " + "y" * 993 + "\n")
    missing = int(last.split("[... ")[1].split(" bytes")[0].replace(",", ""))
    note = last[: last.index("...]\n") + 5]
    assert missing + len(first) + len(last) - len(note) == 200_000 * 1001
    assert after == "after\n"
    assert (tmp_path / "log").stat().st_size < 9 * MIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600_000, "KiB of memory"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_cell_that_never_stops_printing_can_be_stopped(notebook, run):
    with pytest.raises(TimeoutError):
        run(notebook("x = 1", "while True:\n    print('y' * 999)"), cell_timeout=1)


def test_50_mb_of_displays_are_kept(notebook, run, tmp_path):
    run(notebook("x = 1", "from IPython.display import HTML, display\nfor n in range(50):\n    display(HTML('h' * 1_000_000))"))
    page = json.loads((tmp_path / "out-page.ipynb").read_text())
    assert [len("".join(out["data"]["text/html"])) for out in page["cells"][1]["outputs"]] == [1_000_000] * 50


def test_neighbouring_prints_are_one_output_and_streams_are_told_apart(notebook, run):
    cell = "import sys\nfor n in range(3):\n    print(n, flush=True)\nprint('bad', file=sys.stderr, flush=True)\nprint('end')"
    page = run(notebook("x = 1", cell))
    outputs = [(out.name, out.text) for out in page.cells[1].outputs]
    assert outputs == [("stdout", "0\n1\n2\n"), ("stderr", "bad\n"), ("stdout", "end\n")]


def test_outputs_are_cleared_and_updated_as_in_a_page(notebook, run):
    clear = "from IPython.display import clear_output, display\nprint('gone', flush=True)\nclear_output(wait=True)\nprint('stays')"
    update = "shown = display('first', display_id=True)\nprint('between')"
    page = run(notebook("x = 1", clear, update, "shown.update('second')"))
    assert [out.text for out in page.cells[1].outputs] == ["stays\n"]
    assert page.cells[2].outputs[0].data["text/plain"] == "'second'"


def test_what_processes_of_a_cell_print_is_there(notebook, run, monkeypatch):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # or ipykernel leaves the processes' output alone
    cells = [f"_ = subprocess.run(['echo', '{n}'])" for n in range(30)]  # of ipykernel's own some come too late
    page = run(notebook("import subprocess", *cells))
    assert [[output.text for output in cell.outputs] for cell in page.cells[1:]] == [[f"{n}\n"] for n in range(30)]


def test_a_cell_that_was_silent_for_an_hour_may_end_slowly(notebook, run, tmp_path, hour_passes):
    hour_passes(tmp_path / "silent")
    slow = "flush = sys.stdout.flush\nsys.stdout.flush = lambda: (time.sleep(0.5), flush())  # after the reply, too"
    page = run(notebook("import sys, time", f"{slow}\nopen('silent', 'w').close()", "print('after')"), log=tmp_path / "log")
    assert streams(page)["stdout"] == ["after\n"]
    assert "output may be missing" not in (tmp_path / "log").read_text()


def test_time_and_memory_of_each_cell_are_written_down(notebook, run):
    page = run(notebook("import time", "time.sleep(0.3)", "x = bytearray(200 * 2**20)\ndel x", "1"))
    slow, large, small = (cell.metadata.mlops_nb for cell in page.cells[1:])
    assert slow.seconds >= 0.3
    assert large.peak_mib > 190 + small.peak_mib, "the peak is the cell's own"
    assert page.metadata.mlops_nb.peak_mib == large.peak_mib
    assert page.metadata.mlops_nb.seconds >= slow.seconds


def test_the_log_follows_the_run(notebook, run, tmp_path):
    log, path = tmp_path / "logs" / "step.log", notebook("x = 1", "print('hello')\nprint(open('logs/step.log').read())", "1 / 0")
    with pytest.raises(Exception, match="ZeroDivisionError"):
        run(path, log=log)
    lines = [line.partition(" ")[2].partition(" ")[2] if line[:2] == "20" else line for line in log.read_text().splitlines()]
    assert "cell 2 of 3 starts: print('hello')" in lines
    assert "hello" in lines
    assert any(re.fullmatch(r"cell 2 of 3 ended: \d+\.\d\d s, peak \d+ MiB", line) for line in lines)
    assert any(line.startswith("cell 3 of 3 failed: ") for line in lines)
    assert "ZeroDivisionError: division by zero" in lines
