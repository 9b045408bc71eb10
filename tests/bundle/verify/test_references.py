"""Keys that MONAI and its zoo look for, references, unused entries, positions, overlays."""

from __future__ import annotations

import pytest

from medseg.bundle.verify.references import check_keys, check_positions, check_references
from tests.bundle.verify.broken import REMOVE, edit, overlay


def test_missing_keys_of_training_are_found(codes_of):
    gone = edit("train", train__trainer__max_epochs=REMOVE, validate__dataset__data=REMOVE, dataset_dir=REMOVE)
    assert codes_of(check_keys, gone) == [
        ("key-missing", "configs/train.json, dataset_dir"),
        ("key-missing", "configs/train.json, train#trainer#max_epochs"),
        ("key-missing", "configs/train.json, validate#dataset#data"),
    ]


def test_saving_needs_an_output_dir(codes_of):
    saves = edit("inference", postprocessing={"_target_": "SaveImaged", "keys": "pred"}, output_dir=REMOVE)
    assert codes_of(check_keys, saves) == [("key-missing", "configs/inference.json, output_dir")]


def test_a_run_under_another_id_is_named(codes_of, plain):
    assert codes_of(check_keys, edit("train", run=REMOVE, training=["$@train#trainer.run()"])) == [
        ("run-missing", "configs/train.json, run")
    ]


def test_an_engine_that_ignores_the_key_that_monai_reads(codes_of):
    fault = edit("train", validate__evaluator__val_handlers=[])
    assert codes_of(check_keys, fault) == [("key-elsewhere", "configs/train.json, validate#evaluator#val_handlers")]


def test_macros_and_expressions_count_as_use(codes_of):
    fault = edit("train", half=0.5, copied={"a": 1}, optimizer__lr="$@lr * @half", loss__sigmoid="%copied#a")
    assert codes_of(check_references, fault) == []


def test_references_are_followed_through_references(codes_of):
    fault = edit("train", one={"two": 3}, alias="@one", loss__sigmoid="@alias#two")
    assert codes_of(check_references, fault) == []
    fault = edit("train", loss__sigmoid="@alias#three")
    assert codes_of(check_references, fault) == [("reference-missing", "configs/train.json, loss#sigmoid")]


def test_a_macro_to_a_missing_path(codes_of):
    fault = edit("train", train__handlers=["%train#handler_set#validaton"])
    assert ("reference-missing", "configs/train.json, train#handlers#0") in codes_of(check_references, fault)


def test_relative_references_are_not_guessed(codes_of):
    assert codes_of(check_references, edit("inference", unused=1, more={"a": 1, "b": "@#a"})) == []


def test_an_overlay_may_add_arguments_and_what_runs(codes_of):
    fault = overlay("quick", lr=0.1, optimizer__weight_decay=0.1, again=["$@train#trainer.run()"])
    assert codes_of(check_references, fault) == []


def test_an_overlay_without_a_config(codes_of, plain):
    for name in ("train", "evaluate", "inference"):
        (plain / "configs" / f"{name}.json").unlink()
    assert codes_of(check_references, overlay("quick", lr=0.1)) == [("overlay-alone", "configs/quick.json")]


LR = "configs/train.json, optimizer#lr"


@pytest.mark.parametrize(
    "text",
    ["@train#handlers#0", "%deterministic#1", "$@deterministic[-1]", "$@train#handlers[1:]", "$@train#random[0].prob"],
)
def test_a_component_addressed_by_index(codes_of, text):
    assert codes_of(check_positions, edit("train", optimizer__lr=text)) == [("position", LR)]


@pytest.mark.parametrize("text", ["$@spacing[0]", "$['a', 'b'][:len(@spacing)]", "$@train['random']", "@train#random"])
def test_indexing_values_is_allowed(codes_of, text):
    assert codes_of(check_positions, edit("train", optimizer__lr=text)) == []


def test_an_overlay_that_slices_a_list(codes_of):
    fault = overlay("quick", train__trainer__train_handlers="$@train#handlers[: -2]")
    assert codes_of(check_positions, fault) == [("position", "configs/quick.json, train#trainer#train_handlers")]
