"""A detached process outlives the terminal it was started from, and what it prints is kept."""

import os
import subprocess
import sys

import psutil
import pytest

from medseg.errors import OutputError, RunError
from medseg.runs.detach import DETACHED, detach, redirect_output_to, wait_for_run
from medseg.runs.record import read_record
from medseg.runs.text_log import last_lines

pytestmark = pytest.mark.slow

# A terminal of its own with a shell in it, in which a command is given; then the terminal is closed.
CLOSED_TERMINAL = """
import os, pty, sys
pid, master = pty.fork()
if pid == 0:
    os.execvp("sh", ["sh", "-c", '"$@"; echo started; sleep 600', "sh", *sys.argv[1:]])
output = b""
while b"started" not in output:
    output += os.read(master, 1000)
os.close(master)
print("signal", os.WTERMSIG(os.waitpid(pid, 0)[1]))
"""
STARTER = """
import sys
from medseg.runs.detach import detach, wait_for_run
started = detach(sys.argv[2:], sys.argv[1])
wait_for_run(started, lambda piece: None)
started.release()
"""


def test_a_detached_run_prints_to_its_folder_and_has_its_own_session(trainer, tmp_path):
    started = detach(trainer(30, "--pause", 0.1), tmp_path / "runs")
    try:
        folder = wait_for_run(started, lambda piece: None)
        assert folder == tmp_path / "runs" / "unet2d" / "run"
        assert read_record(folder)["pid"] == started.pid
        if os.name == "posix":
            assert os.getsid(started.pid) == started.pid
    finally:
        started.process.kill()
        started.process.wait()
    assert (folder / "console.log").read_text().splitlines() == ["early", "late"]
    assert not list((tmp_path / "runs" / DETACHED).iterdir())


@pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")
def test_a_detached_run_outlives_its_terminal(trainer, tmp_path, wait_until):
    command = [sys.executable, "-c", CLOSED_TERMINAL, sys.executable, "-c", STARTER, str(tmp_path / "runs")]
    done = subprocess.run([*command, *trainer(100)], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "signal 1\n"  # the shell died of SIGHUP
    folder = tmp_path / "runs" / "unet2d" / "run"
    record = read_record(folder)
    assert record["state"] == "running"
    assert psutil.pid_exists(record["pid"])
    wait_until(lambda: read_record(folder)["state"] == "finished")
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 100


def test_a_process_that_ends_before_its_run_began_is_an_error(tmp_path):
    started = detach([sys.executable, "-c", "print('no such bundle'); raise SystemExit(3)"], tmp_path)
    printable = []
    with pytest.raises(RunError, match="it ended with exit code 3 before its run began. What it printed is in"):
        wait_for_run(started, printable.append)
    assert b"".join(printable).split() == b"no such bundle".split()
    assert last_lines(started.log) == ["no such bundle"]


def test_a_process_that_never_begins_a_run_is_not_waited_for_forever(tmp_path, wait_until):
    started = detach([sys.executable, "-c", "print('early', flush=True); import time; time.sleep(60)"], tmp_path)
    try:
        wait_until(lambda: started.output())
        printable = []
        assert wait_for_run(started, printable.append, patience=0.3) is None
        assert b"".join(printable).split() == [b"early"]
        assert started.exit_code() is None
    finally:
        started.process.kill()
        started.process.wait()


def test_a_program_that_cannot_be_started_leaves_no_file(tmp_path):
    with pytest.raises(RunError, match="the program cannot be started"):
        detach([str(tmp_path / "nothing")], tmp_path)
    assert not list((tmp_path / DETACHED).iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="the folder cannot be written"):
        detach([sys.executable], tmp_path / "file")


def test_old_output_of_runs_that_never_began_is_removed(tmp_path):
    (tmp_path / DETACHED).mkdir()
    old, new = tmp_path / DETACHED / "old.log", tmp_path / DETACHED / "new.log"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    detach([sys.executable, "-c", ""], tmp_path).process.wait()
    assert new.exists()
    assert not old.exists()


PROGRAM = """
import subprocess, sys
from medseg.runs.detach import redirect_output_to
print("before")
redirect_output_to(sys.argv[1])
print("after")
print("error", file=sys.stderr)
sys.stdout.flush()
subprocess.run([sys.executable, "-c", "import os; print('child', 'MEDSEG_CONSOLE' in os.environ)"], check=True)
"""


def test_all_output_moves_to_the_folder_of_the_run(tmp_path):
    run = tmp_path / "run"
    early = tmp_path / "early.log"
    run.mkdir()
    with early.open("wb") as output:
        environment = {**os.environ, "MEDSEG_CONSOLE": str(early)}
        command = [sys.executable, "-c", PROGRAM, str(run)]
        subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, env=environment, check=True)
    assert sorted((run / "console.log").read_text().splitlines()) == ["after", "before", "child False", "error"]
    assert (run / "console.log").read_text().startswith("before")
    assert (tmp_path / "early.log.run").read_text() == str(run)
    if os.name == "posix":
        assert not early.exists()


def test_a_process_with_a_terminal_keeps_it(tmp_path, monkeypatch):
    monkeypatch.delenv("MEDSEG_CONSOLE", raising=False)
    redirect_output_to(tmp_path)
    assert not list(tmp_path.iterdir())
