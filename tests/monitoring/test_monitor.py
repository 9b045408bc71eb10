import contextlib
import json
import os
import signal
import socket
import threading
import time

import pytest
from ignite.engine import Engine

from medseg.errors import ConfigError
from medseg.monitoring.control import is_uploading, switch_off
from medseg.monitoring.monitor import Monitor
from medseg.monitoring.settings import Settings, read_state
from medseg.runs.metrics_log import read_rows
from medseg.runs.record import read_record

pytestmark = pytest.mark.slow

KEY = "0123456789" * 4


@contextlib.contextmanager
def silent():
    """A server that accepts and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(20)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def refusing():
    """A server that answers every request with 401."""

    def answer(listener):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(20)
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def closed():
    """A port at which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


def outcome(process, seconds=90):
    said, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, said
    return said


def started_after(said):
    (line,) = [line for line in said.splitlines() if line.startswith("first step after")]
    return float(line.split()[-1])


def test_a_run_is_shown_from_its_start_and_logs_the_link(lab, tmp_path):
    folder = tmp_path / "runs" / "unet2d" / "r1"
    said = outcome(lab.train(folder, {"backend": "trackio"}, 60, 0.05))
    lab.wait_for(lambda: read_state(folder).get("done"))
    rows, ids, _ = lab.in_trackio(folder)
    assert [values["iteration"] for _, values in rows] == list(range(1, 61))
    assert ids == {Settings.load(folder).id}
    assert said.count("Live at http://127.0.0.1:") == 1  # once it is there; at the end the page goes down
    assert read_record(folder)["state"] == "finished"
    assert Settings.load(folder).name == folder.name


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (silent, "does not answer"),
        (refusing, "refuses the key"),
        pytest.param(closed, "cannot be reached", marks=pytest.mark.long),
    ],
)
def test_a_silent_or_refusing_server_does_not_hold_up_training(lab, tmp_path, monkeypatch, server, why):
    folder = tmp_path / "runs" / "unet2d" / "r1"
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with server() as address:
        began = time.monotonic()
        closing = {"preexec_fn": lambda: os.close(0)} if os.name != "nt" else {}
        settings = {"backend": "wandb", "base_url": address}
        said = outcome(lab.train(folder, settings, 150, 0.05, stdin=None, **closing))
        assert time.monotonic() - began < 60
    assert started_after(said) < 5
    assert "Monitoring is offline" in said
    assert why in said
    assert "medseg runs sync r1" in said
    lab.wait_for(lambda: read_state(folder).get("done"))
    assert len(lab.history(lab.in_wandb(folder))) == 150


def test_without_a_key_nothing_is_asked_at_the_terminal(lab, tmp_path):
    pty = pytest.importorskip("pty", reason="there are no pseudo terminals here")
    folder = tmp_path / "runs" / "unet2d" / "r1"
    ours, theirs = pty.openpty()
    process = lab.train(folder, {"backend": "wandb"}, 60, 0.05, stdin=theirs, stdout=theirs, stderr=theirs, text=False)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # the end of a terminal
        while part := os.read(ours, 65536):
            said += part
    os.close(ours)
    assert process.wait(60) == 0
    assert started_after(said.decode()) < 5
    assert b"there is no key" in said
    assert not [word for word in (b"Enter your choice", b"Paste an API key", b"?") if word in said]


def test_a_killed_and_resumed_trainer_is_one_run_at_the_tracker(lab, tmp_path):
    folder = tmp_path / "runs" / "unet2d" / "r1"
    process = lab.train(folder, {"backend": "wandb"}, 400, 0.02)
    lab.wait_for(lambda: read_state(folder).get("rows", 0) > 10)
    process.kill()
    process.communicate()
    lab.wait_for(lambda: read_state(folder).get("done"))
    first = Settings.load(folder).id
    outcome(lab.train(folder, {"backend": "wandb"}, 20, 0.02))
    lab.wait_for(lambda: read_state(folder).get("done"))
    records = lab.in_wandb(folder)
    assert [step for step, _ in lab.history(records)] == [number for number, _ in read_rows(folder)]
    assert {r["run"]["run_id"] for r in records if r["type"] == "run"} == {first}


def test_an_uploader_that_dies_is_restarted_while_training_continues(lab, tmp_path):
    folder = tmp_path / "runs" / "unet2d" / "r1"
    process = lab.train(folder, {"backend": "trackio", "dashboard": False}, 200, 0.05)
    pid = lab.wait_for(lambda: read_state(folder).get("rows", 0) > 5 and read_state(folder)["pid"])
    os.kill(pid, signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
    lab.wait_for(lambda: read_state(folder)["pid"] != pid)
    said = outcome(process)
    assert said.count("was restarted") == 1
    lab.wait_for(lambda: read_state(folder).get("done"))
    assert sorted(step for step, _ in lab.in_trackio(folder)[0]) == list(range(200))


def test_a_run_switched_off_stays_off_when_it_is_resumed(lab, tmp_path):
    folder, settings = tmp_path / "runs" / "unet2d" / "r1", {"backend": "trackio", "dashboard": False}
    process = lab.train(folder, settings, 120, 0.05)
    lab.wait_for(lambda: read_state(folder).get("rows", 0) > 5)
    assert switch_off(folder)
    printable = len(lab.in_trackio(folder)[0])
    assert "was restarted" not in outcome(process)
    assert not is_uploading(folder)
    outcome(lab.train(folder, settings, 5, 0.01))
    assert len(lab.in_trackio(folder)[0]) == printable < 120
    assert not is_uploading(folder)
    outcome(lab.train(folder, {"backend": "wandb"}, 5, 0.01))  # chosen anew
    lab.wait_for(lambda: read_state(folder).get("done"))
    assert len(lab.history(lab.in_wandb(folder))) == 130


def engine_with(folder, settings, step=lambda engine, batch: None):
    engine = Engine(step)
    Monitor(folder, settings).attach(engine)
    return engine


def test_unknown_settings_are_refused_before_anything_starts(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'trackio'"):
        Monitor(tmp_path, {"backend": "trakio"})
    assert list(tmp_path.glob("*")) == [tmp_path / "home"]


def test_off_starts_nothing_and_keeps_the_id(tmp_path):
    engine_with(tmp_path / "b" / "r1", {"backend": "off"}).run([1])
    first = Settings.load(tmp_path / "b" / "r1").id
    engine_with(tmp_path / "b" / "r1", {"backend": "off"}).run([1])
    assert Settings.load(tmp_path / "b" / "r1").id == first
    assert not (tmp_path / "b" / "r1" / "monitor" / "uploader.log").exists()


def test_other_ranks_do_nothing(tmp_path):
    engine = Engine(lambda engine, batch: None)
    engine.state.rank = 1
    Monitor(tmp_path / "r1", {"backend": "trackio"}).attach(engine)
    engine.run([1])
    assert not (tmp_path / "r1").exists()


def test_an_existing_record_is_left_alone(lab, tmp_path):
    folder = lab.make_run(tmp_path / "unet2d" / "r1", (), "running")
    before = (folder / "run.json").read_text()
    engine_with(folder, {"backend": "off"}).run([1])
    assert (folder / "run.json").read_text() == before


def test_an_error_of_the_training_is_raised(tmp_path):
    def step(engine, batch):
        raise ValueError("no such thing")

    with pytest.raises(ValueError, match="no such thing"):
        engine_with(tmp_path / "b" / "r1", {"backend": "off"}, step).run([1])
    assert read_record(tmp_path / "b" / "r1")["state"] == "failed"


def test_a_folder_that_cannot_be_written_ends_no_training(tmp_path, caplog):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "run.json").write_text(json.dumps({"state": "running"}))
    (tmp_path / "b" / "monitor").touch()
    engine = engine_with(tmp_path / "b", {"backend": "trackio"})
    assert engine.run([1]).iteration == 1
    assert "not shown live" in caplog.text
