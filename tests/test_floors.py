"""What import-linter cannot see: who may import monai.bundle, what a library never does, and that a wheel is whole."""

import ast
import configparser

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


def test_a_wheel_carries_every_bundle_and_overlay(repository):
    parser = configparser.ConfigParser()
    parser.read(repository / "setup.cfg", encoding="utf-8")
    packed = set()
    for target, patterns in parser["options.data_files"].items():
        for pattern in patterns.split():
            for path in repository.glob(pattern):
                assert target == f"share/medseg/{path.parent.relative_to(repository).as_posix()}"
                packed.add(path)
    files = [*repository.glob("bundles/**/*"), *repository.glob("configs/*.json")]
    left_out = {"models", "eval", "runs"}
    wanted = {path for path in files if path.is_file() and path.parent.name not in left_out}
    assert packed == wanted
