"""References, entries that nothing uses, overlays."""

from __future__ import annotations

from medseg.bundle.verify import links
from tests.bundle.verify.broken import edit, overlay


def test_what_only_a_macro_or_an_expression_uses_is_used(found):
    fault = edit("train", half=0.5, copied={"a": 1}, optimizer__lr="$@lr * @half", loss__sigmoid="%copied#a")
    assert found(links, fault) == []


def test_a_reference_into_what_another_one_refers_to(found):
    fault = edit("train", one={"two": 3}, alias="@one", loss__sigmoid="@alias#two")
    assert found(links, fault) == []
    fault = edit("train", loss__sigmoid="@alias#three")
    assert found(links, fault) == [("reference-missing", "configs/train.json, loss#sigmoid")]


def test_a_macro_that_leads_nowhere(found):
    fault = edit("train", train__handlers=["%train#handler_set#validaton"])
    assert ("reference-missing", "configs/train.json, train#handlers#0") in found(links, fault)


def test_what_relative_references_use_is_not_guessed(found):
    assert found(links, edit("inference", unused=1, more={"a": 1, "b": "@#a"})) == []


def test_an_overlay_may_add_arguments_and_what_runs(found):
    fault = overlay("quick", lr=0.1, optimizer__weight_decay=0.1, again=["$@train#trainer.run()"])
    assert found(links, fault) == []


def test_an_overlay_without_anything_to_go_on(found, plain):
    for name in ("train", "evaluate", "inference"):
        (plain / "configs" / f"{name}.json").unlink()
    assert found(links, overlay("quick", lr=0.1)) == [("overlay-alone", "configs/quick.json")]
