"""What configs would run, by place."""

from medseg.inspection.configs import Part, is_config, judge, strings

FILE = "configs/train.json"


def codes(content, **more):
    return [(one.code, one.location) for one in judge({FILE: content, **more}).findings]


def test_every_target_and_every_expression_is_a_part():
    found = judge({FILE: {"a": {"_target_": "UNet", "x": "$1 + @b"}, "imports": ["$import torch"], "b": ["$f()"]}})
    assert found.parts == [
        Part("target", "UNet", f"{FILE}, a#_target_", True),
        Part("expression", "$1 + @b", f"{FILE}, a#x", True),
        Part("expression", "$import torch", f"{FILE}, imports#0", True),
        Part("expression", "$f()", f"{FILE}, b#0", False, "it calls 'f', which is not known"),
    ]
    assert [(one.code, one.location) for one in found.findings] == [("expression-unknown", f"{FILE}, b#0")]


def test_names_of_imports_hold_in_every_file():
    assert codes({"imports": ["$import glob as g"]}, other={"a": "$g.glob('x')"}) == []
    assert codes({}, other={"a": "$g.glob('x')"}) == [("expression-unknown", "other, a")]


def test_one_name_for_two_modules_is_refused():
    assert ("import-alias", "imports") in codes({"a": "$import glob as x"}, other={"b": "$import math as x"})


def test_a_component_with_rules_may_not_be_called_with_arguments_of_others():
    component = {"_target_": "LoadImaged", "_mode_": "callable"}
    assert codes({"a": component}) == [("argument-unsafe", f"{FILE}, a#_mode_")]
    assert codes({"a": {"_target_": "Compose", "_mode_": "callable"}}) == []
    assert codes({"a": {"_target_": "Compose", "_mode_": "default"}}) == []


def test_a_checkpoint_loader_that_was_made_may_be_called_and_nothing_else():
    loader = {"_target_": "CheckpointLoader", "load_path": "models/model.pt", "load_dict": {}}
    assert codes({"a": loader, "b": "$@a(@c)", "c": 1}) == []
    assert codes({"a": loader, "b": "$@a(@c)", "c": 1}, other={"a#_target_": "Compose"})
    assert codes({"a": loader, "b": "$@a(@c)", "c": 1}, other={"a": "$len"})
    assert codes({"a": {**loader, "_mode_": "callable"}, "b": "$@a('x')"})
    assert codes({"a": {"_target_": "Compose"}, "b": "$@a('x')"}) == [("expression-unknown", f"{FILE}, b")]


def test_macros_within_the_config_are_known():
    assert codes({"a": {"_target_": "UNet"}, "b": "%a", "c": ["%b"]}) == []


def test_a_finding_is_said_once():
    run = "$medseg.bundle.start_run('a', '.', 1, 2, 'n', backup=@backup)"
    found = codes({"imports": ["$import medseg"], "backup": "s3://x", "run": run})
    assert found == [("sends-elsewhere", f"{FILE}, run")]


def test_json_that_somebody_could_give_to_monai():
    assert is_config({"a": [{"_target_": "UNet"}]})
    assert is_config({"a": "$1"})
    assert not is_config({"a": "costs 5$", "b": [1, None]})
    assert list(strings({"a": ["b", {"c": 1}]})) == ["a", "b", "c"]
