"""Which command goes on with a run."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medseg.errors import RunError, UntrustedError
from medseg.runs import resume as resuming
from medseg.runs.resume import plan, resume_here
from medseg.runs.record import this_process
from medseg.seals import seal

TRAIN = ["/venv/lib/medseg/__main__.py", "train", "unet2d"]
CONFIG = str(Path(__file__).parents[2] / "bundles" / "unet2d" / "configs" / "train.json")
MONAI = ["/venv/lib/python3.11/site-packages/monai/bundle/__main__.py", "run"]


@pytest.fixture
def stopped(make_run, tmp_path):
    def make(command, **record):
        return make_run(state="interrupted", command=command, working_directory=str(tmp_path), **record)

    return make


def arguments(found):
    assert found.command[0] == sys.executable
    return found.command[1:]


def test_the_recorded_command_is_given_again_and_told_which_run_it_is(stopped, tmp_path):
    folder = stopped([*TRAIN, "--with", "demo", "--data=/data/set", "lr=0.1", "max_epochs=5"])
    found = plan(folder)
    options = ["--with", "demo", "--data", "/data/set"]
    assert arguments(found) == [
        *["-m", "medseg", "train", "unet2d"],
        *options,
        *["lr=0.1", "max_epochs=5", f"resume={folder}"],
    ]
    assert found.folder == tmp_path
    assert found.environment == {"MEDSEG_RUNS": str(tmp_path / "runs"), "PYTHONSAFEPATH": "1"}


def test_what_is_changed_takes_the_place_of_what_was_said_and_fresh_is_not_said_again(stopped, tmp_path):
    said = ["--traceback", *TRAIN[1:], "--fresh", "--detach", "--data", "x", "--backup", "y", "lr=0.1", "a::b=1"]
    folder = stopped([*TRAIN[:1], *said, "resume=false", "output_dir=/gone", "--with", "demo"])
    found = arguments(plan(folder, ["lr=0.2", "dataset_dir=z", "backup=w", "a#b=2"]))
    changes = ["lr=0.2", "dataset_dir=z", "backup=w", "a#b=2", f"resume={folder}"]
    assert found[2:] == ["train", "unet2d", "--with", "demo", f"output_dir={tmp_path / 'runs'}", *changes]


def test_that_it_was_trusted_once_does_not_count(stopped):
    folder = stopped([*TRAIN, "--trust", "lr=0.1"])
    assert "--trust" not in arguments(plan(folder))
    assert arguments(plan(folder, trust=True))[-1] == "--trust"


def test_a_record_that_would_run_code_is_refused(stopped):
    folder = stopped([*TRAIN, "lr=$__import__('os').getpid()"])
    with pytest.raises(UntrustedError, match=r"command-unsafe in run\.json, command, lr"):
        plan(folder)
    assert plan(folder, trust=True).command


@pytest.mark.parametrize(
    "words",
    [
        ["--loss", "{_target_: 'os.system', command: 'touch x'}"],  # a dictionary to Fire, text to others
        ["--lr", "'\\x24open(1)'"],
        ["--lr", "$torch.seed"],
        ["--loss#_target_", "os.system"],
        ["--args_file", CONFIG],
        ["--workflow_name", "helper.Evil"],
        ["--config-file", CONFIG],
        ["--c", CONFIG],
        ["--name=--args_file"],
        ["--name=-"],
        ["--tracking", "mlflow"],
        ["--config_file", CONFIG.replace(".json", "\\x2ejson")],
        ["--config_file", f"{CONFIG},{CONFIG}"],
        ["--config_file", CONFIG.replace("train.json", "logging.conf")],
        ["-c", CONFIG],
        ["a", "b", "c"],
    ],
)
def test_words_that_monai_could_read_in_another_way_are_refused(stopped, words):
    folder = stopped([*MONAI, "training", "--config_file", CONFIG, *words])
    with pytest.raises(UntrustedError):
        plan(folder)
    assert plan(folder, trust=True).command


BACKUP = [*TRAIN, "--backup", "s3://somebody/bucket"]
READER = "deterministic#0#reader"


@pytest.mark.parametrize(
    ("command", "typed"),
    [
        ([*TRAIN, f"{READER}=os.system"], f"{READER}=NibabelReader"),
        ([*MONAI, "training", "--config_file", CONFIG, f"--{READER}", "os.system"], f"{READER}=NibabelReader"),
        (BACKUP, "backup=null"),
    ],
)
def test_what_is_overridden_counts_with_the_config_that_it_goes_into(stopped, command, typed):
    folder = stopped(command)
    with pytest.raises(UntrustedError, match=r"argument-unsafe|sends-elsewhere"):
        plan(folder)
    assert plan(folder, [typed]).command


def test_the_plain_monai_command_is_given_again_as_such(stopped, tmp_path):
    said = [
        "training",
        "--config_file",
        CONFIG,
        "--lr=0.1",
        "--amp",
        "--resume",
        "False",
        "--output_dir",
        "/gone",
    ]
    folder = stopped([*MONAI, *said])
    found = arguments(plan(folder, ["lr=0.2", "amp=false", "name=x"]))
    assert found == [
        *["-m", "monai.bundle", "run", "training", "--config_file", CONFIG],
        *["--output_dir", str(tmp_path / "runs"), "--lr", "0.2", "--amp", "False"],
        *["--name", "x", "--resume", str(folder)],
    ]


@pytest.mark.parametrize(
    ("command", "record"),
    [
        (["script.py", "--lr", "1"], {}),
        (["/bin/medseg", "demo"], {}),
        (["/bin/medseg", "train", "bundle_that_is_gone"], {}),
        (["/bin/medseg", "train", "unet2d"], {"working_directory": "/nowhere/at/all"}),
        (None, {}),
    ],
)
def test_where_the_command_cannot_be_given_again_the_runs_folder_is_the_bundle(make_run, tmp_path, command, record):
    folder = make_run(**{"state": "died", "command": command, "working_directory": str(tmp_path), **record})
    assert arguments(plan(folder, ["lr=1"])) == ["-m", "medseg", "train", str(folder), "lr=1", f"resume={folder}"]


def test_a_run_that_was_moved_out_of_its_place_makes_no_runs_folder_of_what_lies_above(stopped, tmp_path):
    folder = stopped(TRAIN)
    moved = folder.rename(tmp_path / "copy")
    found = plan(moved)
    assert "MEDSEG_RUNS" not in found.environment
    assert arguments(found)[-1] == f"resume={moved}"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"state": "finished"}, "must be unfinished to be gone on with (a finished one. To train on"),
        ({"state": "running", **this_process()}, "must not be running (process .* medseg runs stop run"),
        (
            {"state": "running", "host": "gpu-7", "updated": time.strftime("%Y-%m-%dT%H:%M:%S%z")},
            r"a sign of life from gpu-7 \d min ago. Stop it there",
        ),
    ],
)
def test_what_cannot_be_gone_on_with_is_one_error(make_run, record, message):
    with pytest.raises(RunError, match=message):
        plan(make_run(**record))


def test_a_finished_run_may_train_on_and_a_machine_that_fell_silent_is_gone(make_run):
    assert "max_epochs=9" in plan(make_run("a", state="finished"), ["max_epochs=9"]).command
    assert plan(make_run("b", state="running", host="gpu-7", updated="2026-01-01T00:00:00+0000")).command


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
from medseg.runs import resume as resuming
resuming.plan = lambda *given: resuming.Plan([sys.executable, "-c", sys.argv[1]], Path(), {})
sys.exit(resuming.resume_here("run"))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_here_the_parent_waits_until_a_stopped_run_has_saved(signal_):
    command = [sys.executable, "-c", PARENT, SLEEPER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as parent:
        assert parent.stdout.readline() == b"ready\n"
        if signal_ == signal.SIGINT:
            os.killpg(parent.pid, signal_)  # as a terminal does for Ctrl-C
        else:
            parent.send_signal(signal_)
        assert parent.wait(20) == 75


def test_the_exit_code_is_that_of_the_run_and_handlers_are_put_back(monkeypatch, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    code = "import os; raise SystemExit(int(os.environ['CODE']))"
    work = resuming.Plan([sys.executable, "-c", code], tmp_path, {"CODE": "7"})
    monkeypatch.setattr(resuming, "plan", lambda *given: work)
    assert resume_here("run") == 7
    assert signal.getsignal(signal.SIGINT) is before


def test_what_was_typed_here_needs_no_trust_and_what_was_changed_does(stopped, tmp_path):
    said = {"command": BACKUP, "working_directory": str(tmp_path), "bundle": "unet2d"}
    folder = stopped(BACKUP, bundle="unet2d", seal=seal(said))
    assert "--backup" in arguments(plan(folder))
    record = json.loads((folder / "run.json").read_text())
    record["command"][-1] = "s3://somebody/else"
    (folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(UntrustedError, match="sends-elsewhere"):
        plan(folder)
