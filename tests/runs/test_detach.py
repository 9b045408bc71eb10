"""A detached process outlives the terminal it was started from, and what it prints is kept."""

import os
import subprocess
import sys

import psutil
import pytest

from medseg.errors import OutputError, RunError
from medseg.runs.detach import EARLY, detach, last_lines, wait_for_run
from medseg.records import read_record

# A terminal of its own with a shell in it, in which a command is given; then the terminal is closed.
CLOSED_TERMINAL = """
import os, pty, sys
pid, master = pty.fork()
if pid == 0:
    os.execvp("sh", ["sh", "-c", '"$@"; echo started; sleep 600', "sh", *sys.argv[1:]])
said = b""
while b"started" not in said:
    said += os.read(master, 1000)
os.close(master)
print("signal", os.WTERMSIG(os.waitpid(pid, 0)[1]))
"""
STARTER = """
import sys
from medseg.runs.detach import detach, wait_for_run
started = detach(sys.argv[2:], sys.argv[1])
wait_for_run(started, lambda piece: None)
started.let_go()
"""


def test_it_prints_to_its_runs_folder_and_has_a_session_of_its_own(trainer, tmp_path):
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
    assert not list((tmp_path / "runs" / EARLY).iterdir())


@pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")
def test_it_runs_on_when_the_terminal_is_closed(trainer, tmp_path, wait_until):
    command = [sys.executable, "-c", CLOSED_TERMINAL, sys.executable, "-c", STARTER, str(tmp_path / "runs")]
    done = subprocess.run([*command, *trainer(100)], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "signal 1\n"  # the shell died of SIGHUP
    folder = tmp_path / "runs" / "unet2d" / "run"
    record = read_record(folder)
    assert record["state"] == "running"
    assert psutil.pid_exists(record["pid"])
    wait_until(lambda: read_record(folder)["state"] == "finished")
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 100


def test_one_that_ends_before_its_run_began_is_an_error_that_keeps_what_it_printed(tmp_path):
    started = detach([sys.executable, "-c", "print('no such bundle'); raise SystemExit(3)"], tmp_path)
    printable = []
    with pytest.raises(RunError, match="must begin its run [(]exit code 3 before that"):
        wait_for_run(started, printable.append)
    assert b"".join(printable).split() == b"no such bundle".split()
    assert last_lines(started.log) == ["no such bundle"]


def test_one_that_never_has_a_run_is_not_waited_for_without_end(tmp_path, wait_until):
    started = detach([sys.executable, "-c", "print('early', flush=True); import time; time.sleep(60)"], tmp_path)
    try:
        wait_until(lambda: started.printed())
        printable = []
        assert wait_for_run(started, printable.append, patience=0.3) is None
        assert b"".join(printable).split() == [b"early"]
        assert started.ended() is None
    finally:
        started.process.kill()
        started.process.wait()


def test_what_cannot_be_started_leaves_nothing(tmp_path):
    with pytest.raises(RunError, match="must be a program that can be started"):
        detach([str(tmp_path / "nothing")], tmp_path)
    assert not list((tmp_path / EARLY).iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="must be a folder that can be written"):
        detach([sys.executable], tmp_path / "file")


def test_old_output_of_runs_that_never_began_is_removed(tmp_path):
    (tmp_path / EARLY).mkdir()
    old, new = tmp_path / EARLY / "old.log", tmp_path / EARLY / "new.log"
    old.touch()
    new.touch()
    os.utime(old, (0, 0))
    detach([sys.executable, "-c", ""], tmp_path).process.wait()
    assert new.exists()
    assert not old.exists()


def test_the_last_lines_are_what_a_terminal_would_show(tmp_path):
    path = tmp_path / "console.log"
    assert last_lines(path) == []
    path.write_bytes("one\n10 %\r50 %\r100 %\n\nMüller\r\n".encode())
    assert last_lines(path) == ["one", "100 %", "Müller"]
    assert last_lines(path, 1) == ["Müller"]
