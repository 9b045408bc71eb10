"""`medseg runs logs|stop|resume|watch|sync|monitor|dashboard`, with a small program in place of a training."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
import types

import pytest

from medseg.atomic import write_json
from medseg.runs import detach as detaching
from medseg.runs import resume as resuming
from medseg.runs import watch as watching
from medseg.runs.detach import detach
from medseg.runs.record import read_record, this_process

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@pytest.fixture
def make(runs):
    def one(name="run", **record):
        folder = runs / "unet2d" / name
        write_json(folder / "run.json", {"bundle": "unet2d", **record})
        return folder

    return one


@pytest.fixture
def program(runs, repository):
    """`program(batches, ...)`: the command that stands for a training, of the run `unet2d/run`."""

    def command(batches, *options):
        script = repository / "tests" / "runs" / "trainer.py"
        return [sys.executable, str(script), str(runs / "unet2d" / "run"), str(batches), *map(str, options)]

    return command


@pytest.fixture
def going(program, runs):
    """A run that goes on for minutes if nobody stops it."""
    with subprocess.Popen(program(10_000), stdout=subprocess.DEVNULL) as process:
        while not (runs / "unet2d" / "run" / "metrics.jsonl").is_file():
            time.sleep(0.02)
        yield runs / "unet2d" / "run"
        process.kill()


def test_logs_prints_the_end_of_the_log(medseg, make):
    folder = make(state="finished")
    (folder / "train.log").write_text("".join(f"line {number}\n" for number in range(100)))
    assert medseg("runs", "logs").out.split("\n")[0] == "line 80"
    assert medseg("runs", "logs", "-n", 2, "run").out == "line 98\nline 99\n"
    assert medseg("runs", "logs", "-n", 0).out.count("\n") == 100
    done = medseg("runs", "logs", "-f", "-n", 1)
    assert (done.out, done.err) == ("line 99\n", "run: finished\n")
    done = medseg("runs", "logs", "--console")
    assert done.code == 1
    assert "console.log: the file is missing. Only a detached run has one" in done.err


@posix
def test_stop_without_a_name_stops_the_running_run(medseg, going):
    done = medseg("runs", "stop")
    assert done.code == 0
    assert "Saved and stopped in epoch 1" in done.out
    assert "medseg runs resume run" in done.out
    assert read_record(going)["state"] == "interrupted"
    done = medseg("runs", "stop")
    assert (done.code, "no run is running here" in done.err) == (1, True)


@posix
def test_a_run_that_does_not_end_in_time_is_exit_code_1(medseg, program, runs):
    with subprocess.Popen(program(10_000, "--slow-to-save", 1.5), stdout=subprocess.DEVNULL) as process:
        while not (runs / "unet2d" / "run" / "metrics.jsonl").is_file():
            time.sleep(0.02)
        done = medseg("runs", "stop", "run", "--timeout", 0.2)
        assert process.wait() == 75
    assert done.code == 1
    assert "--now kills it" in done.out


def test_resume_in_this_terminal_ends_with_the_code_of_the_run(medseg, make, monkeypatch):
    folder = make(state="interrupted")
    given = []
    monkeypatch.setattr(resuming, "resume_here", lambda *one: given.append(one) or 75)
    make("later", state="running", **this_process())
    done = medseg("runs", "resume")
    assert (done.code, done.err) == (75, "Resuming run\n")
    assert medseg("runs", "resume", "lr=0.1").code == 75
    assert medseg("runs", "resume", "run", "lr=0.1", "max_epochs=9").code == 75
    assert medseg("runs", "resume", "run", "--trust").code == 75
    said = [(), ("lr=0.1",), ("lr=0.1", "max_epochs=9")]
    assert given == [*((folder, pairs, False) for pairs in said), (folder, (), True)]
    assert medseg("runs", "resume", "run", "lr").code == 2
    assert len(given) == 4


def test_a_detached_resume_prints_the_folder_and_commands(medseg, make, program, runs, monkeypatch):
    make(state="died")
    monkeypatch.setattr(resuming, "resume_command", lambda *given: resuming.ResumeCommand(program(3), runs))
    done = medseg("runs", "resume", "--detach")
    assert done.code == 0
    assert f"Run: {runs / 'unet2d' / 'run'}\n  medseg runs logs -f run\n" in done.out


def test_a_detached_process_that_begins_no_run_is_left_alone(medseg, make, runs, monkeypatch):
    make(state="died")
    program = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(resuming, "resume_command", lambda *given: resuming.ResumeCommand(program, runs))
    monkeypatch.setitem(detaching.wait_for_run.__kwdefaults__, "patience", 0.3)
    done = medseg("runs", "resume", "--detach")
    (log,) = (runs / ".detached").iterdir()
    os.kill(int(done.out.split()[1]), signal.SIGTERM)
    assert done.code == 0
    assert f"It has begun no run after 10 min and runs on. What it prints: {log}" in done.out


def test_a_run_that_cannot_be_resumed_is_one_error(medseg, make):
    make(state="running", **this_process())
    assert "it is running, as process" in medseg("runs", "resume", "run").err
    assert "every run here is running: run" in medseg("runs", "resume").err
    make("other", state="finished")
    done = medseg("runs", "resume", "other")
    assert (done.code, "it has finished. To train on, change a setting" in done.err) == (1, True)
    assert "run 'other': it has finished" in medseg("runs", "resume").err


def test_watch_restarts_a_dead_run_and_ends_with_it(medseg, make, program, runs, monkeypatch):
    make(state="running", host=platform.node(), pid=2**22 - 1, pid_started=0.0)
    processes = []

    def restart(folder):
        processes.append(detach(program(3), runs))
        return processes[-1]

    monkeypatch.setattr(watching.Watch.__init__, "__defaults__", (None, restart))
    watch = watching.watch
    monkeypatch.setattr(watching, "watch", lambda folders, terms: watch(folders, terms, every=0.02))
    out = runs / "told"
    done = medseg("runs", "watch", "--command", f'echo "$MEDSEG_STATE" >> "{out}"')
    for one in processes:
        one.process.wait()
    assert done.code == 0
    assert out.read_text().split() == ["died", "finished"]
    assert json.loads((runs / "unet2d" / "run" / "watch.json").read_text())["restarts"] == 1


def test_a_detached_watch_prints_into_the_folder_of_the_run(medseg, make, runs):
    folder = make(state="finished")
    done = medseg("runs", "watch", "--detach", "--webhook", "http://127.0.0.1:9/secret")
    assert done.code == 0, done.err
    assert f"watches run and prints to {folder / 'watch.log'}" in done.out
    until = time.monotonic() + 30
    while "was not reached" not in (folder / "watch.log").read_text() and time.monotonic() < until:
        time.sleep(0.05)
    log = (folder / "watch.log").read_text()
    assert "run: finished. It has finished." in log
    assert "secret" not in log


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--pauses", "1,x"], 2, "must be seconds with commas between them"),
        (["--restarts", "-1"], 2, "must not be negative"),
        (["--webhook", "ftp://x"], 1, "the address must begin with http:// or https://"),
    ],
)
def test_wrong_options_of_watch_are_one_error(medseg, make, arguments, code, message):
    make(state="finished")
    done = medseg("runs", "watch", *arguments)
    assert done.code == code
    assert message in done.err


@pytest.fixture
def doors(monkeypatch):
    """What the commands call, in place of the trackers."""
    calls = []

    def door(name, result):
        def called(*given):
            calls.append((name, *given))
            return result

        return called

    synced = types.SimpleNamespace(backend="wandb", mode="offline", rows=9, sent=3, images=1, where="/x", id="i")
    for module, functions in {
        "control": {
            "sync": door("sync", synced),
            "switch_on": door("on", types.SimpleNamespace(backend="trackio")),
            "switch_off": door("off", False),
        },
        "dashboard": {"serve": lambda root, port, ready: calls.append(("serve", root, port)) or ready("http://x")},
    }.items():
        made = types.ModuleType(f"medseg.monitoring.{module}")
        made.__dict__.update(functions)
        monkeypatch.setitem(sys.modules, made.__name__, made)
    return calls


def test_sync_monitor_and_dashboard_go_to_the_trackers(medseg, make, runs, doors):
    folder = make(state="running", **this_process())
    said = medseg("runs", "sync", "--backend", "wandb", "--offline").out
    assert "run with wandb (offline): 3 of 9 rows were missing, 1 images were sent" in said
    later = make("run-later", state="finished")
    medseg("runs", "sync")
    assert "shown with trackio" in medseg("runs", "monitor", "run", "on").out
    assert "the remaining rows are still being sent" in medseg("runs", "monitor", "run", "off").out
    assert medseg("runs", "monitor", "run", "off", "--backend", "wandb").code == 2
    assert "http://x" in medseg("runs", "dashboard", "--port", 7870).out
    assert doors == [
        ("sync", folder, "wandb", True),
        ("sync", later, None, False),
        ("on", folder, None),
        ("off", folder),
        ("serve", runs, 7870),
    ]
