"""`medseg bundle push`."""

import json
import socket

import pytest

from medseg.bundle.share.archiving import write_archive
from medseg.bundle.verify.manifest import MANIFEST, make_manifest


@pytest.fixture
def file(tmp_path):
    location = tmp_path / "content"
    location.mkdir()
    (location / "LICENSE").write_text("free")
    (location / MANIFEST).write_text(json.dumps(make_manifest(location, {"bundle": "it"})))
    return write_archive(location, tmp_path / "a.zip", "it")


def test_a_file_goes_to_a_folder_and_how_to_get_it_is_said(medseg, file, tmp_path):
    done = medseg("bundle", "push", file, tmp_path / "share")
    assert done.code == 0
    assert f"medseg bundle install {tmp_path / 'share' / 'a.zip'}" in done.out
    assert (tmp_path / "share" / "a.zip").read_bytes() == file.read_bytes()
    assert (tmp_path / "share" / "a.zip.sha256").is_file()


def test_without_a_network_one_line_says_so(medseg, file, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    done = medseg("bundle", "push", file, "hf://o/m")
    assert done.code == 1
    assert done.err.startswith("Error: hf://o/m: must be within reach")
    assert "Is there a network?" in done.err


def test_what_is_no_packed_bundle_is_not_sent(medseg, tmp_path):
    (tmp_path / "b.zip").write_text("no zip")
    done = medseg("bundle", "push", tmp_path / "b.zip", tmp_path / "share")
    assert done.code == 1
    assert "must be a whole zip file" in done.err
    assert not (tmp_path / "share").exists()
