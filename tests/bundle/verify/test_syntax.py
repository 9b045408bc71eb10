"""References, macros and expressions as MONAI reads them."""

from __future__ import annotations

import ast

import pytest
from monai.bundle import ConfigParser, ReferenceResolver

from medseg.bundle.verify import syntax

STRINGS = [
    "@a",
    "@a#b",
    "@a::b#2",
    "me@home",
    "$@a + @b#c",
    "$f('@x')",
    "",
    "@",
    "100 %",
    "$[x for x in @train#handlers]",
]


@pytest.mark.parametrize("text", STRINGS)
def test_references_are_those_that_monai_finds(text):
    wanted = {one.replace("::", "#") for one in ReferenceResolver.match_refs_pattern(text)}
    assert set(syntax.references(text)) == wanted


@pytest.mark.parametrize("text", ["%a#b", "%a::b", "%other.json", "%other.json::a#b", "%/data/x.yaml#net"])
def test_macros_are_split_as_monai_splits_them(text):
    path, ids = ConfigParser.split_path_id(text[1:])
    assert syntax.macro(text) == (path, ids.replace("::", "#"))


def test_what_is_at_a_path_and_what_is_not():
    config = {"a": [1, {"b": None}], "c": "@a"}
    assert syntax.at(config, "a#1") == {"b": None}
    assert syntax.has(config, "a#1#b")
    assert not syntax.has(config, "a#2")
    assert not syntax.has(config, "c#1")
    assert syntax.at(config, syntax.resolved_path(config, "c#0")) == 1


def test_a_path_that_refers_to_itself_ends():
    config = {"a": "@b", "b": "@a"}
    assert syntax.resolved_path(config, "a") in config
    assert syntax.closure(config, "@a") == {"a", "b"}


def test_the_closure_goes_through_components_and_expressions():
    config = {"x": "$@y + 1", "y": {"_target_": "f", "n": "@z"}, "z": 1, "w": 2}
    assert syntax.closure(config, "$@x * 2") == {"x", "y", "z"}


def test_an_import_is_told_from_an_expression_and_from_what_is_neither():
    assert isinstance(syntax.parse("$import torch.distributed as dist")[0], ast.Import)
    assert isinstance(syntax.parse("$from a import b")[0], ast.ImportFrom)
    assert isinstance(syntax.parse("$@a.b(1)")[0], ast.Call)
    assert syntax.parse("$x = 1")[0] is None
    assert syntax.parse("$(")[0] is None
