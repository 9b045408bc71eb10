"""The files of a folder or a zip."""

import os
import sys
import zipfile

import pytest

from medseg.errors import BundleError
from medseg.inspection.contents import open_contents

FILES = {"configs/metadata.json": b"{}", "models/model.pt": bytes(range(256)) * 40, "a.txt": b"x"}


@pytest.fixture
def folder(tmp_path):
    for name, data in FILES.items():
        path = tmp_path / "b" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "b"


def packed(path, top="", method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in FILES.items():
            archive.writestr(top + name, data)
    return path


@pytest.mark.parametrize("kind", ["folder", "stored", "deflated", "in a folder"])
def test_a_folder_and_a_zip_hold_the_same_files(folder, tmp_path, kind):
    path = folder
    if kind != "folder":
        method = zipfile.ZIP_DEFLATED if kind == "deflated" else zipfile.ZIP_STORED
        path = packed(tmp_path / "b.zip", "top/" if kind == "in a folder" else "", method)
    files = open_contents(path)
    assert files.kind == ("folder" if kind == "folder" else "zip")
    assert files.findings == []
    assert files.sizes == {name: len(data) for name, data in FILES.items()}
    assert files.read("models/model.pt", 10) == FILES["models/model.pt"][:10]
    with files.open("models/model.pt") as file:
        file.seek(-6, os.SEEK_END)
        assert file.read() == FILES["models/model.pt"][-6:]
        file.seek(300)
        assert (file.read(3), file.tell()) == (FILES["models/model.pt"][300:303], 303)


def test_neither_a_folder_nor_a_zip_is_refused(tmp_path):
    with pytest.raises(BundleError, match="there is no folder and no file of this name"):
        open_contents(tmp_path / "gone")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(BundleError, match="this file is no zip"):
        open_contents(tmp_path / "x.txt")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_link_within_is_a_warning_and_is_read(folder):
    (folder / "models" / "best.pt").symlink_to("model.pt")
    (folder / "again").symlink_to("models", target_is_directory=True)
    files = open_contents(folder)
    assert [(finding.severity, finding.code, finding.location) for finding in files.findings] == [
        ("warning", "link", "again"),
        ("warning", "link", "models/best.pt"),
    ]
    assert files.sizes["models/best.pt"] == len(FILES["models/model.pt"])
    assert "again/model.pt" not in files.sizes


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot be there")
def test_names_that_do_not_work_everywhere_are_warnings(folder):
    (folder / "aux.txt").write_text("")
    (folder / "A.txt").write_text("")
    assert {(finding.severity, finding.code) for finding in open_contents(folder).findings} == {
        ("warning", "name-unportable")
    }


def test_too_many_files(folder, monkeypatch):
    monkeypatch.setattr("medseg.inspection.contents.MAX_FILES", 2)
    assert [finding.code for finding in open_contents(folder).findings] == ["too-many-files"]
