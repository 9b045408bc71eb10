"""Training, evaluation and inference side by side."""

from __future__ import annotations

from medseg.bundle.verify import agreement
from medseg.bundle.verify.opened import Opened
from tests.bundle.verify.broken import SMOOTH, change, edit


def test_a_default_that_is_written_out_is_no_difference(found):
    assert (
        found(agreement, edit("inference", network_def__kernel_size=3, preprocessing__transforms__3__diagonal=False))
        == []
    )


def test_what_a_network_begins_with_is_no_difference(found):
    fault = edit("train", network_def__dropout=0.5)
    assert found(agreement, fault) == []


def test_crops_are_notes(plain):
    crop = {"_target_": "CropForegroundd", "keys": ["image", "label"], "source_key": "image"}
    change(plain, "train", deterministic=lambda there: [*there, crop])
    found = list(agreement.check(Opened(plain)))
    assert {(one.severity, one.code) for one in found} == {("note", "preprocessing-crop")}


def test_a_step_that_may_be_off_may_be_missing_or_there(plain):
    maybe = {**SMOOTH, "_disabled_": "$len(@validate#dataset) > 0"}
    change(plain, "train", deterministic=lambda there: [*there, maybe])
    for config in ("evaluate", "inference"):
        assert {one.code for one in agreement.check(Opened(plain))} == set()
        change(plain, config, preprocessing__transforms=lambda there: [*there, SMOOTH])
    assert {one.code for one in agreement.check(Opened(plain))} == set()


def test_the_order_counts_and_an_argument_is_named(plain):
    change(plain, "inference", preprocessing__transforms__4__b_max=255)
    (one,) = agreement.check(Opened(plain))
    assert one.location == "configs/inference.json, preprocessing#transforms#4#b_max"
    assert "255" in one.message
    assert "1.0" in one.message


def test_without_training_evaluation_and_inference_are_compared(plain):
    (plain / "configs" / "train.json").unlink()
    change(plain, "inference", spacing=[1.0, 1.0])
    assert [one.location for one in agreement.check(Opened(plain))] == [
        "configs/inference.json, preprocessing#transforms#3#pixdim"
    ]
