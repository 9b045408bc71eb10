"""Places, cases and trackers leave a config; what means the same everywhere stays."""

from pathlib import Path

import pytest

from medseg.bundle.packing.privacy import without_places
from medseg.errors import ConfigError

SOURCE = Path("train.json")


@pytest.mark.parametrize(
    "value",
    ["/data/totalseg", "~/data", "C:\\data", "\\\\server\\share", "s3://bucket/data", "file:///data", "D:/x"],
)
def test_a_place_becomes_null_wherever_it_stands(value):
    config = {"dataset_dir": value, "a": {"b": {"folder": value}}, "files": ["x.json", value]}
    cleaned, taken = without_places(config, SOURCE)
    assert cleaned == {"dataset_dir": None, "a": {"b": {"folder": None}}, "files": ["x.json", None]}
    assert taken == ["a#b#folder", "dataset_dir", "files"]


@pytest.mark.parametrize(
    "value",
    [
        "$@bundle_root + '/models/model.pt'",
        "$@output_dir + '/.cache'",
        "$import torch",
        "@dataset_dir",
        "%train#handler_set#x",
        "$'a/b' in @names",
        "models/model.pt",
        "liver",
        "$lambda x: x / 2",
        "$print('/')",
        0.5,
        None,
        True,
    ],
)
def test_what_means_the_same_everywhere_stays(value):
    assert without_places({"key": value}, SOURCE) == ({"key": value}, [])


@pytest.mark.parametrize("text", ["/tmp/masks", "~/masks", "C:\\masks", "/home/somebody/x"])
def test_an_expression_with_a_place_of_this_machine_is_refused(text):
    with pytest.raises(ConfigError, match=r"train\.json, a#b: must not name a place on this machine"):
        without_places({"a": {"b": f"$str({text!r})"}}, SOURCE)


def test_names_of_cases_go(tmp_path):
    cleaned, taken = without_places({"split": {"train": ["miller"], "val": None, "test": []}}, SOURCE)
    assert cleaned == {"split": {"train": None, "val": None, "test": None}}
    assert taken == ["split#train"]
    assert without_places({"split": ["miller"]}, SOURCE) == ({"split": None}, ["split"])
    overlay = {"split#train": ["miller"], "split::val": ["smith"], "split": "@other", "monitor#name": "miller"}
    cleaned, taken = without_places(overlay, SOURCE)
    assert cleaned == {"split#train": None, "split::val": None, "split": None, "monitor#name": None}
    assert taken == ["monitor#name", "split", "split#train", "split#val"]


def test_of_a_tracker_only_what_names_nobody_stays():
    monitor = {"backend": "wandb", "project": "secret", "tags": ["miller"], "notes": None, "images": True}
    cleaned, taken = without_places({"monitor": monitor}, SOURCE)
    assert cleaned["monitor"] == {"backend": "wandb", "project": None, "tags": [], "notes": None, "images": True}
    assert taken == ["monitor#project", "monitor#tags"]
