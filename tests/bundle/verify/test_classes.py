"""Classes by their numbers."""

from __future__ import annotations

from medseg.bundle.verify import classes
from tests.bundle.verify.broken import CHANNELS, edit


def test_independent_channels_leave_out_the_background(found):
    names = {"0": "liver", "1": "kidney_left", "2": "kidney_right"}
    assert found(classes, edit("metadata", **{f"{CHANNELS}__channel_def": names})) == []


def test_a_name_that_only_one_has_is_said(found, plain):
    fault = edit("metadata", **{f"{CHANNELS}__channel_def__1": "spleen"})
    assert found(classes, fault) == [
        ("label-names", "configs/metadata.json, network_data_format#outputs#pred#channel_def")
    ]


def test_lists_of_files_are_no_classes(found):
    assert found(classes, edit("train", labels="$sorted(['b', 'a'])"), edit("inference", labels="$1 / 0")) == []
