"""The command that resumes a run, and the process that it becomes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medseg.errors import RunError
from medseg.runs import resume
from medseg.runs.origin import remember_start, was_started_here
from medseg.runs.record import this_process
from medseg.runs.resume import ResumeCommand, resume_command, resume_here

pytestmark = pytest.mark.slow

CHECKOUT = Path(__file__).resolve().parents[2]


def test_the_folder_of_the_run_is_the_bundle_that_is_trained_from_here(make_run, tmp_path, monkeypatch):
    """Whatever folder a record names, which anyone may have written, it is not entered."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = make_run(state="interrupted", config={}, command=["/bin/anything"], working_directory=str(tmp_path))
    command = resume_command(folder, ["lr=1", "a::b=2"])
    arguments = ["-m", "medseg", "train", str(folder), "lr=1", "a::b=2", f"resume={folder}"]
    expected = [sys.executable, *arguments], tmp_path / "here", {"PYTHONSAFEPATH": "1"}
    assert command == ResumeCommand(*expected)
    assert resume_command(folder, trust=True).command[-1] == "--trust"


def test_trust_in_the_recorded_command_does_not_count(make_run):
    folder = make_run(state="interrupted", config={}, command=["medseg", "train", "unet2d", "--trust"])
    assert "--trust" not in resume_command(folder).command


def test_in_the_checkout_a_run_is_resumed_with_it(make_run, monkeypatch, tmp_path):
    monkeypatch.chdir(CHECKOUT)
    folder = make_run(state="died", config={}, working_directory=str(tmp_path / "gone"))
    command = resume_command(folder)
    assert (command.folder, command.environment) == (CHECKOUT, {})


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"state": "finished"}, "run 'run': it has finished. To train on, change a setting, for example max_epochs=N."),
        (
            {"state": "running", **this_process()},
            f"run 'run': it is running, as process {os.getpid()}. Stop it first: medseg runs stop run",
        ),
        (
            {"state": "running", "host": "gpu-7", "updated": "now"},
            "run 'run': it is running on gpu-7, which gave a sign of life 0 min ago. Stop it there; "
            "a machine that is silent for 10 min counts as gone.",
        ),
    ],
    ids=["finished", "running here", "running elsewhere"],  # the second message holds this process's id
)
def test_a_run_that_cannot_be_resumed_is_an_error(make_run, record, message):
    if record.get("updated") == "now":
        record = {**record, "updated": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    with pytest.raises(RunError) as error:
        resume_command(make_run(config={}, **record))
    assert str(error.value) == message


def test_a_run_without_a_config_cannot_be_resumed_from_its_folder(make_run):
    with pytest.raises(RunError, match="its folder holds no config to resume it with. Give the command again"):
        resume_command(make_run(state="failed"))


def test_a_finished_run_may_train_on_and_a_silent_machine_counts_as_gone(make_run):
    assert "max_epochs=9" in resume_command(make_run("a", state="finished", config={}), ["max_epochs=9"]).command
    silent = {"state": "running", "host": "gpu-7", "updated": "2026-01-01T00:00:00+0000"}
    assert resume_command(make_run("b", config={}, **silent)).command


def test_a_start_is_remembered_with_the_config_it_had(make_run, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDSEG_STATE_DIR", str(tmp_path / "state"))
    folder = make_run(config={"backup": "s3://bucket"})
    assert not was_started_here(folder)
    remember_start(folder)
    assert was_started_here(folder)
    moved = folder.rename(tmp_path / "moved")
    assert was_started_here(moved)
    if sys.platform != "win32":  # where a link needs a right
        (tmp_path / "elsewhere").mkdir()
        (moved / "torch").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        assert not was_started_here(moved)
        (moved / "torch").unlink()
    assert was_started_here(moved)
    (moved / "configs" / "train.json").write_text(json.dumps({"backup": "s3://other"}))
    assert not was_started_here(moved)
    assert not was_started_here(tmp_path / "nothing")


def test_where_nothing_can_be_remembered_no_run_was_started_here(make_run, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MEDSEG_STATE_DIR", str(tmp_path / "file"))
    folder = make_run(config={})
    remember_start(folder)
    assert not was_started_here(folder)


SLEEPER = """
import signal, sys, time
def stop(number, frame):
    time.sleep(0.3)
    sys.exit(75)
signal.signal(signal.SIGINT, stop); signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(60)
"""
PARENT = """
import sys
from pathlib import Path
from medseg.runs import resume
resume.resume_command = lambda *arguments: resume.ResumeCommand([sys.executable, "-c", sys.argv[1]], Path())
sys.exit(resume.resume_here("run"))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_the_parent_waits_until_a_stopped_run_has_saved(signal_):
    command = [sys.executable, "-c", PARENT, SLEEPER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout.readline() == b"ready\n"
        if signal_ == signal.SIGINT:
            os.killpg(parent.pid, signal_)  # as a terminal does for Ctrl-C
        else:
            parent.send_signal(signal_)
        assert parent.wait(20) == 75


def test_the_exit_code_is_that_of_the_run_and_signal_handlers_are_restored(monkeypatch, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    code = "import os; raise SystemExit(int(os.environ['CODE']))"
    command = ResumeCommand([sys.executable, "-c", code], tmp_path, {"CODE": "7"})
    monkeypatch.setattr(resume, "resume_command", lambda *arguments: command)
    assert resume_here("run") == 7
    assert signal.getsignal(signal.SIGINT) is before
