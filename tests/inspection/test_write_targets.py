"""Where configs would write is worked out without running them."""

import ast

import pytest

from medseg.inspection.expressions import ExpressionJudge
from medseg.inspection.merged_configs import MergedConfigs
from medseg.inspection.write_targets import HOME, WriteTargets

NAMES = {"os": "os", "time": "time", "datetime": "datetime", "medseg": "medseg", "pathlib": "pathlib"}
CONFIG = {
    "bundle_root": "$medseg.bundle.bundle_root('x')",
    "output_dir": "$@bundle_root + '/eval'",
    "dot": ".",
    "current_run": "$medseg.bundle.start_run(1, 2, 3, 4, 5)",
    "other_run": "$len(@current_run)",
    "circle": "@circle",
    "number": 3,
    "nothing": None,
    "copy": "%output_dir",
}


@pytest.fixture
def targets():
    configs = MergedConfigs()
    configs.add("a.json", CONFIG)
    return WriteTargets(configs, ExpressionJudge(NAMES))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("models", "models"),
        ("@output_dir", f"{HOME}/eval"),
        ("%output_dir", f"{HOME}/eval"),
        ("@copy", f"{HOME}/eval"),
        ("$@output_dir + '/' + @dot + '/x'", f"{HOME}/eval/./x"),
        ("$os.path.join(@output_dir, 'a', 'b')", f"{HOME}/eval/a/b"),
        ("$os.path.join(@output_dir, '/etc')", "/etc"),
        ("$pathlib.Path(@output_dir) / 'a'", f"{HOME}/eval/a"),
        ("$str(@output_dir)", f"{HOME}/eval"),
        ('$f"{@output_dir}/fold{@number}"', f"{HOME}/eval/fold3"),
        ("$@current_run.folder / 'checkpoints'", f"{HOME}/checkpoints"),
        ("$@output_dir + time.strftime('/%Y-%m')", f"{HOME}/eval/0-0"),
        ("$@output_dir + '/' + datetime.datetime.now().strftime('%Y%m')", f"{HOME}/eval/00"),
    ],
)
def test_a_value_comes_to_one_text(targets, value, text):
    assert targets.texts(value) == {text}


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
            "$@current_run.name",
            "$@x.strftime('a')",
        ],
    ],
)
def test_a_value_that_cannot_be_worked_out_is_refused(targets, value):
    assert targets.texts(value) is None
    assert "worked out" in targets.path_problem(value)
    assert "worked out" in targets.name_problem(value)


def test_branches_come_to_all_they_may_be(targets):
    assert targets.texts("$'a' if @number else 'b'") == {"a", "b"}
    assert targets.texts("$@nothing or 'b'") == {"b"}
    assert targets.texts(None) == set()
    assert targets.texts(ast.parse("'a' + 'b'", mode="eval").body) == {"ab"}


@pytest.mark.parametrize(
    "value", ["eval", "./eval", ".", "@output_dir", "$@output_dir + '/.cache'", "@nothing", "a/b.pt"]
)
def test_paths_within_the_bundle_are_allowed(targets, value):
    assert targets.path_problem(value) is None


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("/etc", "outside"),
        ("~/x", "absolute"),
        ("../x", "climbs"),
        ("$@output_dir + '/../..'", "climbs"),
        ("$@bundle_root + 'x'", "beside"),
        ("s3://bucket/x", "outside"),
        ("a\\..\\b", "climbs"),
        (".ssh/x", "among settings"),
        ("$@bundle_root + '/configs/x'", "among settings"),
        ("a/b.py", "run or read"),
        ("$'/etc' if @number else 'eval'", "outside"),
    ],
)
def test_paths_out_of_the_bundle_are_refused(targets, value, problem):
    assert problem in targets.path_problem(value)


def test_only_plain_names_of_files_are_allowed(targets):
    for name in ("model.pt", "log.txt", "best_{epoch}.pt", "", None, "$'a' + '.pt'"):
        assert targets.name_problem(name) is None
    for name in ("a/b", "..", ".bashrc", "x.py", "x.PTH", "a.yaml"):
        assert targets.name_problem(name) is not None
    assert targets.name_problem(".nii.gz", extension=True) is None
