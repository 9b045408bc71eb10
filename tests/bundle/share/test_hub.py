"""A hub of this machine: what is pushed is what is fetched, and what is missing is one clear line."""

import base64
import contextlib
import http.server
import json
import socket
import sys
import threading
import time

import pytest

from medseg.bundle.share import push, transfer
from medseg.bundle.share.archive import write_archive
from medseg.bundle.share.transfer import fetch, sum_line
from medseg.bundle.verify.manifest import MANIFEST, make_manifest
from medseg.errors import ConfigError, DataError, MissingExtraError, OutputError

pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("hf://o/m", ("o/m", None, None)),
        ("hf://o/m/", ("o/m", None, None)),
        ("hf://o/m-1.0@main", ("o/m-1.0", "main", None)),
        ("hf://o/m/a b.zip", ("o/m", None, "a b.zip")),
        ("hf://o/m@refs%2Fpr%2F1/x.zip", ("o/m", "refs%2Fpr%2F1", "x.zip")),
    ],
)
def test_an_address_on_the_hub_is_split(url, address, server):
    assert transfer._require_hub(url).group("repo", "revision", "file") == address


@pytest.mark.parametrize("url", ["hf://o", "hf://o/m/a.txt", "hf:/o/m", "hf://", "hf://o/m@/x"])
def test_an_invalid_hub_address_is_refused(url):
    with pytest.raises(ConfigError, match="an address on the hub is hf://owner/model"):
        transfer._require_hub(url)


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as is asked for: repositories are made, take commits, and are listed and read."""

    def log_message(self, *_):
        pass

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        repositories, path = self.server.repositories, self.path.partition("?")[0]
        self.server.requests.append((self.command, path, self.headers.get("Authorization")))
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            request = json.loads(body)
            name = f"{request['organization']}/{request['name']}"
            repositories.setdefault(name, {})
            self.server.visibility[name] = request.get("visibility")
            return self.say({"url": f"{self.server.address}/{name}"})
        if path == "/api/validate-yaml":
            return self.say({"errors": [], "warnings": []})
        name = "/".join(parts[2:4]) if parts[:2] == ["api", "models"] else "/".join(parts[:2])
        if name not in repositories:
            return self.say({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        files = repositories[name]
        if "preupload" in parts:
            uploads = json.loads(body)["files"]
            return self.say(
                {
                    "files": [
                        {"path": upload["path"], "uploadMode": "regular", "shouldIgnore": False} for upload in uploads
                    ]
                }
            )
        if "commit" in parts:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            return self.say({"commitUrl": f"{self.server.address}/{name}/commit/{'a' * 40}", "commitOid": "a" * 40})
        if len(parts) == 4 or "revision" in parts:
            return self.say({"id": name, "sha": "a" * 40, "siblings": [], "tags": [], "private": True})
        if "tree" in parts:
            return self.say([{"type": "file", "path": file, "size": len(files[file]), "oid": "a"} for file in files])
        content = files.get(parts[-1])
        if content is None:
            return self.say({}, 404, {"X-Error-Code": "EntryNotFound"})
        return self.send(content, 200, {"X-Repo-Commit": "a" * 40, "ETag": f'"{parts[-1]}"'})

    do_GET = do_HEAD = do_POST = answer

    def say(self, content, code=200, headers=()):
        self.send(json.dumps(content).encode(), code, {"Content-Type": "application/json", **dict(headers)})

    def send(self, content, code, headers):
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def server(monkeypatch):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as serving:
        serving.repositories, serving.visibility, serving.requests = {}, {}, []
        serving.address = f"http://127.0.0.1:{serving.server_port}"
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        at(monkeypatch, serving.address)
        yield serving
        serving.shutdown()
        thread.join()


def at(monkeypatch, address):
    from huggingface_hub import constants, hf_api

    for module in (constants, hf_api):
        if hasattr(module, "ENDPOINT"):
            monkeypatch.setattr(module, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setenv("HF_TOKEN", "hf_made_up")


@pytest.fixture
def packed_file(tmp_path):
    """The smallest packed bundle."""
    folder = tmp_path / "content"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "model_card.md").write_text("---\ntags:\n- monai\n---\n\nThe card\n")
    (folder / MANIFEST).write_text(json.dumps(make_manifest(folder, {"bundle": "it"})))
    return write_archive(folder, tmp_path / "a.zip", "it")


def test_a_pushed_bundle_is_fetched_unchanged(server, packed_file, tmp_path):
    location = push(packed_file, "hf://hospital/liver")
    assert location == "hf://hospital/liver/a.zip"
    assert server.visibility == {"hospital/liver": "private"}
    files = server.repositories["hospital/liver"]
    assert set(files) == {"a.zip", "a.zip.sha256", "README.md"}
    assert files["README.md"].startswith(b"---\ntags:\n- monai\n---\n\nThe card\n")
    assert b"medseg bundle install" in files["README.md"]
    commits = [path for method, path, _ in server.requests if method == "POST" and "/commit/" in path]
    assert commits == ["/api/models/hospital/liver/commit/main"]
    for url in ("hf://hospital/liver", location):
        path = fetch(url, tmp_path / "there")
        assert path.read_bytes() == packed_file.read_bytes()
        assert path.with_name("a.zip.sha256").read_text() == sum_line(packed_file)
    assert ("POST", "/api/models/hospital/liver/commit/main", "Bearer hf_made_up") in server.requests
    files["a.zip.sha256"] = b"0" * 64 + b"  a.zip\n"
    with pytest.raises(DataError, match="its SHA-256 must be 0000"):
        fetch(location, tmp_path / "other")


def test_no_or_several_zips_and_unknown_repositories_are_errors(server, tmp_path):
    server.repositories["o/m"] = {"README.md": b"x"}
    with pytest.raises(DataError, match=r"^hf://o/m: there is no zip here\."):
        fetch("hf://o/m", tmp_path)
    server.repositories["o/m"].update({"a.zip": b"a", "b.zip": b"b"})
    with pytest.raises(DataError, match=r"more than one zip here \(a\.zip, b\.zip\)\. Give the address of one"):
        fetch("hf://o/m", tmp_path)
    path = fetch("hf://o/m/b.zip", tmp_path)
    assert path.read_bytes() == b"b"
    assert not path.with_name("b.zip.sha256").exists()
    with pytest.raises(OutputError, match=r"^hf://o/other: the place cannot be reached .*HF_TOKEN"):
        fetch("hf://o/other", tmp_path)


def test_without_a_network_it_is_an_error_at_once(monkeypatch, packed_file, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        at(monkeypatch, f"http://127.0.0.1:{free.getsockname()[1]}")
    started = time.monotonic()
    with pytest.raises(
        OutputError, match=r"hf://o/m: the place cannot be reached or written \(\w*Connect.*the network\."
    ):
        push(packed_file, "hf://o/m")
    with pytest.raises(OutputError, match="cannot be reached"):
        fetch("hf://o/m", tmp_path)
    assert time.monotonic() - started < 10


def test_a_hub_that_never_answers_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(transfer, "SECONDS", 0.5)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as silent:
        at(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(OutputError, match=r"cannot be reached .*no answer in 0\.5 s"):
            fetch("hf://o/m", tmp_path)


def test_offline_nothing_is_asked(server, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OutputError, match="HF_HUB_OFFLINE"):
        fetch("hf://o/m", tmp_path)
    assert server.requests == []


def test_without_huggingface_hub_one_line_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'medseg\[share\]'"):
        fetch("hf://o/m", tmp_path)
