import contextlib
import http.server
import json
import socket
import threading
import time

import pytest

from medseg.monitoring.backends import wandb_run as credentials

KEY = "k" * 40


@contextlib.contextmanager
def answering(status, content):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@contextlib.contextmanager
def silent():
    """A server that accepts and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_the_configured_server_goes_first(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_BASE_URL")
    assert credentials.server_address() == "https://api.wandb.ai"
    (tmp_path / "wandb").mkdir()
    (tmp_path / "wandb" / "settings").write_text("[default]\nbase_url = https://stored.org/\n")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb"))
    assert credentials.server_address() == "https://stored.org"
    monkeypatch.setenv("WANDB_BASE_URL", "https://environment.org")
    assert credentials.server_address() == "https://environment.org"
    assert credentials.server_address("https://given.org") == "https://given.org"


def test_the_key_is_found_where_wandb_login_put_it(monkeypatch, tmp_path):
    assert credentials.api_key("https://api.wandb.ai") is None
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai\n login user\n password {KEY}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert credentials.api_key("https://api.wandb.ai") == KEY
    assert credentials.api_key("https://other.org") is None
    monkeypatch.setenv("WANDB_API_KEY", "e" * 40)
    assert credentials.api_key("https://other.org") == "e" * 40


def test_a_server_that_takes_the_key_is_no_problem():
    with answering(200, {"data": {"viewer": {"id": "1"}}}) as address:
        assert credentials.connection_problem(address, KEY) is None


@pytest.mark.parametrize(
    ("status", "content", "said"),
    [
        (401, {}, "refuses the key"),
        (403, {}, "refuses the key"),
        (500, {}, "error 500"),
        (200, {"data": {"viewer": None}}, "does not know the key"),
    ],
)
def test_a_server_that_does_not_take_the_key_is_a_problem(status, content, said):
    with answering(status, content) as address:
        assert said in str(credentials.connection_problem(address, KEY))


def test_a_missing_key_or_server_is_a_problem():
    assert "no key" in str(credentials.connection_problem("http://127.0.0.1:9", None))
    assert "cannot be reached" in str(credentials.connection_problem("http://127.0.0.1:9", KEY))


def test_a_silent_server_is_waited_for_within_bounds():
    with silent() as address:
        began = time.monotonic()
        assert "does not answer" in str(credentials.connection_problem(address, KEY, 0.5))
        assert time.monotonic() - began < 3
