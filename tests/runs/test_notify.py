"""Commands and webhooks that are told how a run stands: real ones, broken ones, silent ones."""

import json
import logging
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from medseg.errors import ConfigError
from medseg.runs import notify
from medseg.runs.notify import Notifier, message, without_paths


@pytest.fixture
def server():
    """A web address that keeps what it gets and answers with `code`."""
    got = []

    class Keep(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.headers["Content-Type"], json.loads(body)))
            self.send_response(int(self.path.strip("/") or 200))
            self.end_headers()

        def log_message(self, *arguments):
            pass

    with HTTPServer(("127.0.0.1", 0), Keep) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}/", got
        web.shutdown()
        thread.join()


BEST = {"kind": "validation", "epoch": 3, "iteration": 9, "mean_dice": 0.8125, "best_dice": 0.8125, "best_epoch": 3}


def test_a_webhook_gets_what_slack_shows_and_no_path(make_run, server):
    address, got = server
    error = "DataError: /data/ct.nii.gz of Max M.: must be whole"
    folder = make_run("demo", [BEST], state="failed", max_epochs=10, reason="DataError", error=error)
    Notifier(webhook=address).send(folder, "failed", error)
    ((kind, content),) = got
    assert kind == "application/json"
    assert content == {
        "text": "demo: failed in epoch 3 of 10, best Dice 0.812. DataError: see its log.",
        "run": "demo",
        "state": "failed",
        "reason": "DataError: see its log.",
        "epoch": 3,
        "max_epochs": 10,
        "best_dice": 0.8125,
    }


def test_a_message_never_has_the_text_of_an_error(make_run):
    error = "OperationalError: no route to db of Max M."
    folder = make_run("demo", state="failed", reason="OperationalError", error=error)
    told = message(folder, "given_up", f"It was started 2 times without coming further. {error}")
    assert told["reason"] == "It was started 2 times without coming further. OperationalError: see its log."
    folder = make_run("other", state="failed", error=error)
    assert message(folder, "failed", error)["reason"] == "An error: see its log."


@pytest.mark.parametrize(
    "text",
    [
        "C:\\data\\ct.nii.gz broke",
        "see '/a/b', or x/y",
        "\\\\server\\share\\max broke",
        "s3://max:secret@store/set broke",
        "no such file: '/data/max secret set/ct.nii.gz'",
        'it\'s at "\\\\server\\max secret\\ct.nii.gz"',
    ],
)
def test_no_path_and_no_url_is_left(text):
    assert "..." in without_paths(text)
    assert not {"/", "\\"} & set(without_paths(text))
    assert "max" not in without_paths(text)
    assert "secret" not in without_paths(text)


def test_a_webhook_that_fails_or_never_answers_is_a_warning_without_its_address(make_run, server, caplog, monkeypatch):
    folder = make_run(state="finished")
    Notifier(webhook=f"{server[0]}500").send(folder, "finished", "")
    monkeypatch.setattr(notify, "WEBHOOK_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        Notifier(webhook=f"http://127.0.0.1:{silent.getsockname()[1]}/secret").send(folder, "finished", "")
        assert time.monotonic() - began < 5
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == 2
    assert all(text.startswith("The webhook was not reached") for text in said)
    assert "secret" not in caplog.text


def test_a_broken_answer_or_address_is_a_warning(make_run, caplog):
    folder = make_run(state="finished")
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer():
            connection, _ = other.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"220 mail ready\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        Notifier(webhook=f"http://127.0.0.1:{other.getsockname()[1]}/").send(folder, "finished", "")
        thread.join()
    Notifier(webhook="http://127.0.0.1/the secret").send(folder, "finished", "")
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"The webhook was not reached: {name}" for name in ("BadStatusLine", "InvalidURL")]


@pytest.mark.parametrize("address", ["file:///etc/passwd", "example.org/hook", "https:///x"])
def test_a_webhook_that_is_no_web_address_is_refused(address):
    with pytest.raises(ConfigError, match="webhook: the address must begin with http:// or https://"):
        Notifier(webhook=address)


def test_a_command_gets_run_state_and_reason(make_run, tmp_path):
    folder, out = make_run(), tmp_path / "out.json"
    code = f"import os, json; json.dump(dict(os.environ), open({str(out)!r}, 'w'))"
    Notifier(command=f'"{sys.executable}" -c "{code}"').send(folder, "died", "it's gone; $HOME")
    said = json.loads(out.read_text())
    assert [said[f"MEDSEG_{key}"] for key in ("RUN", "STATE", "REASON")] == [str(folder), "died", "it's gone; $HOME"]


def test_a_command_that_fails_or_hangs_is_a_warning(make_run, caplog, monkeypatch):
    folder = make_run()
    Notifier(command="exit 3").send(folder, "died", "")
    monkeypatch.setattr(notify, "COMMAND_SECONDS", 0.2)
    Notifier(command=f'"{sys.executable}" -c "import time; time.sleep(5)"').send(folder, "died", "")
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "The command ended with exit code 3"
    assert said[1].startswith("The command was not run to its end")


def test_a_run_without_rows_has_a_message_too(make_run):
    assert message(make_run("new"), "given_up", "")["text"] == "new: given up."
