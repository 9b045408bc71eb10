"""Zips of others: unpacked whole, or nothing is left. What is refused, hostile_zips.py holds."""

import os
import zipfile

import pytest

from medseg.errors import BundleError, OutputError
from medseg.inspection import archive


@pytest.fixture
def packed(tmp_path):
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("configs/metadata.json", "{}")
        made.writestr("models/", "")
        made.writestr("models/model.pt", os.urandom(3_000_000))
    return path


def test_a_zip_is_unpacked_as_it_is_named(packed, tmp_path):
    assert archive.check_archive(packed) == []
    folder = archive.unpack(packed, tmp_path / "out")
    assert folder == tmp_path / "out"
    assert sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()) == [
        "configs/metadata.json",
        "models/model.pt",
    ]
    with zipfile.ZipFile(packed) as made:
        assert (folder / "models/model.pt").read_bytes() == made.read("models/model.pt")


def test_a_folder_with_files_is_left_alone(packed, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(OutputError, match="new or an empty folder"):
        archive.unpack(packed, tmp_path / "out")
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["mine"]


def test_what_is_unfit_is_not_unpacked(packed, tmp_path):
    with zipfile.ZipFile(packed, "a") as made:
        made.writestr("a/../../evil", "x")
    with pytest.raises(BundleError, match=r"a/../../evil: its name may not be unpacked: it climbs out"):
        archive.unpack(packed, tmp_path / "out")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["b.zip"]


def test_bytes_that_are_not_what_the_table_says_leave_nothing(packed, tmp_path):
    data = bytearray(packed.read_bytes())
    with zipfile.ZipFile(packed) as made:
        data[made.getinfo("models/model.pt").header_offset + 2_000_000] ^= 255
    packed.write_bytes(data)
    assert archive.check_archive(packed) == []  # the tables are whole
    with pytest.raises(BundleError, match=r"models/model.pt: .*(CRC|Error|invalid)"):
        archive.unpack(packed, tmp_path / "out")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["b.zip"]


def test_a_size_that_is_a_lie_is_found_while_unpacking(tmp_path, monkeypatch):
    path = tmp_path / "b.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("x", bytes(5000))
    data = bytearray(path.read_bytes())
    for head, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = data.index(head)
        data[start + offset : start + offset + 4] = (10).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(BundleError, match="whole zip"):
        archive.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_too_many_entries_and_too_many_bytes_are_bombs(packed, monkeypatch):
    monkeypatch.setattr(archive, "MOST_ENTRIES", 2)
    assert [one.code for one in archive.check_archive(packed)] == ["zip-bomb"]
    monkeypatch.setattr(archive, "MOST_ENTRIES", 20)
    monkeypatch.setattr(archive, "MOST_BYTES", 1_000_000)
    assert [one.code for one in archive.check_archive(packed)] == ["zip-bomb"]


def test_no_zip_and_no_file_are_findings(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"nothing")
    for name in ("x.zip", "gone.zip"):
        assert [one.code for one in archive.check_archive(tmp_path / name)] == ["zip-damaged"]
