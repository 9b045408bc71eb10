"""Paths, cases and trackers leave a config; private texts are found by file and line."""

from __future__ import annotations

import getpass
import json
import logging
import platform
from pathlib import Path

import pytest

from medseg.bundle.share.sanitize import PrivateText, check_leaks, private_texts, sanitize_config
from medseg.errors import ConfigError, DataError

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
def test_a_path_becomes_null_anywhere_in_a_config(value):
    config = {"dataset_dir": value, "a": {"b": {"folder": value}}, "files": ["x.json", value]}
    cleaned, taken = sanitize_config(config, SOURCE)
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
def test_public_values_stay(value):
    assert sanitize_config({"key": value}, SOURCE) == ({"key": value}, [])


@pytest.mark.parametrize("text", [
        "/tmp/masks", "~/masks", "C:\\masks", "/home/somebody/x", "s3://bucket/joe", "\\\\server\\joe", b"/home/joe",
        "--data=/home/joe/x", "~joe/x", "see /home/joe/x", "../hospital/joe",
    ],
)  # fmt: skip
def test_an_expression_with_a_local_path_is_refused(text):
    with pytest.raises(ConfigError, match=r"train\.json, a#b: the expression names a path on this machine"):
        sanitize_config({"a": {"b": f"$str({text!r})"}}, SOURCE)


def test_split_lists_are_removed(tmp_path):
    cleaned, taken = sanitize_config({"split": {"train": ["miller"], "val": None, "test": []}}, SOURCE)
    assert cleaned == {"split": {"train": None, "val": None, "test": None}}
    assert taken == ["split#train"]
    assert sanitize_config({"split": ["miller"]}, SOURCE) == ({"split": None}, ["split"])
    overlay = {"split#train": ["miller"], "split::val": ["smith"], "split": "@other", "monitor#name": "miller"}
    cleaned, taken = sanitize_config(overlay, SOURCE)
    assert cleaned == {"split#train": None, "split::val": None, "split": None, "monitor#name": None}
    assert taken == ["monitor#name", "split", "split#train", "split#val"]


def test_case_lists_in_a_component_are_removed():
    data = {"_target_": "medseg.data.open_dataset", "exclude": ["smith"], "root": "@dataset_dir"}
    sanitized, removed = sanitize_config({"data": {**data, "split": {"train": ["miller"], "val": None}}}, SOURCE)
    assert sanitized == {"data": {**data, "exclude": None, "split": {"train": None, "val": None}}}
    assert removed == ["data#exclude", "data#split#train"]
    references = {"data": {**data, "exclude": "@exclude", "split": "$@split"}}
    assert sanitize_config(references, SOURCE) == (references, [])
    overlay = {"data#split#train": ["miller"]}
    assert sanitize_config(overlay, SOURCE) == ({"data#split#train": None}, ["data#split#train"])


def test_private_tracker_settings_are_removed():
    monitor = {"backend": "wandb", "project": "secret", "tags": ["miller"], "notes": None, "images": True}
    cleaned, taken = sanitize_config({"monitor": monitor}, SOURCE)
    assert cleaned["monitor"] == {"backend": "wandb", "project": None, "tags": [], "notes": None, "images": True}
    assert taken == ["monitor#project", "monitor#tags"]


def test_data_paths_are_removed_in_any_form():
    config = {
        "dataset_dir": "hospital/John_Doe",
        "backup": "$'John_Doe'",
        "train#datalist": "joe.json",
        "data_dir": "@x",
    }
    cleaned, taken = sanitize_config(config, SOURCE)
    assert cleaned == {"dataset_dir": None, "backup": None, "train#datalist": None, "data_dir": "@x"}
    assert taken == ["backup", "dataset_dir", "train#datalist"]


def test_a_custom_run_name_is_removed():
    assert sanitize_config({"run_name": "john doe"}, SOURCE) == ({"run_name": None}, ["run_name"])
    expression = {"run_name": "$'bs%d-lr%g' % (@batch_size, @lr)"}
    assert sanitize_config(expression, SOURCE) == (expression, [])


def test_case_names_are_removed_anywhere():
    config = {
        "only": ["miller", "smith"],
        "exclude": ["anybody"],
        "cases": ["else"],
        "one": "miller",
        "axes": ["a", "b"],
    }
    cleaned, taken = sanitize_config(config, SOURCE, ["miller", "smith", "jones"])
    assert cleaned == {"only": None, "exclude": None, "cases": None, "one": None, "axes": ["a", "b"]}
    assert taken == ["cases", "exclude", "one", "only"]
    with pytest.raises(ConfigError, match=r"train\.json, a: the expression names a case .*'jones'"):
        sanitize_config({"a": "$[one for one in @ids if one != 'jones']"}, SOURCE, ["jones"])


@pytest.mark.parametrize("key", ["/home/joe/k", "miller"])
def test_a_key_that_is_a_path_or_a_case_is_refused(key):
    with pytest.raises(ConfigError, match=r"the key is (a path on this machine|the name of a case)"):
        sanitize_config({"weights": {key: 1}}, SOURCE, ["miller"])


@pytest.mark.parametrize(
    "path", sorted(BUNDLES.glob("*/configs/*.json")), ids=lambda path: f"{path.parts[-3]}-{path.stem}"
)
def test_our_recipes_keep_everything_but_runs_and_cases(path):
    if path.stem != "metadata":
        _, taken = sanitize_config(json.loads(path.read_text()), path)
        assert not {
            entry for entry in taken if entry.partition("#")[0] not in ("run_name", "split", "exclude", "monitor")
        }


def test_private_texts_are_of_this_machine_and_the_cases(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/joe"))
    monkeypatch.setattr(getpass, "getuser", lambda: "joe")
    monkeypatch.setattr(platform, "node", lambda: "ward7-pc")
    monkeypatch.chdir(tmp_path)
    texts = {word.text: word.certain for word in private_texts(["miller", "012", "p1"])}
    assert texts == {
        "/home/joe": True,
        str(tmp_path): True,
        "joe": False,
        "ward7-pc": False,
        "miller": True,
        "012": False,
    }
    monkeypatch.setattr(getpass, "getuser", lambda: "root")
    monkeypatch.setattr(Path, "home", lambda: Path("/root"))
    assert not {"root", "/root"} & {word.text for word in private_texts()}


@pytest.mark.parametrize(
    "name", ["LICENSE", "docs/README.md", "docs/a.txt", "configs/logging.conf", "configs/metadata.json"]
)
def test_a_case_or_a_folder_is_refused_with_file_and_line(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("first\nas s0042 shows\n")
    with pytest.raises(DataError, match=rf"{name}, line 2: a case's name, 's0042'"):
        check_leaks(tmp_path, [PrivateText("s0042", "a case's name", True)])
    check_leaks(tmp_path, [PrivateText("s004", "a case's name", True)])
    check_leaks(tmp_path, [PrivateText("s0042", "a case's name", True)], ["s0042"])


def test_uncertain_private_texts_are_warnings(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    (tmp_path / "a.md").write_text("by joe, who enjoyed it")
    (tmp_path / "a.png").write_bytes(b"joe")
    check_leaks(tmp_path, [PrivateText("joe", "your user name", False)])
    assert [entry.getMessage() for entry in caplog.records] == [
        "a.md, line 1: your user name, 'joe'. Check that it may be shared."
    ]


def test_a_case_name_in_a_config_is_only_a_warning(tmp_path, caplog):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.json").write_text('{"train": 1}')
    check_leaks(tmp_path, [PrivateText("train", "a case's name", True)])
    assert "line 1" in caplog.text
