"""Components are located as MONAI does, and their arguments and metrics' names exist."""

from __future__ import annotations

import pytest
import torch
from monai.transforms import LoadImaged

from medseg.bundle.verify.components import check_metric_names, component_findings, locate
from tests.bundle.verify.broken import edit


def findings(**component):
    component["_target_"] = component.pop("target")
    return [(one.code, one.message) for one in component_findings("place", component)]


def test_short_and_full_names_lead_to_the_thing():
    assert locate("LoadImaged")[0] is LoadImaged
    assert locate("torch.optim.Adam")[0] is torch.optim.Adam
    assert locate("medseg.LabelMap.totalsegmentator")[0] is not None


@pytest.mark.parametrize(
    ("target", "why"),
    [("LoadImagd", "MONAI has no component of this name"), ("torch.optim.Adm", "it has no member 'Adm'"),
     ("nosuch.thing", "the module does not exist"), ("torch.nn", "it cannot be called")],
)  # fmt: skip
def test_a_name_that_leads_nowhere_says_where_it_ends(target, why):
    found, (said, fix) = locate(target)
    assert found is None
    assert said == why
    assert fix


def test_arguments_are_held_against_the_signature():
    assert findings(target="UNet", spatial_dims=2, in_channels=1, out_channels=2, channels=[4], strides=[]) == []
    assert [code for code, _ in findings(target="UNet", spatial_dims=2, img_size=9)] == [
        "argument-unknown", "argument-missing", "argument-missing", "argument-missing", "argument-missing"
    ]  # fmt: skip


def test_what_is_called_later_needs_no_arguments_now():
    assert findings(target="UNet", _mode_="callable") == []


def test_what_takes_anything_is_given_anything():
    assert findings(target="builtins.dict", anything=1) == []
    assert findings(target="monai.utils.set_determinism", seed=1) == []


def test_our_special_keys_are_no_arguments():
    assert findings(target="SimpleInferer", _disabled_=False, _desc_="text", _requires_=[]) == []


SAVER = {"_target_": "monai.handlers.MetricsSaver", "save_dir": "x"}


def test_names_of_any_engine_and_a_star_are_known(codes_of):
    saver = {**SAVER, "metrics": ["val_mean_dice"], "metric_details": "*"}
    assert codes_of(check_metric_names, edit("train", validate__handler_set__scores=saver)) == []


def test_each_place_that_names_a_metric(codes_of):
    saver = {**SAVER, "metrics": "*", "metric_details": ["val_dice"]}
    keeper = {"_target_": "CheckpointSaver", "save_dir": "x", "save_dict": {}, "key_metric_name": "dice"}
    fault = edit("train", validate__handler_set__scores=saver, train__handler_set__keeper=keeper)
    assert sorted(codes_of(check_metric_names, fault)) == [
        ("metric-unknown", "configs/train.json, train#handler_set#keeper#key_metric_name"),
        ("metric-unknown", "configs/train.json, validate#handler_set#scores#metric_details"),
    ]


def test_metrics_out_of_an_expression_are_not_guessed(codes_of):
    fault = edit("train", validate__handler_set__scores__metrics=["x"], validate__evaluator__additional_metrics="${}")
    assert codes_of(check_metric_names, fault) == []
