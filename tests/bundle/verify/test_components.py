"""Components are located as MONAI does, and their arguments and metrics' names exist."""

from __future__ import annotations

import pytest
import torch
from monai.transforms import LoadImaged

from medseg.bundle.verify.components import check_metric_names, component_findings, locate
from tests.bundle.verify.broken import edit


def findings(**component):
    component["_target_"] = component.pop("target")
    return [(finding.code, finding.message) for finding in component_findings("place", component)]


def test_short_and_full_names_are_located():
    assert locate("LoadImaged")[0] is LoadImaged
    assert locate("torch.optim.Adam")[0] is torch.optim.Adam
    assert locate("medseg.LabelMap.totalsegmentator")[0] is not None


@pytest.mark.parametrize(
    ("target", "why"),
    [("LoadImagd", "MONAI has no component of this name"), ("torch.optim.Adm", "it has no member 'Adm'"),
     ("nosuch.thing", "the module does not exist"), ("torch.nn", "it cannot be called")],
)  # fmt: skip
def test_a_target_that_cannot_be_located_has_a_reason(target, why):
    member, (text, fix) = locate(target)
    assert member is None
    assert text == why
    assert fix


def test_arguments_are_compared_with_the_signature():
    assert findings(target="UNet", spatial_dims=2, in_channels=1, out_channels=2, channels=[4], strides=[]) == []
    assert [code for code, _ in findings(target="UNet", spatial_dims=2, img_size=9)] == [
        "argument-unknown", "argument-missing", "argument-missing", "argument-missing", "argument-missing"
    ]  # fmt: skip


def test_a_callable_needs_no_arguments():
    assert findings(target="UNet", _mode_="callable") == []


def test_any_argument_is_accepted_by_kwargs():
    assert findings(target="builtins.dict", anything=1) == []
    assert findings(target="monai.utils.set_determinism", seed=1) == []


def test_special_keys_are_not_arguments():
    assert findings(target="SimpleInferer", _disabled_=False, _desc_="text", _requires_=[]) == []


SAVER = {"_target_": "monai.handlers.MetricsSaver", "save_dir": "x"}


def test_metrics_of_any_engine_and_a_star_are_known(codes_of):
    saver = {**SAVER, "metrics": ["val_mean_dice"], "metric_details": "*"}
    assert codes_of(check_metric_names, edit("train", validate__handler_set__scores=saver)) == []


def test_each_argument_that_names_a_metric(codes_of):
    saver = {**SAVER, "metrics": "*", "metric_details": ["val_dice"]}
    keeper = {"_target_": "CheckpointSaver", "save_dir": "x", "save_dict": {}, "key_metric_name": "dice"}
    fault = edit("train", validate__handler_set__scores=saver, train__handler_set__keeper=keeper)
    assert sorted(codes_of(check_metric_names, fault)) == [
        ("metric-unknown", "configs/train.json, train#handler_set#keeper#key_metric_name"),
        ("metric-unknown", "configs/train.json, validate#handler_set#scores#metric_details"),
    ]


def test_metrics_from_an_expression_are_not_guessed(codes_of):
    fault = edit("train", validate__handler_set__scores__metrics=["x"], validate__evaluator__additional_metrics="${}")
    assert codes_of(check_metric_names, fault) == []
