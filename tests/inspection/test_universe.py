"""All configs of a bundle at once."""

import pytest

from medseg.inspection.universe import Universe, UnreadableError, parse


def test_a_path_has_as_many_values_as_files_say_something_of_it():
    made = Universe()
    made.add("train.json", {"loss": {"_target_": "A", "x": 1}, "list": ["a"]})
    made.add("overlay.json", {"loss#_target_": "B", "+list": ["b"], "new": {"y": "@#z"}})
    assert [entry.value for entry in made.at("loss::_target_")] == ["A", "B"]
    assert [entry.location for entry in made.at("loss::_target_")] == [
        "train.json, loss#_target_",
        "overlay.json, loss#_target_",
    ]
    assert [entry.value for entry in made.at("list::+overlay.json.1.0")] == ["b"]
    assert [entry.value for entry in made.at("new::y")] == ["@new::z"]
    assert made.holds_relative("new")
    assert not made.holds_relative("loss")


def test_what_is_reached_through_a_macro_or_a_reference():
    made = Universe()
    made.add("a.json", {"b": {"c": 1}, "d": "%b", "e": "@d", "f": "@f"})
    assert [entry.value for entry in made.at("d::c")] == [1]
    assert [entry.value for entry in made.at("e::c")] == [1]
    assert made.at("f::c") == []  # a circle


def test_imports_and_what_holds_them():
    made = Universe()
    made.add("a.json", {"imports": ["$import torch", "$import os.path as p"], "x": "$import glob"})
    assert made.names["p"] == {"os.path"}
    assert made.names["np"] == {"numpy"}
    assert made.holds_import("imports")
    assert made.holds_import("imports::0")
    assert made.holds_import("")
    assert not made.holds_import("import")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[1]", "no JSON object"),
        (b"{", "no JSON in UTF-8"),
        (b"\xff\xfe{", "no JSON in UTF-8"),
        (b'{"a": {"b": 1, "b": 2}}', "'b' stands twice"),
        (b'{"a":' * 100_000, "too deep"),
    ],
)
def test_what_is_no_config(data, said):
    with pytest.raises(UnreadableError, match=said):
        parse(data)


def test_a_config_that_python_can_read_may_still_be_too_deep():
    content = {}
    for _ in range(100):
        content = {"a": content}
    with pytest.raises(UnreadableError, match="too deep"):
        Universe().add("a.json", content)
