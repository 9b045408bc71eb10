"""Pushed and pulled through folders and places: whole or not there."""

import zipfile

import fsspec
import pytest

from medseg.bundle.share import hub, install_bundle, pull, push
from medseg.errors import DataError, OutputError


def test_through_a_folder(packed, tmp_path):
    location = push(packed, tmp_path / "share" / "bundles")
    assert location == str(tmp_path / "share" / "bundles" / packed.name)
    assert sorted(path.name for path in (tmp_path / "share" / "bundles").iterdir()) == ["tiny.zip", "tiny.zip.sha256"]
    got = pull(str(tmp_path / "share" / "bundles"), tmp_path / "mine")
    assert got == tmp_path / "mine" / "tiny.zip"
    assert got.read_bytes() == packed.read_bytes()
    made = install_bundle(str(tmp_path / "share" / "bundles"), tmp_path / "there", self_test=False)
    assert made.name == "unet2d"
    with pytest.raises(OutputError, match="must be another folder than the one it lies in"):
        push(packed, packed.parent)


def test_another_file_of_that_name_stays_as_it_is(packed, tmp_path):
    for folder, work in (("a", lambda at: push(packed, at)), ("b", lambda at: pull(str(packed), at))):
        location = tmp_path / folder
        work(location)
        assert sorted(path.name for path in location.iterdir()) == ["tiny.zip", "tiny.zip.sha256"]
        work(location)
        (location / "tiny.zip").write_bytes(b"mine")
        with pytest.raises(OutputError, match="must be free, or hold the same file"):
            work(location)
        assert (location / "tiny.zip").read_bytes() == b"mine"


def test_a_place_that_ends_in_zip_is_the_name_of_the_file(packed, tmp_path):
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


def test_through_a_place_that_fsspec_reaches(packed, tmp_path):
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
        with pytest.raises(OutputError, match="must not hold another file of that name"):
            push(packed, "memory://h3s/bundles/")
        with pytest.raises(DataError, match="must have the SHA-256"):
            pull("memory://h3s/bundles", tmp_path / "other")
        assert not (tmp_path / "other").exists()
    finally:
        location.rm("/h3s", recursive=True)


def test_to_the_hub_it_goes_with_its_card(packed, monkeypatch):
    said = {}

    def pushed(path, url, card, line, private):
        said.update(path=path, url=url, card=card, line=line, private=private)
        return "hf://o/m/tiny.zip"

    monkeypatch.setattr(hub, "push", pushed)
    assert push(packed, "hf://o/m") == "hf://o/m/tiny.zip"
    assert said["private"]
    assert said["line"].endswith("  tiny.zip\n")
    with zipfile.ZipFile(packed) as archive:
        card = archive.read("unet2d/docs/model_card.md").decode()
    assert said["card"].startswith("---\ntags:\n- monai\n")
    assert card in said["card"]


def test_what_is_damaged_or_none_is_neither_pushed_nor_pulled(packed, tmp_path):
    bad = tmp_path / "bad.zip"
    with zipfile.ZipFile(packed) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            target.writestr(name, b"other" if name.endswith("LICENSE") else source.read(name))
    with pytest.raises(DataError, match=r"bad\.zip: must be a whole packed bundle [(]error file-changed"):
        push(bad, tmp_path / "share")
    with pytest.raises(DataError, match="file-changed"):
        pull(str(bad), tmp_path / "mine")
    with pytest.raises(DataError, match="no such file"):
        push(tmp_path / "none.zip", tmp_path / "share")
    with zipfile.ZipFile(tmp_path / "any.zip", "w") as target:
        target.writestr("a.txt", "x")
    with pytest.raises(DataError, match="no-manifest"):
        push(tmp_path / "any.zip", tmp_path / "share")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["any.zip", "bad.zip"]
