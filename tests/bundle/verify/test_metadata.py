"""Metadata against its schema and itself, and packages against those installed."""

from __future__ import annotations

import copy
import importlib.metadata
import sys

import jsonschema
import pytest
from packaging.version import Version

from medseg.bundle.verify import check_bundle, metadata
from medseg.bundle.verify.bundle_files import BundleFiles
from medseg.bundle.verify.metadata import SCHEMA, check_metadata, check_packages, metadata_schema, schema_errors
from medseg.config.paths import at
from medseg.errors import MissingExtraError
from tests.bundle.verify.broken import CHANNELS, METADATA, NAMES, change, edit, network_data_format

CHANNEL_DEF = "configs/metadata.json, network_data_format#outputs#pred#channel_def"


def test_channels_must_be_numbered_from_0_on(codes_of):
    assert codes_of(check_metadata, edit("metadata", **{f"{CHANNELS}__channel_def": {"1": "a", "0": "b"}})) == [
        ("channel-def", CHANNEL_DEF)
    ]


def test_independent_channels_have_none_for_the_background(codes_of):
    assert codes_of(check_metadata, edit("metadata", **{f"{CHANNELS}__num_channels": 3})) == []


def test_one_channel_may_hold_the_numbers_of_all_classes(codes_of):
    assert codes_of(check_metadata, edit("metadata", **{f"{CHANNELS}__num_channels": 1})) == []


def test_a_repeated_channel_name_is_a_warning(codes_of):
    fault = edit("metadata", **{f"{CHANNELS}__channel_def__2": "liver"})
    assert codes_of(check_metadata, fault) == [("channel-def", CHANNEL_DEF)]


def test_a_changelog_is_needed(codes_of):
    location = "configs/metadata.json, changelog"
    assert codes_of(check_metadata, edit("metadata", changelog={})) == [
        ("metadata-schema", location),
        ("version-changelog", location),
    ]


def check(plain, expected, key="required_packages_version"):
    change(plain, "metadata", **{key: expected})
    return [(finding.severity, finding.code) for finding in check_packages(BundleFiles(plain))]


@pytest.mark.parametrize(
    ("installed", "expected", "severity"),
    [("10.1.0", "9.5.0", None), ("1.10.0", "1.9.0", None), ("2.13.0+cpu", "2.13.0", None), ("1.6.1", "1.6.1", None),
     ("1.6.1", "1.6.2", "warning"), ("1.6.1", "1.7.0", "error"), ("1.9.0", "1.10.0", "error"),
     ("2.0rc1", "2.0", "warning")],
)  # fmt: skip
def test_versions_are_compared_as_versions(plain, monkeypatch, installed, expected, severity):
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: installed if name == "nibabel" else real(name))
    assert check(plain, {"nibabel": expected}) == ([(severity, "package-old")] if severity else [])


def test_optional_packages_are_never_errors(plain):
    findings = check(plain, {"nosuch": "1.0", "nibabel": "99.0"}, "optional_packages_version")
    assert findings == [("note", "package-missing"), ("warning", "package-old")]


@pytest.mark.parametrize(
    ("name", "distribution"), [("pytorch", "torch"), ("PIL", "pillow"), ("ignite", "pytorch-ignite")]
)
def test_a_package_is_found_by_both_of_its_names(name, distribution):
    assert metadata.installed(name) == Version(importlib.metadata.version(distribution))


def test_the_extra_that_brings_a_package_is_named(plain, monkeypatch):
    monkeypatch.setattr(metadata, "installed", lambda name: None if name == "transformers" else Version("99"))
    change(plain, "metadata", required_packages_version={"transformers": "5.12.0"})
    (finding,) = check_packages(BundleFiles(plain))
    assert finding.fix == "pip install 'medseg[segformer]'"


GOOD = {**METADATA, "network_data_format": network_data_format(1, NAMES, ["32*n", "2**p", 96, "*"])}


def test_the_schema_is_valid_and_ships_beside_the_code():
    jsonschema.Draft202012Validator.check_schema(metadata_schema())
    assert SCHEMA.name == "metadata_schema.json"
    assert schema_errors(GOOD) == []


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("version", 1, "1 is not of type 'string'"),
        ("task", "", "'' should be non-empty"),
        ("network_data_format#outputs", {}, "{} should be non-empty"),
        ("network_data_format#inputs#image#num_channels", 0, "0 is less than the minimum of 1"),
        ("network_data_format#inputs#image#value_range", [0, 1, 2], "[0, 1, 2] is too long"),
        ("network_data_format#inputs#image#spatial_shape#0", "exec(x)", "not valid under any of the given schemas"),
        ("network_data_format#outputs#pred#dtype", ["x" * 99], f"['{'x' * 58}... is not of type 'string'"),
    ],
)
def test_a_schema_error_has_its_path(path, value, message):
    content = copy.deepcopy(GOOD)
    above, _, leaf = path.rpartition("#")
    holder = at(content, above)
    holder[int(leaf) if isinstance(holder, list) else leaf] = value
    ((location, text), *_) = schema_errors(content)
    assert location == path
    assert message in text


def test_a_missing_entry_is_named_by_its_own_path():
    content = copy.deepcopy(GOOD)
    del content["network_data_format"]["inputs"]["image"]["num_channels"]
    ((location, text),) = schema_errors(content)
    assert location == "network_data_format#inputs#image#num_channels"
    assert text == "'num_channels' is a required property"


def test_without_jsonschema_one_line_names_the_extra(monkeypatch, plain):
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'medseg\[share\]'"):
        check_bundle(plain)
