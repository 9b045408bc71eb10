"""Flips of paired classes."""

from __future__ import annotations

import pytest

from medseg.bundle.verify import flips
from medseg.bundle.verify.opened import Opened
from tests.bundle.verify.broken import REMOVE, change, edit, flip

PLACE = ("flip-contralaterals", "configs/train.json, train#random#0")


@pytest.mark.parametrize(
    "arguments", [{"spatial_axis": [0, 1]}, {"spatial_axis": "$0"}, {"_target_": "Flipd", "spatial_axis": 0}]
)
def test_left_and_right(found, arguments):
    assert found(flips, flip(**arguments)) == [PLACE]


@pytest.mark.parametrize(
    "arguments", [{"spatial_axis": 1}, {"spatial_axis": 0, "prob": 0}, {"spatial_axis": 0, "_disabled_": True}]
)
def test_others(found, arguments):
    assert found(flips, flip(**arguments)) == []


def test_the_axis_is_that_of_the_orientation(found):
    assert found(flips, edit("train", deterministic__2__axcodes="PLS"), flip(spatial_axis=0)) == []
    assert found(flips, flip(spatial_axis=1)) == [PLACE]


def test_classes_without_a_twin_may_be_flipped(plain):
    names = {"0": "background", "1": "liver", "2": "spleen", "3": "kidney_left"}
    change(plain, "metadata", network_data_format__outputs__pred__channel_def=names)
    for config in ("train", "evaluate", "inference"):
        change(plain, config, labels="$medseg.LabelMap(['liver', 'spleen', 'kidney_left'])")
    flip(spatial_axis=0)(plain)
    assert list(flips.check(Opened(plain))) == []


def test_names_in_other_spellings_are_twins(plain):
    names = {"0": "background", "1": "Left Kidney", "2": "Right Kidney"}
    change(plain, "metadata", network_data_format__outputs__pred__channel_def=names)
    assert flips.contralaterals(Opened(plain)) is not None


def test_where_the_axis_is_not_known_it_is_a_warning(plain):
    change(plain, "train", deterministic__2=REMOVE)
    (one,) = flips.check(Opened(plain))
    assert one.severity == "warning"


def test_windows_that_inference_turns_round(found):
    inferer = {"_target_": "medseg.inference.StreamingInferer", "roi_size": [32, 32], "flips": [[0], [0, 1]]}
    location = ("flip-contralaterals", "configs/inference.json, inferer#flips")
    assert found(flips, edit("inference", inferer=inferer)) == [location]
    assert found(flips, edit("inference", inferer={**inferer, "flips": [[1]]})) == []
    assert found(flips, edit("inference", inferer={**inferer, "contralaterals": "$@labels.mirror_permutation()"})) == []
