"""`medseg bundle pull`."""

import hashlib
import json

import pytest

from medseg.bundle.share.archiving import write_archive
from medseg.bundle.verify.manifest import MANIFEST, make_manifest


@pytest.fixture
def file(tmp_path):
    location = tmp_path / "content"
    location.mkdir()
    (location / "LICENSE").write_text("free")
    (location / MANIFEST).write_text(json.dumps(make_manifest(location, {"bundle": "it"})))
    return write_archive(location, tmp_path / "share" / "a.zip", "it")


def test_it_is_fetched_and_what_to_do_next_is_said(medseg, file, tmp_path):
    sum_of = hashlib.sha256(file.read_bytes()).hexdigest()
    done = medseg("bundle", "pull", file.parent, "-o", tmp_path / "mine", "--sha256", sum_of)
    assert done.code == 0, done.err
    got = tmp_path / "mine" / "a.zip"
    assert got.read_bytes() == file.read_bytes()
    assert f"medseg bundle install {got}" in done.out


def test_what_is_not_there_or_another_file_is_said_in_one_line(medseg, file, tmp_path):
    done = medseg("bundle", "pull", tmp_path / "nothing.zip", "-o", tmp_path / "mine")
    assert done.code == 1
    assert "no such file" in done.err
    done = medseg("bundle", "pull", file, "-o", tmp_path / "mine", "--sha256", "1" * 64)
    assert done.code == 1
    assert "must have the SHA-256" in done.err
    assert not (tmp_path / "mine").exists()
