"""Strings of configs are read exactly as MONAI reads them."""

import pytest
from monai.bundle import ConfigExpression, ConfigParser, ReferenceResolver

from medseg.inspection import references

TEXTS = [
    "$@a + @b#c * 2",
    "$@a::b::c",
    "$'@a' + @aa + @a",
    "$@#x + @##y",
    "@a#b",
    "mail@example",
    "$[@a for a in @aa::b] # @c",
    "$f'{@a}@'",
    "$@ + 1",
]


@pytest.mark.parametrize("text", TEXTS)
def test_as_monai_does(text):
    path = "train::handlers::0"
    ours, theirs = references.absolute(path, text), ConfigParser.resolve_relative_ids(path, text)
    assert ours == theirs
    assert sorted(set(references.referred(ours))) == sorted(ReferenceResolver.match_refs_pattern(theirs))
    if text.startswith("$"):
        known = dict.fromkeys(ReferenceResolver.match_refs_pattern(theirs), 1)
        assert "$" + references.replaced(ours) == ReferenceResolver.update_refs_pattern(theirs, known)


@pytest.mark.parametrize("text", ["%a::b", "%x.json::a", "%../c/x.YAML", "%a.json.b::c", "%x.json::y.yml::z"])
def test_macros_as_monai_does(text):
    assert references.macro(text) == ConfigParser.split_path_id(text[1:])


@pytest.mark.parametrize("text", ["$import os", "$import torch.nn as nn", "$from glob import glob as g"])
def test_imports(text):
    assert ConfigExpression.is_import_statement(text)
    assert references.imported(text) is not None


@pytest.mark.parametrize(
    "text", ["$import os, sys", "$import os; 1", "$ import os", "$from . import x", "$imports", "$1"]
)
def test_what_is_no_plain_import(text):
    found = references.imported(text)
    assert found is None or found[1].startswith(".")
