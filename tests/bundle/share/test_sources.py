"""From wherever it comes: the bytes that were sent, held against their SHA-256, or one clear error."""

import hashlib
import http.server
import threading

import fsspec
import pytest

from medseg.bundle.share import sources
from medseg.bundle.share.sources import fetch, name_in, sum_line
from medseg.errors import ConfigError, DataError, OutputError

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


def test_a_file_stays_where_it_is_and_a_folder_means_the_one_zip_in_it(zip_file, tmp_path):
    assert fetch(zip_file, tmp_path / "out") == zip_file
    assert fetch(str(zip_file.parent), tmp_path / "out") == zip_file
    (zip_file.parent / "b.zip").write_bytes(b"")
    with pytest.raises(DataError, match=r"must hold one packed bundle [(]a b\.zip, b\.zip"):
        fetch(zip_file.parent, tmp_path / "out")
    with pytest.raises(DataError, match="no such file"):
        fetch(tmp_path / "missing.zip", tmp_path / "out")
    (tmp_path / "bundle" / "configs").mkdir(parents=True)
    (tmp_path / "bundle" / "configs" / "metadata.json").write_text("{}")
    with pytest.raises(DataError, match=r"a folder\. medseg bundle pack makes one"):
        fetch(tmp_path / "bundle", tmp_path / "out")


def test_from_the_web(web, tmp_path):
    path = fetch(f"{web.url}?download=1", tmp_path / "out")
    assert (path.name, path.read_bytes()) == ("a b.zip", CONTENT)
    web.files["/x/a%20b.zip.sha256"] = f"{SUM}  a b.zip\n".encode()
    assert fetch(web.url, tmp_path / "two", SUM).read_bytes() == CONTENT
    with pytest.raises(OutputError, match="HTTPError: Not Found"):
        fetch(web.url.replace("/x/", "/y/"), tmp_path / "out")


@pytest.mark.parametrize(
    "answer", ["nonsense\r\n\r\n", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nab"]
)
def test_a_server_that_speaks_no_http_is_one_error(web, tmp_path, answer):
    web.files["/x/a%20b.zip"] = answer
    with pytest.raises((OutputError, DataError)):
        fetch(web.url, tmp_path / "out", SUM)


def test_urls_that_cannot_be_are_one_error(web, tmp_path):
    for url in (web.url + "/a b", "http://127.0.0.1:no/a.zip"):
        with pytest.raises(OutputError, match="must be within reach"):
            fetch(url, tmp_path / "out")


def test_a_long_name_is_cut(web, tmp_path):
    web.files["/x/" + "a" * 300 + ".zip"] = CONTENT
    path = fetch(web.url.replace("a%20b", "a" * 300), tmp_path / "out")
    assert path.read_bytes() == CONTENT
    assert path.name.endswith("aaa.zip")


@pytest.mark.parametrize("answer", [404, 403, 410, b"\n<!DOCTYPE html><p>not here"])
def test_a_server_that_has_no_sum_has_none(web, tmp_path, answer):
    web.files["/x/a%20b.zip.sha256"] = answer
    assert fetch(web.url, tmp_path / "out").read_bytes() == CONTENT


def test_a_sum_that_cannot_be_fetched_or_is_none_is_an_error_that_names_its_url(web, tmp_path):
    web.files["/x/a%20b.zip.sha256"] = 500
    with pytest.raises(OutputError, match=r"a%20b\.zip\.sha256: must be within reach"):
        fetch(web.url, tmp_path / "out")
    web.files["/x/a%20b.zip.sha256"] = b"none"
    with pytest.raises(DataError, match=r"^http://.*a%20b\.zip\.sha256: must begin with a SHA-256"):
        fetch(web.url, tmp_path / "two")


@pytest.mark.parametrize("said", ["", "abc", "g" * 64])
def test_what_is_no_sha256_is_refused(zip_file, tmp_path, said):
    with pytest.raises(ConfigError, match="must be the 64 hexadecimal digits"):
        fetch(zip_file, tmp_path, said)


def test_the_protocol_may_be_in_capitals(web, tmp_path):
    assert fetch(web.url.replace("http:", "HTTP:"), tmp_path / "out").read_bytes() == CONTENT


def test_a_download_cut_short_is_an_error_and_leaves_nothing(web, tmp_path):
    web.lie = 10
    with pytest.raises(OutputError, match="must be within reach"):
        fetch(web.url, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_from_a_place_that_fsspec_reaches(zip_file, tmp_path):
    location = fsspec.filesystem("memory")
    location.pipe_file("/h3/bundles/a.zip", CONTENT)
    try:
        for url in ("memory://h3/bundles/a.zip", "memory://h3/bundles"):
            assert fetch(url, tmp_path / "out").read_bytes() == CONTENT
        location.pipe_file("/h3/bundles/a.zip.sha256", f"{'0' * 64}  a.zip".encode())
        with pytest.raises(DataError, match="must have the SHA-256 0000"):
            fetch("memory://h3/bundles", tmp_path / "out")
        with pytest.raises(DataError, match="no such file"):
            fetch("memory://h3/none.zip", tmp_path / "out")
    finally:
        location.rm("/h3", recursive=True)
    assert fetch(zip_file.as_uri().replace("%20", " "), tmp_path / "out").read_bytes() == CONTENT


def test_a_protocol_that_nobody_knows_is_named_without_the_word_backup(tmp_path):
    with pytest.raises(
        ConfigError, match=r"^nothing://x/a\.zip: must be a folder, or a URL that fsspec knows"
    ) as caught:
        fetch("nothing://x/a.zip", tmp_path)
    assert "backup" not in str(caught.value)


def test_the_sum_that_was_told_goes_before_the_one_beside_it(zip_file, tmp_path):
    beside = zip_file.with_name("a b.zip.sha256")
    beside.write_text(sum_line(zip_file))
    assert beside.read_text() == f"{SUM}  a b.zip\n"
    assert fetch(zip_file, tmp_path, SUM.upper()) == zip_file
    with pytest.raises(DataError, match=f"must have the SHA-256 {'1' * 64} [(]{SUM}"):
        fetch(zip_file, tmp_path, "1" * 64)
    beside.write_text("nonsense")
    with pytest.raises(DataError, match=r"a b\.zip\.sha256: must begin with a SHA-256"):
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
def test_a_name_in_a_url_leads_nowhere(url, name):
    assert name_in(url) == name


def test_a_place_that_never_answers_is_not_waited_for():
    import time

    with pytest.raises(OutputError, match=r"^s3://x: must be .*no answer in 0\.1 s"):
        sources.asked("s3://x", lambda: time.sleep(1), 0.1)
