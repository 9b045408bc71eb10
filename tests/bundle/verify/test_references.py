"""Keys that MONAI and its zoo look for, references, unused entries, positions, overlays."""

from __future__ import annotations

import pytest

from medseg.bundle.verify.references import check_keys, check_positions, check_references
from tests.bundle.verify.broken import REMOVE, edit, overlay


def test_every_key_of_training_is_looked_for(codes_of):
    gone = edit("train", train__trainer__max_epochs=REMOVE, validate__dataset__data=REMOVE, dataset_dir=REMOVE)
    assert codes_of(check_keys, gone) == [
        ("key-missing", "configs/train.json, dataset_dir"),
        ("key-missing", "configs/train.json, train#trainer#max_epochs"),
        ("key-missing", "configs/train.json, validate#dataset#data"),
    ]


def test_a_folder_for_what_is_saved(codes_of):
    saves = edit("inference", postprocessing={"_target_": "SaveImaged", "keys": "pred"}, output_dir=REMOVE)
    assert codes_of(check_keys, saves) == [("key-missing", "configs/inference.json, output_dir")]


def test_a_run_by_another_name_is_named(codes_of, plain):
    assert codes_of(check_keys, edit("train", run=REMOVE, training=["$@train#trainer.run()"])) == [
        ("run-missing", "configs/train.json, run")
    ]


def test_an_engine_that_takes_something_else_than_stands_under_monais_name(codes_of):
    fault = edit("train", validate__evaluator__val_handlers=[])
    assert codes_of(check_keys, fault) == [("key-elsewhere", "configs/train.json, validate#evaluator#val_handlers")]


def test_what_only_a_macro_or_an_expression_uses_is_used(codes_of):
    fault = edit("train", half=0.5, copied={"a": 1}, optimizer__lr="$@lr * @half", loss__sigmoid="%copied#a")
    assert codes_of(check_references, fault) == []


def test_a_reference_into_what_another_one_refers_to(codes_of):
    fault = edit("train", one={"two": 3}, alias="@one", loss__sigmoid="@alias#two")
    assert codes_of(check_references, fault) == []
    fault = edit("train", loss__sigmoid="@alias#three")
    assert codes_of(check_references, fault) == [("reference-missing", "configs/train.json, loss#sigmoid")]


def test_a_macro_that_leads_nowhere(codes_of):
    fault = edit("train", train__handlers=["%train#handler_set#validaton"])
    assert ("reference-missing", "configs/train.json, train#handlers#0") in codes_of(check_references, fault)


def test_what_relative_references_use_is_not_guessed(codes_of):
    assert codes_of(check_references, edit("inference", unused=1, more={"a": 1, "b": "@#a"})) == []


def test_an_overlay_may_add_arguments_and_what_runs(codes_of):
    fault = overlay("quick", lr=0.1, optimizer__weight_decay=0.1, again=["$@train#trainer.run()"])
    assert codes_of(check_references, fault) == []


def test_an_overlay_without_anything_to_go_on(codes_of, plain):
    for name in ("train", "evaluate", "inference"):
        (plain / "configs" / f"{name}.json").unlink()
    assert codes_of(check_references, overlay("quick", lr=0.1)) == [("overlay-alone", "configs/quick.json")]


LR = "configs/train.json, optimizer#lr"


@pytest.mark.parametrize(
    "text",
    ["@train#handlers#0", "%deterministic#1", "$@deterministic[-1]", "$@train#handlers[1:]", "$@train#random[0].prob"],
)
def test_a_component_by_its_place(codes_of, text):
    assert codes_of(check_positions, edit("train", optimizer__lr=text)) == [("position", LR)]


@pytest.mark.parametrize("text", ["$@spacing[0]", "$['a', 'b'][:len(@spacing)]", "$@train['random']", "@train#random"])
def test_other_things_may_be_counted(codes_of, text):
    assert codes_of(check_positions, edit("train", optimizer__lr=text)) == []


def test_an_overlay_that_cuts_a_list_of_its_config(codes_of):
    fault = overlay("quick", train__trainer__train_handlers="$@train#handlers[: -2]")
    assert codes_of(check_positions, fault) == [("position", "configs/quick.json, train#trainer#train_handlers")]
