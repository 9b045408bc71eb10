"""Differences between configs."""

from medseg.config.diff import ABSENT, differences


def test_differences_give_both_values_by_path():
    recipe = {"lr": 0.1, "train": {"a": 1, "b": [1, 2]}, "net": {"_target_": "A", "x": 1}, "gone": 3}
    config = {"lr": 0.2, "train": {"a": 1, "b": [1, 3]}, "net": {"_target_": "B"}, "new": None}
    assert differences(config, recipe) == {
        "lr": [0.2, 0.1],
        "train#b": [[1, 3], [1, 2]],
        "net": [{"_target_": "B"}, {"_target_": "A", "x": 1}],
        "new": [None, ABSENT],
        "gone": [ABSENT, 3],
    }


def test_the_same_reference_in_monais_spelling_is_no_difference():
    assert differences({"a": "$len(@train::x)", "b": ["@c::d"]}, {"a": "$len(@train#x)", "b": ["@c#d"]}) == {}
    assert differences({"a": "x::y"}, {"a": "x#y"}) == {"a": ["x::y", "x#y"]}


def test_a_dictionary_against_null_is_one_difference():
    one = {"schedule": None, "to": "@a#b", "only": 1}
    other = {"schedule": {"_target_": "x"}, "to": "@a::b"}
    assert differences(one, other) == {"schedule": [None, {"_target_": "x"}], "only": [1, ABSENT]}


def test_any_number_of_configs_is_compared_and_some_keys_are_left_out():
    configs = [{"lr": 1, "root": "/a"}, {"lr": 1, "root": "/b"}, {"lr": 2}]
    assert differences(*configs, ignore={"root"}) == {"lr": [1, 1, 2]}
