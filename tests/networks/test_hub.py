import contextlib
import http.server
import socket
import threading
import time
from typing import ClassVar

import pytest

from medseg.errors import WeightsError
from medseg.networks import weights
from medseg.networks.weights import UnreachableError, weights_folder

NAME = "nvidia/mit-b0"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Use an empty cache, and a hub at an address of this machine that refuses connections."""
    client = pytest.importorskip("huggingface_hub.constants", reason="needs the extra segformer")
    monkeypatch.setattr(client, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(client, "HF_HUB_OFFLINE", False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        at(monkeypatch, client, free.getsockname()[1])
    return tmp_path / "cache"


def at(monkeypatch, client, port):
    address = f"http://127.0.0.1:{port}"
    monkeypatch.setattr(client, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(client, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def filled(folder, *files):
    folder.mkdir(parents=True, exist_ok=True)
    for name in files:
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin", "model-00001-of-00002.safetensors"])
def test_a_folder_is_preferred(tmp_path, monkeypatch, weights):
    monkeypatch.chdir(tmp_path)
    filled(tmp_path / NAME, "config.json", weights)
    assert weights_folder(NAME, "segformer").samefile(tmp_path / NAME)


def test_an_incomplete_folder_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"has no config\.json"):
        weights_folder(filled(tmp_path / "a", "model.safetensors"), "segformer")
    with pytest.raises(WeightsError, match="has no weights"):
        weights_folder(filled(tmp_path / "b", "config.json", "training_args.bin"), "segformer")


@pytest.mark.parametrize("name", ["/no/such/folder", "./b0", "b0", "a/b/c", "~/weights"])
def test_a_name_that_is_no_id_must_be_a_folder(name):
    with pytest.raises(WeightsError, match="is neither a folder") as caught:
        weights_folder(name, "segformer")
    assert not isinstance(caught.value, UnreachableError)


def test_the_cache_is_used_without_asking_the_hub(cache):
    model = cache / "models--nvidia--mit-b0"
    snapshot = filled(model / "snapshots" / "abc", "config.json", "pytorch_model.bin")
    filled(model / "refs")
    (model / "refs" / "main").write_text("abc")
    started = time.monotonic()
    assert weights_folder(NAME, "segformer").samefile(snapshot)
    assert time.monotonic() - started < 5


def test_the_error_without_internet_says_what_to_do(cache):
    with pytest.raises(UnreachableError, match=r"hf download nvidia/mit-b0 .*HF_HOME.*null.*allow_missing_pretrained"):
        weights_folder(NAME, "segformer")


def test_offline_no_connection_is_opened(cache, monkeypatch):
    client = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(client, "HF_HUB_OFFLINE", True)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        server.settimeout(0.2)
        at(monkeypatch, client, server.getsockname()[1])
        with pytest.raises(UnreachableError, match="offline"):
            weights_folder(NAME, "segformer")
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_hub_that_does_not_answer_times_out(cache, monkeypatch):
    client = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(weights, "_TIMEOUT", 0.5)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        at(monkeypatch, client, server.getsockname()[1])
        started = time.monotonic()
        with pytest.raises(UnreachableError, match="timed out"):
            weights_folder(NAME, "segformer")
        assert time.monotonic() - started < 20


class Hub(http.server.BaseHTTPRequestHandler):
    """Serve one model, whose weights are a .bin file, as the hub does."""

    files: ClassVar = {"config.json": b'{"model_type": "segformer"}', "pytorch_model.bin": b"weights"}
    asked: ClassVar[list[str]] = []

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_GET(self, body=True):
        self.asked.append(self.path)
        owner, model, _, _, file = self.path.strip("/").split("/")
        content = self.files.get(file)
        result = f"{owner}/{model}" == NAME and content is not None
        self.send_response(200 if result else 404)
        if not result:
            self.send_header("X-Error-Code", "EntryNotFound" if f"{owner}/{model}" == NAME else "RepoNotFound")
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("ETag", f'"{file}"')
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if result and body:
            self.wfile.write(content)


def test_models_are_downloaded_into_the_cache(cache, monkeypatch):
    client = pytest.importorskip("huggingface_hub.constants")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            at(monkeypatch, client, server.server_port)
            folder = weights_folder(NAME, "segformer")
            assert {file.name: file.read_bytes() for file in folder.iterdir()} == Hub.files
            asked = len(Hub.asked)
            assert weights_folder(NAME, "segformer") == folder
            assert len(Hub.asked) == asked
            with pytest.raises(WeightsError, match="no public model on the hub") as caught:
                weights_folder("nvidia/mit-b9", "segformer")
            assert not isinstance(caught.value, UnreachableError)
        finally:
            server.shutdown()
            thread.join()
