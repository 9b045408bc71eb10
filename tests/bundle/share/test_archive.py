"""The bytes of a zip depend only on its files; the lock names every package needed."""

from __future__ import annotations

import os
import stat
import zipfile
from importlib import metadata

import pytest

from medseg.bundle.share import versions
from medseg.bundle.share.archive import folder_name, write_archive
from medseg.errors import OutputError


def fill(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name * 50)
    return folder


def test_order_times_and_permissions_do_not_change_the_zip(tmp_path):
    names = ["b", "a/c", "a/b", "z/y/x"]
    first = write_archive(fill(tmp_path / "one", names), tmp_path / "one.zip", "top")
    second = fill(tmp_path / "two", reversed(names))
    os.utime(second / "b", (1, 1))
    (second / "b").chmod(stat.S_IRUSR | stat.S_IXUSR)
    (second / "empty").mkdir()
    assert write_archive(second, tmp_path / "two.zip", "top").read_bytes() == first.read_bytes()
    with zipfile.ZipFile(first) as archive:
        assert archive.namelist() == ["top/a/b", "top/a/c", "top/b", "top/z/y/x"]
        assert archive.testzip() is None
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_an_error_leaves_no_partial_zip(tmp_path):
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
def test_a_name_becomes_that_of_one_folder(name, folder):
    assert folder_name(name) == folder


class Fake:
    def __init__(self, version, *requires):
        self.version, self.requires = version, list(requires)


@pytest.fixture
def installed(monkeypatch):
    packages = {
        "medseg": Fake("0.1.0", "torch>=2.6", "onnx; extra == 'onnx'", "ruff; extra == 'dev'", "nowhere"),
        "torch": Fake("2.13.0+cpu", "Sym_Py>=1", "win; sys_platform == 'nothing'"),
        "Sym_Py": Fake("1.14"),
        "onnx": Fake("1.23.2", "torch"),
        "ruff": Fake("1"),
        "win": Fake("1"),
    }
    names = {name.lower().replace("_", "-"): package for name, package in packages.items()}

    def distribution(name):
        if name.lower().replace("_", "-") not in names:
            raise metadata.PackageNotFoundError(name)
        return names[name.lower().replace("_", "-")]

    monkeypatch.setattr(versions.metadata, "distribution", distribution)
    monkeypatch.setattr(versions.metadata, "requires", lambda name: distribution(name).requires)


def test_requirements_are_followed_for_this_system(installed):
    assert versions.locked(["medseg"]) == {"medseg": "0.1.0", "sym-py": "1.14", "torch": "2.13.0"}
    assert versions.locked(["medseg[onnx]"])["onnx"] == "1.23.2"
    assert versions.locked(["nowhere"]) == {}


def test_packages_of_the_metadata_bring_their_extra(installed):
    text = versions.lock_text(
        {"required_packages_version": {"onnx": "1.0"}, "optional_packages_version": {"nowhere": "1"}}
    )
    lines = text.splitlines()
    assert lines[0].startswith("# What this bundle was packed with (Python 3.")
    assert [line for line in lines if not line.startswith("#")] == ["onnx==1.23.2", "sym-py==1.14", "torch==2.13.0"]


def test_locked_versions_are_the_installed_ones():
    locked_packages = versions.locked(["monai"])
    assert locked_packages["monai"] == metadata.version("monai")
    assert locked_packages["torch"] == metadata.version("torch").partition("+")[0]
    assert "sympy" in locked_packages
