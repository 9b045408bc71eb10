"""Names of metrics that something measures."""

from __future__ import annotations

from medseg.bundle.verify import scores
from tests.bundle.verify.broken import edit

SAVER = {"_target_": "monai.handlers.MetricsSaver", "save_dir": "x"}


def test_names_of_any_engine_and_a_star_are_known(found):
    saver = {**SAVER, "metrics": ["val_mean_dice"], "metric_details": "*"}
    assert found(scores, edit("train", validate__handler_set__scores=saver)) == []


def test_each_place_that_names_a_metric(found):
    saver = {**SAVER, "metrics": "*", "metric_details": ["val_dice"]}
    keeper = {"_target_": "CheckpointSaver", "save_dir": "x", "save_dict": {}, "key_metric_name": "dice"}
    fault = edit("train", validate__handler_set__scores=saver, train__handler_set__keeper=keeper)
    assert sorted(found(scores, fault)) == [
        ("metric-unknown", "configs/train.json, train#handler_set#keeper#key_metric_name"),
        ("metric-unknown", "configs/train.json, validate#handler_set#scores#metric_details"),
    ]


def test_metrics_out_of_an_expression_are_not_guessed(found):
    fault = edit("train", validate__handler_set__scores__metrics=["x"], validate__evaluator__additional_metrics="${}")
    assert found(scores, fault) == []
