"""From and to any place: the bytes that were sent, or one clear error."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time
import zipfile

import fsspec
import pytest

from medseg.bundle.share import install_bundle, pull, push, transfer
from medseg.bundle.share.transfer import fetch, name_in, sum_line
from medseg.errors import ConfigError, DataError, OutputError

pytestmark = pytest.mark.slow

CONTENT = b"a packed bundle" * 100
SUM = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def zip_file(tmp_path):
    path = tmp_path / "place" / "a b.zip"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


class Files(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        content = self.server.files.get(self.path.partition("?")[0])
        if isinstance(content, str):
            self.wfile.write(content.encode())
            return
        if isinstance(content, int):
            self.send_error(content)
            return
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"") + self.server.lie))
        self.end_headers()
        self.wfile.write(content or b"")


@pytest.fixture
def web():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files) as serving:
        serving.files, serving.lie = {"/x/a%20b.zip": CONTENT}, 0
        serving.url = f"http://127.0.0.1:{serving.server_port}/x/a%20b.zip"
        thread = threading.Thread(target=serving.serve_forever)
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


def test_a_local_file_stays_and_a_folder_stands_for_its_single_zip(zip_file, tmp_path):
    assert fetch(zip_file, tmp_path / "out") == zip_file
    assert fetch(str(zip_file.parent), tmp_path / "out") == zip_file
    (zip_file.parent / "b.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"there is more than one zip here \(a b\.zip, b\.zip\)"):
        fetch(zip_file.parent, tmp_path / "out")
    with pytest.raises(DataError, match="the file does not exist"):
        fetch(tmp_path / "missing.zip", tmp_path / "out")
    (tmp_path / "bundle" / "configs").mkdir(parents=True)
    (tmp_path / "bundle" / "configs" / "metadata.json").write_text("{}")
    with pytest.raises(DataError, match=r"this is a folder and not a packed bundle\. Pack it with medseg bundle pack"):
        fetch(tmp_path / "bundle", tmp_path / "out")


def test_fetch_from_the_web(web, tmp_path):
    path = fetch(f"{web.url}?download=1", tmp_path / "out")
    assert (path.name, path.read_bytes()) == ("a b.zip", CONTENT)
    web.files["/x/a%20b.zip.sha256"] = f"{SUM}  a b.zip\n".encode()
    assert fetch(web.url, tmp_path / "two", SUM).read_bytes() == CONTENT
    with pytest.raises(OutputError, match="HTTPError: Not Found"):
        fetch(web.url.replace("/x/", "/y/"), tmp_path / "out")


@pytest.mark.parametrize(
    "answer", ["nonsense\r\n\r\n", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nab"]
)
def test_a_server_without_http_is_one_error(web, tmp_path, answer):
    web.files["/x/a%20b.zip"] = answer
    with pytest.raises((OutputError, DataError)):
        fetch(web.url, tmp_path / "out", SUM)


def test_invalid_urls_are_one_error(web, tmp_path):
    for url in (web.url + "/a b", "http://127.0.0.1:no/a.zip"):
        with pytest.raises(OutputError, match="the address cannot be reached"):
            fetch(url, tmp_path / "out")


def test_a_long_name_is_cut(web, tmp_path):
    web.files["/x/" + "a" * 300 + ".zip"] = CONTENT
    path = fetch(web.url.replace("a%20b", "a" * 300), tmp_path / "out")
    assert path.read_bytes() == CONTENT
    assert path.name.endswith("aaa.zip")


@pytest.mark.parametrize("answer", [404, 403, 410, b"\n<!DOCTYPE html><p>not here"])
def test_a_web_server_without_a_sha256_file(web, tmp_path, answer):
    web.files["/x/a%20b.zip.sha256"] = answer
    assert fetch(web.url, tmp_path / "out").read_bytes() == CONTENT


def test_an_unreadable_sha256_file_is_an_error_with_its_url(web, tmp_path):
    web.files["/x/a%20b.zip.sha256"] = 500
    with pytest.raises(OutputError, match=r"a%20b\.zip\.sha256: the address cannot be reached"):
        fetch(web.url, tmp_path / "out")
    web.files["/x/a%20b.zip.sha256"] = b"none"
    with pytest.raises(DataError, match=r"^http://.*a%20b\.zip\.sha256: the file must begin with a SHA-256"):
        fetch(web.url, tmp_path / "two")


@pytest.mark.parametrize("digits", ["", "abc", "g" * 64])
def test_an_invalid_sha256_is_refused(zip_file, tmp_path, digits):
    with pytest.raises(ConfigError, match="a SHA-256 has 64 hexadecimal digits"):
        fetch(zip_file, tmp_path, digits)


def test_the_protocol_may_be_in_capital_letters(web, tmp_path):
    assert fetch(web.url.replace("http:", "HTTP:"), tmp_path / "out").read_bytes() == CONTENT


def test_a_download_cut_short_is_an_error_and_leaves_nothing(web, tmp_path):
    web.lie = 10
    with pytest.raises(OutputError, match="the address cannot be reached"):
        fetch(web.url, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_fetch_from_fsspec(zip_file, tmp_path):
    location = fsspec.filesystem("memory")
    location.pipe_file("/h3/bundles/a.zip", CONTENT)
    try:
        for url in ("memory://h3/bundles/a.zip", "memory://h3/bundles"):
            assert fetch(url, tmp_path / "out").read_bytes() == CONTENT
        location.pipe_file("/h3/bundles/a.zip.sha256", f"{'0' * 64}  a.zip".encode())
        with pytest.raises(DataError, match="its SHA-256 must be 0000"):
            fetch("memory://h3/bundles", tmp_path / "out")
        with pytest.raises(DataError, match="the file does not exist"):
            fetch("memory://h3/none.zip", tmp_path / "out")
    finally:
        location.rm("/h3", recursive=True)
    assert fetch(zip_file.as_uri().replace("%20", " "), tmp_path / "out").read_bytes() == CONTENT


def test_an_unknown_protocol_is_named(tmp_path):
    with pytest.raises(
        ConfigError, match=r"^nothing://x/a\.zip: fsspec does not know the protocol nothing://"
    ) as caught:
        fetch("nothing://x/a.zip", tmp_path)
    assert "backup" not in str(caught.value)


def test_a_given_sha256_goes_before_the_file_beside_the_zip(zip_file, tmp_path):
    beside = zip_file.with_name("a b.zip.sha256")
    beside.write_text(sum_line(zip_file))
    assert beside.read_text() == f"{SUM}  a b.zip\n"
    assert fetch(zip_file, tmp_path, SUM.upper()) == zip_file
    with pytest.raises(DataError, match=f"its SHA-256 must be {'1' * 64} \\(got {SUM}"):
        fetch(zip_file, tmp_path, "1" * 64)
    beside.write_text("nonsense")
    with pytest.raises(DataError, match=r"a b\.zip\.sha256: the file must begin with a SHA-256"):
        fetch(zip_file, tmp_path)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://x/a/..", ""),
        ("https://x/a%5C..%5Cb.zip", "b.zip"),
        ("https://x", ""),
        ("https://x/..%2fb.zip", "b.zip"),
    ],
)
def test_a_name_in_a_url_is_never_a_path(url, name):
    assert name_in(url) == name


def test_a_place_that_never_answers_is_given_up():

    with pytest.raises(
        OutputError, match=r"^s3://x: the place cannot be reached or written \(TimeoutError: no answer in 0\.1 s\)"
    ):
        transfer._ask("s3://x", lambda: time.sleep(1), 0.1)


def test_push_and_pull_through_a_folder(packed, tmp_path):
    location = push(packed, tmp_path / "share" / "bundles")
    assert location == str(tmp_path / "share" / "bundles" / packed.name)
    assert sorted(path.name for path in (tmp_path / "share" / "bundles").iterdir()) == ["tiny.zip", "tiny.zip.sha256"]
    got = pull(str(tmp_path / "share" / "bundles"), tmp_path / "mine")
    assert got == tmp_path / "mine" / "tiny.zip"
    assert got.read_bytes() == packed.read_bytes()
    installed = install_bundle(str(tmp_path / "share" / "bundles"), tmp_path / "there", self_test=False)
    assert installed.name == "unet2d"
    with pytest.raises(OutputError, match="the bundle is in this folder already"):
        push(packed, packed.parent)


def test_another_file_of_that_name_is_not_overwritten(packed, tmp_path):
    for folder, work in (("a", lambda at: push(packed, at)), ("b", lambda at: pull(str(packed), at))):
        location = tmp_path / folder
        work(location)
        assert sorted(path.name for path in location.iterdir()) == ["tiny.zip", "tiny.zip.sha256"]
        work(location)
        (location / "tiny.zip").write_bytes(b"mine")
        with pytest.raises(OutputError, match="another file has this name"):
            work(location)
        assert (location / "tiny.zip").read_bytes() == b"mine"


def test_a_target_that_ends_in_zip_is_the_file_name(packed, tmp_path):
    assert push(packed, tmp_path / "out" / "liver.zip") == str(tmp_path / "out" / "liver.zip")
    assert (tmp_path / "out" / "liver.zip").read_bytes() == packed.read_bytes()
    assert (tmp_path / "out" / "liver.zip.sha256").read_text().endswith("  liver.zip\n")
    assert pull(str(tmp_path / "out"), tmp_path / "got").name == "liver.zip"
    location = fsspec.filesystem("memory")
    try:
        assert push(packed, "MEMORY://h3z/out/liver.zip") == "memory://h3z/out/liver.zip"
        names = ["/h3z/out/liver.zip", "/h3z/out/liver.zip.sha256"]
        assert sorted(location.ls("/h3z/out", detail=False)) == names
    finally:
        location.rm("/h3z", recursive=True)


def test_push_and_pull_through_fsspec(packed, tmp_path):
    location = fsspec.filesystem("memory")
    try:
        for _ in range(2):
            assert push(packed, "memory://h3s/bundles/") == "memory://h3s/bundles/tiny.zip"
        assert sorted(location.ls("/h3s/bundles", detail=False)) == [
            "/h3s/bundles/tiny.zip",
            "/h3s/bundles/tiny.zip.sha256",
        ]
        assert pull("memory://h3s/bundles", tmp_path).read_bytes() == packed.read_bytes()
        location.pipe_file("/h3s/bundles/tiny.zip", packed.read_bytes()[:-5])
        with pytest.raises(OutputError, match="another file has this name"):
            push(packed, "memory://h3s/bundles/")
        with pytest.raises(DataError, match="its SHA-256 must be"):
            pull("memory://h3s/bundles", tmp_path / "other")
        assert not (tmp_path / "other").exists()
    finally:
        location.rm("/h3s", recursive=True)


def test_damaged_bundles_are_neither_pushed_nor_pulled(packed, tmp_path):
    bad = tmp_path / "bad.zip"
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            target.writestr(name, b"other" if name.endswith("LICENSE") else source.read(name))
    with pytest.raises(DataError, match=r"bad\.zip: the packed bundle is not complete \(file-changed in LICENSE"):
        push(bad, tmp_path / "share")
    with pytest.raises(DataError, match="file-changed"):
        pull(str(bad), tmp_path / "mine")
    with pytest.raises(DataError, match="the file does not exist"):
        push(tmp_path / "none.zip", tmp_path / "share")
    with zipfile.ZipFile(tmp_path / "any.zip", "w") as target:
        target.writestr("a.txt", "x")
    with pytest.raises(DataError, match="it has no manifest.json"):
        push(tmp_path / "any.zip", tmp_path / "share")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["any.zip", "bad.zip"]
