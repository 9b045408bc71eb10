"""Lists of components are not counted through."""

from __future__ import annotations

import pytest

from medseg.bundle.verify import positions
from tests.bundle.verify.broken import edit, overlay

PLACE = "configs/train.json, optimizer#lr"


@pytest.mark.parametrize(
    "text",
    ["@train#handlers#0", "%deterministic#1", "$@deterministic[-1]", "$@train#handlers[1:]", "$@train#random[0].prob"],
)
def test_a_component_by_its_place(found, text):
    assert found(positions, edit("train", optimizer__lr=text)) == [("position", PLACE)]


@pytest.mark.parametrize("text", ["$@spacing[0]", "$['a', 'b'][:len(@spacing)]", "$@train['random']", "@train#random"])
def test_other_things_may_be_counted(found, text):
    assert found(positions, edit("train", optimizer__lr=text)) == []


def test_an_overlay_that_cuts_a_list_of_its_config(found):
    fault = overlay("quick", train__trainer__train_handlers="$@train#handlers[: -2]")
    assert found(positions, fault) == [("position", "configs/quick.json, train#trainer#train_handlers")]
