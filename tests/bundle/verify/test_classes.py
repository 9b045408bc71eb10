"""Classes by their numbers, and flips of paired ones."""

from __future__ import annotations

import pytest

from medseg.bundle.verify.bundle_files import BundleFiles
from medseg.bundle.verify.classes import check_classes, check_flips, contralateral_pair
from tests.bundle.verify.broken import CHANNELS, REMOVE, change, edit, flip


def test_independent_channels_leave_out_the_background(codes_of):
    names = {"0": "liver", "1": "kidney_left", "2": "kidney_right"}
    assert codes_of(check_classes, edit("metadata", **{f"{CHANNELS}__channel_def": names})) == []


def test_a_class_that_only_one_file_has(codes_of, plain):
    fault = edit("metadata", **{f"{CHANNELS}__channel_def__1": "spleen"})
    assert codes_of(check_classes, fault) == [
        ("label-names", "configs/metadata.json, network_data_format#outputs#pred#channel_def")
    ]


def test_lists_of_files_are_not_classes(codes_of):
    assert (
        codes_of(check_classes, edit("train", labels="$sorted(['b', 'a'])"), edit("inference", labels="$1 / 0")) == []
    )


FLIP = ("flip-contralaterals", "configs/train.json, train#random#0")


@pytest.mark.parametrize(
    "arguments", [{"spatial_axis": [0, 1]}, {"spatial_axis": "$0"}, {"_target_": "Flipd", "spatial_axis": 0}]
)
def test_flips_of_left_and_right(codes_of, arguments):
    assert codes_of(check_flips, flip(**arguments)) == [FLIP]


@pytest.mark.parametrize(
    "arguments", [{"spatial_axis": 1}, {"spatial_axis": 0, "prob": 0}, {"spatial_axis": 0, "_disabled_": True}]
)
def test_flips_that_are_allowed(codes_of, arguments):
    assert codes_of(check_flips, flip(**arguments)) == []


def test_the_axis_is_that_of_the_orientation(codes_of):
    assert codes_of(check_flips, edit("train", deterministic__2__axcodes="PLS"), flip(spatial_axis=0)) == []
    assert codes_of(check_flips, flip(spatial_axis=1)) == [FLIP]


def test_classes_without_a_contralateral_may_be_flipped(plain):
    names = {"0": "background", "1": "liver", "2": "spleen", "3": "kidney_left"}
    change(plain, "metadata", network_data_format__outputs__pred__channel_def=names)
    for config in ("train", "evaluate", "inference"):
        change(plain, config, labels="$medseg.LabelMap(['liver', 'spleen', 'kidney_left'])")
    flip(spatial_axis=0)(plain)
    assert list(check_flips(BundleFiles(plain))) == []


def test_contralaterals_are_found_in_other_spellings(plain):
    names = {"0": "background", "1": "Left Kidney", "2": "Right Kidney"}
    change(plain, "metadata", network_data_format__outputs__pred__channel_def=names)
    assert contralateral_pair(BundleFiles(plain)) is not None


def test_where_the_axis_is_not_known_it_is_a_warning(plain):
    change(plain, "train", deterministic__2=REMOVE)
    (finding,) = check_flips(BundleFiles(plain))
    assert finding.severity == "warning"


def test_flips_of_the_inferer(codes_of):
    inferer = {"_target_": "medseg.inference.StreamingInferer", "roi_size": [32, 32], "flips": [[0], [0, 1]]}
    location = ("flip-contralaterals", "configs/inference.json, inferer#flips")
    assert codes_of(check_flips, edit("inference", inferer=inferer)) == [location]
    assert codes_of(check_flips, edit("inference", inferer={**inferer, "flips": [[1]]})) == []
    assert (
        codes_of(check_flips, edit("inference", inferer={**inferer, "contralaterals": "$@labels.mirror_permutation()"}))
        == []
    )
    assert codes_of(check_flips, edit("inference", inferer={**inferer, "labels": "@labels"})) == []
