"""Where configs would write."""

import ast

import pytest

from medseg.inspection.expressions import Expression
from medseg.inspection.places import OWN, Places
from medseg.inspection.universe import Universe

NAMES = {"os": "os", "time": "time", "datetime": "datetime", "medseg": "medseg", "pathlib": "pathlib"}
CONFIG = {
    "bundle_root": "$medseg.bundle.bundle_root('x')",
    "output_dir": "$@bundle_root + '/eval'",
    "dot": ".",
    "this_run": "$medseg.bundle.start_run(1, 2, 3, 4, 5)",
    "other_run": "$len(@this_run)",
    "circle": "@circle",
    "number": 3,
    "nothing": None,
    "copy": "%output_dir",
}


@pytest.fixture
def places():
    made = Universe()
    made.add("a.json", CONFIG)
    return Places(made, Expression(NAMES, lambda path: None, lambda name, node: None, lambda name: False))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("models", "models"),
        ("@output_dir", f"{OWN}/eval"),
        ("%output_dir", f"{OWN}/eval"),
        ("@copy", f"{OWN}/eval"),
        ("$@output_dir + '/' + @dot + '/x'", f"{OWN}/eval/./x"),
        ("$os.path.join(@output_dir, 'a', 'b')", f"{OWN}/eval/a/b"),
        ("$os.path.join(@output_dir, '/etc')", "/etc"),
        ("$pathlib.Path(@output_dir) / 'a'", f"{OWN}/eval/a"),
        ("$str(@output_dir)", f"{OWN}/eval"),
        ('$f"{@output_dir}/fold{@number}"', f"{OWN}/eval/fold3"),
        ("$@this_run.folder / 'checkpoints'", f"{OWN}/checkpoints"),
        ("$@output_dir + time.strftime('/%Y-%m')", f"{OWN}/eval/0-0"),
        ("$@output_dir + '/' + datetime.datetime.now().strftime('%Y%m')", f"{OWN}/eval/00"),
    ],
)
def test_what_a_value_comes_to(places, value, text):
    assert places.texts(value) == {text}


@pytest.mark.parametrize(
    "value",
    [
        *[
            "@gone",
            "@circle",
            "$@output_dir.parent",
            "$@other_run.folder",
            "$@x % 'a'",
            '$f"{@output_dir!r}"',
            "$((",
            [1],
        ],
        *[
            "%other.json::a",
            "$os.path.dirname(@output_dir)",
            "$os.path.join(*@output_dir)",
            "$b'x'",
            "$@this_run.name",
            "$@x.strftime('a')",
        ],
    ],
)
def test_what_cannot_be_worked_out_is_not_known(places, value):
    assert places.texts(value) is None
    assert "worked out" in places.fault(value)
    assert "worked out" in places.name_fault(value)


def test_branches_come_to_all_they_may_be(places):
    assert places.texts("$'a' if @number else 'b'") == {"a", "b"}
    assert places.texts("$@nothing or 'b'") == {"b"}
    assert places.texts(None) == set()
    assert places.texts(ast.parse("'a' + 'b'", mode="eval").body) == {"ab"}


@pytest.mark.parametrize(
    "value", ["eval", "./eval", ".", "@output_dir", "$@output_dir + '/.cache'", "@nothing", "a/b.pt"]
)
def test_places_within(places, value):
    assert places.fault(value) is None


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("/etc", "outside"),
        ("~/x", "absolute"),
        ("../x", "climbs"),
        ("$@output_dir + '/../..'", "climbs"),
        ("$@bundle_root + 'x'", "beside"),
        ("s3://bucket/x", "outside"),
        ("a\\..\\b", "climbs"),
        (".ssh/x", "settings lie"),
        ("$@bundle_root + '/configs/x'", "settings lie"),
        ("a/b.py", "run or read"),
        ("$'/etc' if @number else 'eval'", "outside"),
    ],
)
def test_places_that_are_not(places, value, said):
    assert said in places.fault(value)


def test_names_of_files(places):
    for name in ("model.pt", "log.txt", "best_{epoch}.pt", "", None, "$'a' + '.pt'"):
        assert places.name_fault(name) is None
    for name in ("a/b", "..", ".bashrc", "x.py", "x.PTH", "a.yaml"):
        assert places.name_fault(name) is not None
    assert places.name_fault(".nii.gz", extension=True) is None
