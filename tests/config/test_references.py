"""Strings of a config are read exactly as MONAI reads them."""

import ast

import pytest
from monai.bundle import ConfigExpression, ConfigParser, ReferenceResolver

from medseg.config import references
from medseg.config.paths import at, closure, has, resolved_path
from medseg.config.references import key_path

TEXTS = [
    "$@a + @b#c * 2",
    "$@a::b::c",
    "$'@a' + @aa + @a",
    "$@#x + @##y",
    "@a#b",
    "@a::b#2",
    "mail@example",
    "$[@a for a in @aa::b] # @c",
    "$f'{@a}@'",
    "$f('@x')",
    "$@ + 1",
    "",
    "@",
    "100 %",
    "$[x for x in @train#handlers]",
]


@pytest.mark.parametrize("text", TEXTS)
def test_references_are_those_that_monai_finds(text):
    expected = {key_path(path) for path in ReferenceResolver.match_refs_pattern(text)}
    assert set(references.references(text)) == expected


@pytest.mark.parametrize("text", TEXTS)
def test_relative_references_and_expressions_become_what_monai_makes_of_them(text):
    ours = references.absolute("train#handlers#0", text)
    theirs = ConfigParser.resolve_relative_ids("train::handlers::0", text)
    assert ours == theirs
    assert sorted(set(references.references(ours))) == sorted(map(key_path, ReferenceResolver.match_refs_pattern(ours)))
    if text.startswith("$"):
        resolved = dict.fromkeys(ReferenceResolver.match_refs_pattern(theirs), 1)
        assert "$" + references.as_python(ours) == ReferenceResolver.update_refs_pattern(theirs, resolved)


@pytest.mark.parametrize(
    "text",
    [
        "%a#b",
        "%a::b",
        "%#b",
        "%x.json",
        "%x.json::a",
        "%../c/x.YAML",
        "%a.json.b::c",
        "%x.json::y.yml::z",
        "%/d/x.yaml#n",
    ],
)
def test_macros_are_split_as_monai_splits_them(text):
    file, path = ConfigParser.split_path_id(text[1:])
    assert references.macro(text) == (file, key_path(path))


@pytest.mark.parametrize("key", ["a:#b", "a:::b", "a##b", "#a", "a::", "a#::b"])
def test_a_path_has_the_parts_that_monai_splits_it_into(key):
    assert key_path(key).split("#") == ReferenceResolver.split_id(key)


@pytest.mark.parametrize("text", ["$import os", "$import torch.nn as nn", "$from glob import glob as g"])
def test_plain_imports_are_read(text):
    assert ConfigExpression.is_import_statement(text)
    assert references.import_binding(text) is not None


@pytest.mark.parametrize(
    "text", ["$import os, sys", "$import os; 1", "$ import os", "$from . import x", "$imports", "$1"]
)
def test_any_other_import_binds_nothing_that_is_known(text):
    binding = references.import_binding(text)
    assert binding is None or binding[1].startswith(".")


def test_an_import_is_told_from_an_expression_and_from_text_that_is_neither():
    assert isinstance(references.parse("$import torch.distributed as dist")[0], ast.Import)
    assert isinstance(references.parse("$from a import b")[0], ast.ImportFrom)
    assert isinstance(references.parse("$@a.b(1)")[0], ast.Call)
    assert references.parse("$x = 1")[0] is None
    assert references.parse("$(")[0] is None


def test_used_paths_are_references_and_macros_of_this_config_alone():
    config = {"a": "$@b#c + 1", "d": ["%e::f", {"g": "@h"}], "i": "%other.json::j", "mail": "me@home", "k": "5 % @l"}
    assert references.used_paths(config) == {"b#c", "e#f", "h"}


def test_entries_are_found_by_path_also_through_references():
    config = {"a": [1, {"b": None}], "c": "@a"}
    assert at(config, "a#1") == {"b": None}
    assert has(config, "a#1#b")
    assert not has(config, "a#2")
    assert not has(config, "c#1")
    assert at(config, resolved_path(config, "c#0")) == 1


def test_a_path_that_refers_to_itself_ends():
    config = {"a": "@b", "b": "@a"}
    assert resolved_path(config, "a") in config
    assert closure(config, "@a") == {"a", "b"}


def test_the_closure_goes_through_components_and_expressions():
    config = {"x": "$@y + 1", "y": {"_target_": "f", "n": "@z"}, "z": 1, "w": 2}
    assert closure(config, "$@x * 2") == {"x", "y", "z"}
