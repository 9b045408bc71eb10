"""Keys of overlays and overrides are checked, on a small recipe with everything a bundle has."""

import json

import pytest

from medseg.bundle import config_check
from medseg.config.merge import merge
from medseg.config.references import key_path
from medseg.errors import ConfigError

RECIPE = {
    "lr": 0.1,
    "max_epochs": 5,
    "net": {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": "@classes"},
    "classes": 3,
    "loss": {"_target_": "DiceLoss", "softmax": True},
    "train": {
        "handler_set": {"stats": {"_target_": "StatsHandler", "name": "a"}},
        "handlers": ["%train#handler_set#stats"],
        "trainer": {
            "_target_": "SupervisedTrainer",
            "max_epochs": "@max_epochs",
            "handlers": "$[h for h in @train#handlers]",
        },
    },
    "optimizer": {"_target_": "torch.optim.SGD", "params": "$@net.parameters()", "lr": "@lr"},
}


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(RECIPE))
    return path


def check(recipe, overrides=None, **overlays):
    files = [recipe]
    for name, content in overlays.items():
        files.append(recipe.with_name(f"{name}.json"))
        files[-1].write_text(json.dumps(content))
    merged = merge(files, overrides or {})
    config_check.check(RECIPE, merged, list(overrides or {}))
    return merged


@pytest.mark.parametrize("key", ["lr", "train#trainer#max_epochs", "train::trainer::max_epochs", "net#in_features"])
def test_a_key_that_is_there_may_be_overridden(recipe, key):
    merged = check(recipe, {key: 7})
    for part in key_path(key).split("#"):
        merged = merged[part]
    assert merged == 7


@pytest.mark.parametrize("key", ["net#bias", "train#trainer#accumulation_steps", "loss#batch", "optimizer#momentum"])
def test_an_argument_that_the_component_takes_may_be_added(recipe, key):
    check(recipe, {key: 1})


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("lrr", "lr"),
        ("max_epoch", "max_epochs"),
        ("train#trainer#max_epoch", "train#trainer#max_epochs"),
        ("train.trainer.max_epochs", "train#trainer#max_epochs"),
        ("train#trainr#max_epochs", "train#trainer#max_epochs"),
        ("net#in_feature", "net#in_features"),
        ("optimizer#momentun", "optimizer#momentum"),
        ("train#handler_set#stat#name", "train#handler_set#stats"),
    ],
)
def test_a_mistyped_key_is_refused_with_the_nearest_real_one(recipe, key, near):
    with pytest.raises(ConfigError, match=rf"config key '{key}'.*Did you mean '{near}"):
        check(recipe, {key: 1})
    with pytest.raises(ConfigError, match=rf"Did you mean '{near}"):
        check(recipe, overlay={key: 1})


def test_a_key_like_no_other_is_refused(recipe):
    with pytest.raises(ConfigError, match=r"config key 'xyzzy'.*Remove it, or refer to it"):
        check(recipe, {"xyzzy": 1})


def test_a_new_key_that_something_refers_to_is_accepted(recipe):
    check(recipe, overlay={"momentum": 0.9, "optimizer#momentum": "@momentum"})


def test_an_overlay_may_add_a_handler_and_must_use_it(recipe):
    added = {"train#handler_set#more": {"_target_": "StatsHandler", "anything": {"deep": 1}}}
    used = {**added, "+train#handlers": ["%train#handler_set#more"]}
    assert check(recipe, overlay=used)["train"]["handlers"] == ["%train#handler_set#stats", "%train#handler_set#more"]
    with pytest.raises(ConfigError, match="train#handler_set#more"):
        check(recipe, overlay=added)


def test_an_overlay_may_disable_a_handler(recipe):
    check(recipe, overlay={"train#handler_set#stats#_disabled_": True})


def test_an_overlay_may_exchange_a_component_and_its_arguments_are_checked(recipe):
    check(
        recipe, overlay={"net": {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": 2, "kernel_size": 3}}
    )
    with pytest.raises(ConfigError, match=r"net#kernel_siz.*Did you mean 'net#kernel_size'"):
        check(recipe, overlay={"net": {"_target_": "torch.nn.Conv2d", "in_channels": 1, "kernel_siz": 3}})


def test_later_overlays_win_over_earlier_ones_and_overrides_over_all(recipe):
    assert check(recipe, {"lr": 3}, a={"lr": 1}, b={"lr": 2})["lr"] == 3
    assert check(recipe, a={"lr": 1}, b={"lr": 2})["lr"] == 2


def test_files_are_merged_as_monai_merges_them(recipe):
    from monai.bundle import ConfigParser

    overlay = recipe.with_name("o.json")
    overlay.write_text(
        json.dumps({"lr": 2, "train#trainer#max_epochs": 9, "+train#handlers": ["@x"], "x": 1, "+net": {"bias": 0}})
    )
    merged = merge([recipe, overlay], {"train#trainer#max_epochs": 10})
    parser = ConfigParser()
    parser.read_config([str(recipe), str(overlay)])
    parser.update({"train#trainer#max_epochs": 10})
    wanted = {key: value for key, value in parser.get().items() if key != "_meta_"}
    assert {key: value for key, value in merged.items() if key != "_meta_"} == wanted


def test_an_overlay_that_adds_to_the_wrong_kind_is_refused(recipe):
    with pytest.raises(ConfigError, match=r"\+train#handlers"):
        check(recipe, overlay={"+train#handlers": {"a": 1}})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, r"this file cannot be read \(No such file or directory\)"),
        ("{", "this is no readable JSON file"),
        ('{"a": 1,}', "this is no readable JSON file"),
    ],
)
def test_an_overlay_that_cannot_be_read_names_itself(recipe, text, problem):
    path = recipe.with_name("overlay.json")
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=rf"overlay\.json: {problem}"):
        merge([recipe, path], {})
