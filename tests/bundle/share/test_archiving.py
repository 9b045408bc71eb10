"""The bytes of a zip depend on its files alone."""

import os
import stat
import zipfile

import pytest

from medseg.bundle.share.archiving import folder_name, write_archive
from medseg.errors import OutputError


def fill(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name * 50)
    return folder


def test_order_times_and_permissions_change_nothing(tmp_path):
    names = ["b", "a/c", "a/b", "z/y/x"]
    first = write_archive(fill(tmp_path / "one", names), tmp_path / "one.zip", "top")
    other = fill(tmp_path / "two", reversed(names))
    os.utime(other / "b", (1, 1))
    (other / "b").chmod(stat.S_IRUSR | stat.S_IXUSR)
    (other / "empty").mkdir()
    assert write_archive(other, tmp_path / "two.zip", "top").read_bytes() == first.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.namelist() == ["top/a/b", "top/a/c", "top/b", "top/z/y/x"]
        assert archive.testzip() is None
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_an_error_leaves_no_half_zip(tmp_path):
    fill(tmp_path / "one", ["a"])
    (tmp_path / "place").write_text("a file")
    with pytest.raises(OutputError):
        write_archive(tmp_path / "one", tmp_path / "place" / "a.zip")
    (tmp_path / "one" / "b").symlink_to(tmp_path / "one" / "a")
    write_archive(tmp_path / "one", tmp_path / "a.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "one", "place"]


@pytest.mark.parametrize(
    ("name", "folder"), [("unet2d", "unet2d"), ("../a b", "a_b"), ("..", "bundle"), ("a/b", "a_b"), ("", "bundle")]
)
def test_a_name_becomes_one_folders_name(name, folder):
    assert folder_name(name) == folder
