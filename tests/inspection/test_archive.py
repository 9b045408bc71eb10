"""Zips are unpacked completely or not at all; hostile_zips.py holds those that are refused."""

import os
import zipfile

import pytest

from medseg.errors import BundleError, OutputError
from medseg.inspection import archive
from medseg.inspection.archive import casefolded, portability_problem


@pytest.fixture
def packed(tmp_path):
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zip_file:
        zip_file.writestr("configs/metadata.json", "{}")
        zip_file.writestr("models/", "")
        zip_file.writestr("models/model.pt", os.urandom(3_000_000))
    return path


def test_entries_keep_their_names_and_bytes(packed, tmp_path):
    assert archive.check_archive(packed) == []
    folder = archive.unpack(packed, tmp_path / "out")
    assert folder == tmp_path / "out"
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == [
        "configs/metadata.json",
        "models/model.pt",
    ]
    with zipfile.ZipFile(packed) as zip_file:
        assert (folder / "models/model.pt").read_bytes() == zip_file.read("models/model.pt")


def test_a_folder_with_files_is_left_alone(packed, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(OutputError, match="the folder must be new or empty"):
        archive.unpack(packed, tmp_path / "out")
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["mine"]


def test_an_unfit_zip_is_not_unpacked(packed, tmp_path):
    with zipfile.ZipFile(packed, "a") as zip_file:
        zip_file.writestr("a/../../evil", "x")
    with pytest.raises(BundleError, match=r"a/../../evil: its name may not be unpacked: it climbs out"):
        archive.unpack(packed, tmp_path / "out")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b.zip"]


def test_nothing_is_left_where_the_bytes_contradict_the_table(packed, tmp_path):
    data = bytearray(packed.read_bytes())
    with zipfile.ZipFile(packed) as zip_file:
        data[zip_file.getinfo("models/model.pt").header_offset + 2_000_000] ^= 255
    packed.write_bytes(data)
    assert archive.check_archive(packed) == []  # the tables agree
    with pytest.raises(BundleError, match=r"models/model.pt: .*(CRC|Error|invalid)"):
        archive.unpack(packed, tmp_path / "out")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b.zip"]


def test_a_false_size_is_found_while_unpacking(tmp_path, monkeypatch):
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zip_file:
        zip_file.writestr("x", bytes(5000))
    data = bytearray(path.read_bytes())
    for head, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = data.index(head)
        data[start + offset : start + offset + 4] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(BundleError, match="this is no whole zip file"):
        archive.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_many_entries_and_too_many_bytes_are_bombs(packed, monkeypatch):
    monkeypatch.setattr(archive, "MAX_ENTRIES", 2)
    assert [entry.code for entry in archive.check_archive(packed)] == ["zip-bomb"]
    monkeypatch.setattr(archive, "MAX_ENTRIES", 20)
    monkeypatch.setattr(archive, "MAX_BYTES", 1_000_000)
    assert [entry.code for entry in archive.check_archive(packed)] == ["zip-bomb"]


def test_a_file_that_is_no_zip_is_a_finding(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"nothing")
    for name in ("x.zip", "gone.zip"):
        assert [entry.code for entry in archive.check_archive(tmp_path / name)] == ["zip-damaged"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "empty"),
        ("/etc/passwd", "absolute"),
        ("~/x", "absolute"),
        ("c:x", "absolute"),
        ("a/../../b", "climbs"),
        ("a\\..\\b", "climbs"),
        ("a/b?c", "character"),
        ("a\x07b", "character"),
        ("x" * 300, "240"),
        ("a//b", "empty part"),
        ("a/./b", "empty part"),
        ("a. /b", "dot or a blank"),
        ("a/COM1.txt", "device"),
        ("aux", "device"),
    ],
)
def test_a_name_that_does_not_work_everywhere_may_not_become_a_file(name, problem):
    assert problem in portability_problem(name)


@pytest.mark.parametrize("name", ["configs/train.json", "a b/c-d_e.nii.gz", "Größe/x", ".cache/x", "company/auxiliary"])
def test_an_ordinary_name_may_become_a_file(name):
    assert portability_problem(name) is None


def test_names_that_some_systems_take_for_the_same_are_found():
    assert casefolded("A/ﬁle") == casefolded("a/FILE")
    assert casefolded("e\u0301") == casefolded("\u00c9")
    assert casefolded("a") != casefolded("b")
