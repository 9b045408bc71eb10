"""Metadata against itself."""

from __future__ import annotations

from medseg.bundle.verify import described
from tests.bundle.verify.broken import CHANNELS, edit

PLACE = "configs/metadata.json, network_data_format#outputs#pred#channel_def"


def test_channels_must_be_numbered_from_0_on(found):
    assert found(described, edit("metadata", **{f"{CHANNELS}__channel_def": {"1": "a", "0": "b"}})) == [
        ("channel-def", PLACE)
    ]


def test_independent_channels_have_none_for_the_background(found):
    assert found(described, edit("metadata", **{f"{CHANNELS}__num_channels": 3})) == []


def test_one_channel_may_hold_the_numbers_of_all_classes(found):
    assert found(described, edit("metadata", **{f"{CHANNELS}__num_channels": 1})) == []


def test_a_name_twice_is_a_warning(found):
    fault = edit("metadata", **{f"{CHANNELS}__channel_def__2": "liver"})
    assert found(described, fault) == [("channel-def", PLACE)]


def test_a_changelog_is_needed(found):
    location = "configs/metadata.json, changelog"
    assert found(described, edit("metadata", changelog={})) == [
        ("metadata-schema", location),
        ("version-changelog", location),
    ]
