"""What import-linter cannot see: who may import monai.bundle, what a library never does, and that a wheel is whole."""

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import medseg


def modules(repository):
    return sorted((repository / "medseg").rglob("*.py"))


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_only_the_bundle_floor_imports_monai_bundle(repository):
    who = {
        path.relative_to(repository / "medseg").parts[0]
        for path in modules(repository)
        for name in imported(path)
        if name.startswith("monai.bundle")
    }
    assert who == {"bundle"}


def test_the_library_neither_asserts_nor_prints(repository):
    found = []
    for path in modules(repository):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            prints = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            if isinstance(node, ast.Assert) or prints:
                found.append(f"{path.name}:{node.lineno}")
    assert not found


def test_every_module_stands_below_the_wall_and_every_room_has_tests(repository):
    for path in modules(repository):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, path
    rooms = {path.parent.relative_to(repository / "medseg") for path in modules(repository)}
    for room in rooms:
        assert list((repository / "tests" / room).glob("test_*.py")), room


@pytest.mark.parametrize("name", medseg.__all__)
def test_every_name_at_the_door_opens(name):
    assert getattr(medseg, name) is not None


def test_the_door_is_sorted_and_complete():
    assert list(medseg.__all__) == sorted(medseg.__all__)
    assert set(medseg.__all__) <= set(dir(medseg))
    with pytest.raises(AttributeError, match="no attribute 'Lable'"):
        _ = medseg.Lable


def test_a_wheel_carries_every_bundle_and_overlay(repository, tmp_path):
    tree = tmp_path / "tree"
    for name in ("bundles", "configs"):
        shutil.copytree(repository / name, tree / name)
    for name in ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(repository / name, tree / name)
    shutil.copytree(tree / "bundles" / "unet2d", tree / "bundles" / "lesions")  # one that nobody listed
    (tree / "medseg").mkdir()
    (tree / "medseg" / "__init__.py").touch()
    files = [*tree.glob("bundles/**/*"), *tree.glob("configs/*.json")]
    left_out = {"models", "eval", "runs"}
    expected = {path.relative_to(tree) for path in files if path.is_file() and path.parent.name not in left_out}
    (tree / "bundles" / "unet2d" / "eval").mkdir()
    (tree / "bundles" / "unet2d" / "eval" / "s0001.nii.gz").touch()
    build = "from setuptools.build_meta import build_wheel; build_wheel('..')"
    subprocess.run([sys.executable, "-c", build], cwd=tree, check=True, capture_output=True, timeout=60)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = [name.partition("/share/medseg/") for name in archive.namelist()]
    assert {Path(below) for _, separator, below in names if separator} == expected
    assert Path("bundles/lesions/configs/train.json") in expected
