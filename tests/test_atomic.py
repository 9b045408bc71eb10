import json
import ntpath
import os
from pathlib import Path

import pytest

from medseg import atomic
from medseg.atomic import (
    atomic_folder,
    atomic_path,
    move,
    relative_path,
    writable_folder,
    write_csv,
    write_json,
    write_text,
)
from medseg.errors import OutputError


def test_a_file_appears_complete_and_nothing_else_remains(tmp_path):
    write_text(tmp_path / "deep" / "a.txt", "whole")
    assert (tmp_path / "deep" / "a.txt").read_text() == "whole"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.txt"]


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as partial:
        partial.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["a.txt"]


def test_the_partial_file_keeps_the_whole_extension(tmp_path):
    with atomic_path(tmp_path / "scan.1.nii.gz") as partial:
        assert partial.name.endswith(".nii.gz")
        assert partial.parent == tmp_path
        partial.touch()


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="the folder cannot be written"):
        writable_folder(tmp_path / "file" / "below")


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path):
    with (
        pytest.raises(OutputError, match=r"the file cannot be written [(].*No space left"),
        atomic_path(tmp_path / "a"),
    ):
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())


def test_json_refuses_nan_and_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"dice": None})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"dice": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"dice": None}


def test_a_folder_appears_complete_or_not_at_all(tmp_path):
    root = tmp_path / "deep" / "set"
    with atomic_folder(root) as partial:
        (partial / "inner").mkdir(parents=True)
        (partial / "inner" / "a").touch()
        assert not root.exists()
    assert (root / "inner" / "a").is_file()
    with pytest.raises(RuntimeError, match="no more"), atomic_folder(tmp_path / "other") as partial:
        partial.mkdir()
        raise RuntimeError("no more")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep"]


def test_an_empty_folder_is_accepted_and_a_full_one_refused(tmp_path):
    (tmp_path / "set").mkdir()
    with atomic_folder(tmp_path / "set") as partial:
        partial.mkdir()
        (partial / "a").touch()
    with pytest.raises(OutputError, match="the folder must be new or empty"), atomic_folder(tmp_path / "set"):
        pass
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["a"]


@pytest.fixture
def scanner(monkeypatch):
    """A virus scanner of Windows: so many times a rename is refused, because the scanner has the file open."""
    monkeypatch.setattr(atomic, "_WAITS", (0, 0, 0))
    refusals, real = [], Path.replace

    def refused(path, target):
        if refusals:
            raise refusals.pop()
        return real(path, target)

    monkeypatch.setattr(Path, "replace", refused)
    return lambda count, kind=PermissionError: refusals.extend(kind(13, "in use") for _ in range(count))


def test_a_rename_waits_for_a_virus_scanner(scanner, tmp_path):
    scanner(3)
    with atomic_folder(tmp_path / "folder") as partial:
        partial.mkdir()
        (partial / "a").touch()
    scanner(2)
    write_text(tmp_path / "b", "new")
    scanner(3)
    move(tmp_path / "folder", tmp_path / "other")
    assert (tmp_path / "other" / "a").is_file()
    assert (tmp_path / "b").read_text() == "new"


def test_a_rename_that_is_refused_for_long_is_an_error(scanner, tmp_path):
    (tmp_path / "a").touch()
    scanner(4)
    with pytest.raises(PermissionError):
        move(tmp_path / "a", tmp_path / "b")
    scanner(1, FileNotFoundError)  # waiting does not help
    with pytest.raises(FileNotFoundError):
        move(tmp_path / "a", tmp_path / "b")
    move(tmp_path / "a", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_path_on_another_drive_stays_absolute(tmp_path, monkeypatch):
    assert relative_path(tmp_path / "a" / "b", tmp_path / "c") == "../a/b"
    with pytest.raises(ValueError, match="drive|mount"):
        ntpath.relpath("D:\\scans\\a.nii.gz", "C:\\lists")  # what Windows does
    monkeypatch.setattr(os.path, "relpath", lambda path, start: ntpath.relpath("D:\\scans", "C:\\lists"))
    assert relative_path(tmp_path / "a", tmp_path) == (tmp_path / "a").as_posix()


def test_no_cell_of_a_table_is_a_formula(tmp_path):
    row = ["=cmd()", "+1+cmd()", "@SUM(1)", "-2+cmd|' /C calc'!A0", "\t=1", "-0.5", "-1e-05", -1, "liver", None, "a=b"]
    write_csv(tmp_path / "a.csv", row, [row])
    text = "'=cmd(),'+1+cmd(),'@SUM(1),'-2+cmd|' /C calc'!A0,'\t=1,-0.5,-1e-05,-1,liver,,a=b\n"
    assert (tmp_path / "a.csv").read_text() == 2 * text
