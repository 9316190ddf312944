"""The bad machine itself: it stops a command and its daemons, lets them go on, and hands on how the command ended."""

import subprocess
import sys
from pathlib import Path

import pytest

STOPS = Path(__file__).with_name("stops.py")
COMMAND = """
import pathlib, signal, subprocess, sys, time

name, *daemon = sys.argv[1:]
signal.signal(signal.SIGCONT, lambda *_: pathlib.Path(name).touch())
for one in daemon:
    subprocess.Popen([sys.executable, __file__, one], start_new_session=True)
while not all(pathlib.Path(one).exists() for one in (name, *daemon)):
    time.sleep(0.01)
sys.exit(7)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_command_and_its_daemon_are_stopped_and_go_on(tmp_path):
    (tmp_path / "command.py").write_text(COMMAND)
    command = [sys.executable, str(STOPS), sys.executable, str(tmp_path / "command.py"), "foreground", "daemon"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 7, done.stderr
    assert (tmp_path / "foreground").exists()
    assert (tmp_path / "daemon").exists()
