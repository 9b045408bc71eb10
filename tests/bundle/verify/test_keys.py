"""Keys that MONAI and its zoo look for."""

from __future__ import annotations

from medseg.bundle.verify import keys
from tests.bundle.verify.broken import REMOVE, edit


def test_every_key_of_training_is_looked_for(found):
    gone = edit("train", train__trainer__max_epochs=REMOVE, validate__dataset__data=REMOVE, dataset_dir=REMOVE)
    assert found(keys, gone) == [
        ("key-missing", "configs/train.json, dataset_dir"),
        ("key-missing", "configs/train.json, train#trainer#max_epochs"),
        ("key-missing", "configs/train.json, validate#dataset#data"),
    ]


def test_a_folder_for_what_is_saved(found):
    saves = edit("inference", postprocessing={"_target_": "SaveImaged", "keys": "pred"}, output_dir=REMOVE)
    assert found(keys, saves) == [("key-missing", "configs/inference.json, output_dir")]


def test_a_run_by_another_name_is_named(found, plain):
    assert found(keys, edit("train", run=REMOVE, training=["$@train#trainer.run()"])) == [
        ("run-missing", "configs/train.json, run")
    ]


def test_an_engine_that_takes_something_else_than_stands_under_monais_name(found):
    fault = edit("train", validate__evaluator__val_handlers=[])
    assert found(keys, fault) == [("key-elsewhere", "configs/train.json, validate#evaluator#val_handlers")]
