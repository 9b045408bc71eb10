"""Places, cases and trackers leave a config; what means the same everywhere stays."""

import json
from pathlib import Path

import pytest

from medseg.bundle.share.privacy import without_places
from medseg.errors import ConfigError

SOURCE = Path("train.json")
BUNDLES = Path(__file__).resolve().parents[3] / "bundles"


@pytest.mark.parametrize(
    "value",
    [
        "/data/totalseg",
        "~/data",
        "C:\\data",
        "\\\\server\\share",
        "s3://bucket/data",
        "file:///data",
        "D:/x",
        "file:/home/joe",
        "--data=/home/joe/x",
        "~joe/x",
        "../hospital/John_Doe",
        "as in /home/joe/x",
        "%/home/joe/a.json#b",
    ],
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
        "$[one / 2 for one in @spacing]",
        "and/or, mm/pixel, 1/2",
        "%configs/other.json#a",
        "(case)(\\d+)",
        "\\w+",
        0.5,
        None,
        True,
    ],
)
def test_what_means_the_same_everywhere_stays(value):
    assert without_places({"key": value}, SOURCE) == ({"key": value}, [])


@pytest.mark.parametrize("text", [
        "/tmp/masks", "~/masks", "C:\\masks", "/home/somebody/x", "s3://bucket/joe", "\\\\server\\joe", b"/home/joe",
        "--data=/home/joe/x", "~joe/x", "see /home/joe/x", "../hospital/joe",
    ],
)  # fmt: skip
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


def test_what_says_where_data_lie_goes_in_any_form():
    config = {
        "dataset_dir": "hospital/John_Doe",
        "backup": "$'John_Doe'",
        "train#datalist": "joe.json",
        "data_dir": "@x",
    }
    cleaned, taken = without_places(config, SOURCE)
    assert cleaned == {"dataset_dir": None, "backup": None, "train#datalist": None, "data_dir": "@x"}
    assert taken == ["backup", "dataset_dir", "train#datalist"]


def test_a_name_that_somebody_gave_the_run_goes():
    assert without_places({"run_name": "john doe"}, SOURCE) == ({"run_name": None}, ["run_name"])
    expression = {"run_name": "$'bs%d-lr%g' % (@batch_size, @lr)"}
    assert without_places(expression, SOURCE) == (expression, [])


def test_cases_go_wherever_they_stand():
    config = {
        "only": ["miller", "smith"],
        "exclude": ["anybody"],
        "cases": ["else"],
        "one": "miller",
        "axes": ["a", "b"],
    }
    cleaned, taken = without_places(config, SOURCE, ["miller", "smith", "jones"])
    assert cleaned == {"only": None, "exclude": None, "cases": None, "one": None, "axes": ["a", "b"]}
    assert taken == ["cases", "exclude", "one", "only"]
    with pytest.raises(ConfigError, match=r"train\.json, a: must not name a case .*'jones'"):
        without_places({"a": "$[one for one in @ids if one != 'jones']"}, SOURCE, ["jones"])


@pytest.mark.parametrize("key", ["/home/joe/k", "miller"])
def test_a_key_that_names_a_place_or_a_case_is_refused(key):
    with pytest.raises(ConfigError, match=r"must name no (place|case)"):
        without_places({"weights": {key: 1}}, SOURCE, ["miller"])


@pytest.mark.parametrize(
    "path", sorted(BUNDLES.glob("*/configs/*.json")), ids=lambda path: f"{path.parts[-3]}-{path.stem}"
)
def test_of_our_own_recipes_nothing_goes_but_names_of_runs_and_cases(path):
    if path.stem != "metadata":
        _, taken = without_places(json.loads(path.read_text()), path)
        assert not {one for one in taken if one.partition("#")[0] not in ("run_name", "split", "exclude", "monitor")}
