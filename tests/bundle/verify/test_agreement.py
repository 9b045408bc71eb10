"""Training, evaluation and inference side by side, step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medseg.bundle.verify.agreement import check_agreement
from medseg.bundle.verify.bundle_files import BundleFiles
from medseg.bundle.verify.chains import Unknown, arguments, chain, plain
from tests.bundle.verify.broken import SMOOTH, change, edit


def test_an_explicit_default_is_not_a_difference(codes_of):
    assert (
        codes_of(
            check_agreement, edit("inference", network_def__kernel_size=3, preprocessing__transforms__3__diagonal=False)
        )
        == []
    )


def test_dropout_is_not_an_architecture_difference(codes_of):
    fault = edit("train", network_def__dropout=0.5)
    assert codes_of(check_agreement, fault) == []


def test_crops_are_notes(plain):
    crop = {"_target_": "CropForegroundd", "keys": ["image", "label"], "source_key": "image"}
    change(plain, "train", deterministic=lambda current: [*current, crop])
    findings = list(check_agreement(BundleFiles(plain)))
    assert {(finding.severity, finding.code) for finding in findings} == {("note", "preprocessing-crop")}


def test_an_optional_step_may_be_missing_or_present(plain):
    maybe = {**SMOOTH, "_disabled_": "$len(@validate#dataset) > 0"}
    change(plain, "train", deterministic=lambda current: [*current, maybe])
    for config in ("evaluate", "inference"):
        assert {finding.code for finding in check_agreement(BundleFiles(plain))} == set()
        change(plain, config, preprocessing__transforms=lambda current: [*current, SMOOTH])
    assert {finding.code for finding in check_agreement(BundleFiles(plain))} == set()


def test_the_order_counts_and_an_argument_is_named(plain):
    change(plain, "inference", preprocessing__transforms__4__b_max=255)
    (finding,) = check_agreement(BundleFiles(plain))
    assert finding.location == "configs/inference.json, preprocessing#transforms#4#b_max"
    assert "255" in finding.message
    assert "1.0" in finding.message


def test_without_training_evaluation_and_inference_are_compared(plain):
    (plain / "configs" / "train.json").unlink()
    change(plain, "inference", spacing=[1.0, 1.0])
    assert [finding.location for finding in check_agreement(BundleFiles(plain))] == [
        "configs/inference.json, preprocessing#transforms#3#pixdim"
    ]


NAMES = ["LoadImage", "Orientation", "Spacing", "ScaleIntensityRange"]


def names(root, config="train", dataset="train#dataset", engine=""):
    return [step.name for step in chain(BundleFiles(root), config, dataset, engine)]


def test_random_steps_types_and_labels_are_left_out(plain):
    more = [
        {"_target_": "EnsureTyped", "keys": "image"},
        {"_target_": "CropForegroundd", "keys": ["label"], "source_key": "label"},
    ]
    change(plain, "train", deterministic=lambda current: [*current, *more])
    assert names(plain) == NAMES


def test_a_list_per_key_gives_the_value_of_the_image(plain):
    steps = chain(BundleFiles(plain), "train", "train#dataset")
    assert steps[2].arguments["mode"] == "bilinear"
    assert steps[2].arguments["pixdim"] == [1.5, 1.5]
    assert steps[2].arguments["diagonal"] is False  # a default


def test_disabled_steps_are_left_out_and_optional_ones_marked(plain):
    smooth = {"_target_": "GaussianSmoothd", "keys": "image", "sigma": 1.0}
    change(plain, "train", deterministic=lambda current: [*current, {**smooth, "_disabled_": True}])
    assert names(plain) == NAMES
    change(
        plain, "train", deterministic=lambda current: [*current[:-1], {**smooth, "_disabled_": "$@val_interval > 0"}]
    )
    assert names(plain) == NAMES
    change(
        plain,
        "train",
        deterministic=lambda current: [*current[:-1], {**smooth, "_disabled_": "$len(@validate#dataset)"}],
    )
    assert names(plain) == [*NAMES, "GaussianSmooth"]
    assert chain(BundleFiles(plain), "train", "train#dataset")[-1].optional


def test_the_chain_is_read_in_any_form(plain):
    change(plain, "train", train__preprocessing__transforms="$[t for t in @deterministic[:] + @train#random if t]")
    assert names(plain) == NAMES
    change(
        plain,
        "train",
        train__preprocessing__transforms=["@deterministic", {"_target_": "Compose", "transforms": "@train#random"}],
    )
    assert names(plain) == NAMES
    change(
        plain,
        "train",
        train__dataset={"_target_": "medseg.training.SeededDataset", "dataset": "@validate#dataset", "seed": 0},
    )
    assert names(plain) == NAMES


def test_batch_transforms_are_steps_too(plain):
    standard = "$monai.transforms.NormalizeIntensity(@spacing, divisor=[2.0, 2.0]).batch"
    change(plain, "train", train__trainer__prepare_batch={"_target_": "medseg.training.PrepareBatch", "then": standard})
    last = chain(BundleFiles(plain), "train", "train#dataset", "train#trainer")[-1]
    assert last.name == "NormalizeIntensity"
    assert last.arguments["subtrahend"] == [1.5, 1.5]
    assert last.arguments["divisor"] == [2.0, 2.0]


def test_without_a_dataset_the_chain_is_empty(plain):
    assert names(plain, dataset="nothing#dataset") == []


def test_unknown_arguments_stay_as_written(plain):
    change(plain, "train", loss__weight="$len(@train#dataset)")
    findings = arguments(BundleFiles(plain), "train", "loss")["weight"]
    assert isinstance(findings, Unknown)
    assert "len" in findings


@pytest.mark.parametrize(
    ("value", "expected"),
    [((1, 2.0), [1.0, 2.0]), (np.array([1, 2]), [1.0, 2.0]), (torch.float32, "torch.float32"),
     ({1: (2,)}, {"1": [2.0]}),
     (True, True), (None, None), (len, "len")],
)  # fmt: skip
def test_values_that_mean_the_same_are_equal(value, expected):
    assert plain(value) == expected
