"""The table of keys, and the check of the values of a config before anything starts."""

import json
import math
from pathlib import Path

import pytest

from medseg.config.check import check_keys
from medseg.config.keys import check_values, common_keys, keys_of, meant_key, wording
from medseg.config.merge import merge
from medseg.config.paths import walk
from medseg.errors import ConfigError
from medseg.search_path import METADATA, USES, bundles, find_overlay, overlays

BUNDLES = ("unet2d", "segformer2d")


def config_of(bundle, use="train", overlay=(), **overrides):
    root = bundles()[bundle]
    files = [root / f"configs/{use}.json", *(find_overlay(name, root) for name in overlay)]
    metadata = json.loads((root / METADATA).read_text(encoding="utf-8"))
    return merge(files, {key.replace("__", "#"): value for key, value in overrides.items()}), metadata


def refusal(bundle="unet2d", **changes):
    config, metadata = config_of(bundle, **changes)
    with pytest.raises(ConfigError) as raised:
        check_values(config, metadata)
    return str(raised.value)


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("use", USES)
def test_the_recipes_and_each_of_their_overlays_pass(bundle, use):
    check_values(*config_of(bundle, use))
    if use == "train":
        for name in overlays(bundles()[bundle]):
            check_values(*config_of(bundle, overlay=[name]))


@pytest.mark.parametrize("value", ["two", -1, 0, 1.5, 2.0, True, None, [3], math.nan, 10**9])
def test_epochs_are_a_whole_number(value):
    assert refusal(max_epochs=value).startswith("max_epochs: use a whole number from 1 to 1000000 (got ")


@pytest.mark.parametrize("value", ["abc", 0, -0.1, math.nan, math.inf, 1e9, True, None, [0.1]])
def test_a_learning_rate_is_above_0(value):
    assert refusal(lr=value).startswith("lr: use a number above 0 and up to 10 (got ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size: use a whole number from 1 to 65536 (got 0)."),
        ({"patch_size": 256}, "patch_size: use a list of 2 whole numbers from 16 to 4096 (got 256)."),
        ({"patch_size": [64]}, "patch_size: use a list of 2 whole numbers from 16 to 4096 (got [64])."),
        ({"patch_size": [64, 64.5]}, "patch_size: use a list of 2 whole numbers from 16 to 4096 (got [64, 64.5])."),
        ({"spacing": [1.5, 1.5]}, "spacing: use a list of 3 numbers from 0.01 to 100 or -1 (got [1.5, 1.5])."),
        ({"spacing": [1.5, 0, -1]}, "spacing: use a list of 3 numbers from 0.01 to 100 or -1 (got [1.5, 0, -1])."),
        ({"spacing": [1.5, -2, -1]}, "spacing: use a list of 3 numbers from 0.01 to 100 or -1 (got [1.5, -2, -1])."),
        ({"val_interval": 0}, "val_interval: use a whole number from 1 on (got 0)."),
        ({"num_workers": -1}, "num_workers: use a whole number from 0 to 1024 (got -1)."),
        ({"accumulation_steps": 0.5}, "accumulation_steps: use a whole number from 1 on (got 0.5)."),
        ({"samples_per_case": "all"}, 'samples_per_case: use a whole number from 1 on (got "all").'),
        ({"seed": -1}, "seed: use a whole number from 0 to 4294967295 (got -1)."),
        ({"context": 1.5}, "context: use a whole number from 0 to 32 (got 1.5)."),
        ({"multilabel": "yes"}, 'multilabel: use true or false (got "yes").'),
        ({"structures": []}, "structures: use a text or a list of texts, or null (got [])."),
        ({"structures": ["liver", 5]}, 'structures: use a text or a list of texts, or null (got ["liver", 5]).'),
        ({"device": "gpu"}, 'device: use auto, cpu or cuda:0 (got "gpu").'),
        ({"device": 0}, "device: use auto, cpu or cuda:0 (got 0)."),
        ({"split": 0.2}, "split: use an object with train, val, test (got 0.2)."),
        ({"split": {"train": 0.8, "val": 0.2}}, 'split: use an object with train, val, test (got {"train": 0.8'),
        ({"split": {"training": None}}, 'split: use an object with train, val, test (got {"training": null}).'),
        ({"exclude": ["a"]}, 'exclude: use a text, or null (got ["a"]).'),
        ({"hu_curve": [[0, 0]]}, "hu_curve: use a list of lists of 2 numbers (got [[0, 0]])."),
        ({"hu_curve": [[0, 0], [1]]}, "hu_curve: use a list of lists of 2 numbers (got [[0, 0], [1]])."),
        ({"monitor__backend": "mlflow"}, 'monitor#backend: use trackio, wandb or off (got "mlflow").'),
        ({"monitor__tags": "a"}, 'monitor#tags: use a list of texts (got "a").'),
        ({"augment__noise__prob": 1.5}, "augment#noise#prob: use a number from 0 to 1 (got 1.5)."),
        ({"optimizer__weight_decay": -1}, "optimizer#weight_decay: use a number from 0 to 10 (got -1)."),
        ({"inferer__overlap": 1}, "inferer#overlap: use a number from 0 to below 1 (got 1)."),
        (
            {"train__handler_set__clip__max_norm": 0},
            "train#handler_set#clip#max_norm: use a number above 0, or null (got 0).",
        ),
        ({"resume": 3}, "resume: use true or false or a text (got 3)."),
        ({"run_name": " "}, 'run_name: use a text (got " ").'),
    ],
)
def test_each_kind_of_value_is_refused_in_one_sentence(changes, message):
    assert refusal(**changes).startswith(message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": [64]}, "image_size: use a list of 2 whole numbers from 29 to 4096 (got [64])."),
        ({"image_channels": 2}, "image_channels: use 1 or 3 (got 2)."),
        ({"variant": "b9"}, 'variant: use b0, b1, b2, b3, b4 or b5 or an object (got "b9").'),
        ({"variant": None}, "variant: use b0, b1, b2, b3, b4 or b5 or an object (got null)."),
    ],
)
def test_a_bundle_has_keys_of_its_own(changes, message):
    assert refusal("segformer2d", **changes) == message


def test_a_patch_can_be_halved_as_often_as_the_network_does():
    assert refusal(overlay=["fast_cpu"], patch_size=[65, 100]) == (
        "patch_size: UNet halves each length so often that it must be a multiple of 8 (got [65, 100]). Use [64, 96]."
    )
    assert "one length must be 32 or more (got [16, 31])" in refusal(patch_size=[16, 31])
    check_values(*config_of("unet2d", patch_size=[65, 65]))  # BasicUNet pads
    check_values(*config_of("unet2d", overlay=["fast_cpu"], patch_size=[104, 16]))


@pytest.mark.parametrize("value", ["$10 ** -3", "@batch_size", "%lr"])
def test_what_is_evaluated_later_is_not_judged(value):
    check_values(*config_of("unet2d", lr=value))


def test_a_bundle_that_declares_no_keys_is_not_judged_by_ours():
    config, metadata = config_of("unet2d", max_epochs="two")
    check_values(config, {key: value for key, value in metadata.items() if key != "keys"})


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("learning_rate", "lr"),
        ("learning-rate", "lr"),
        ("epochs", "max_epochs"),
        ("n_epochs", "max_epochs"),
        ("Epochs", "max_epochs"),
        ("gpu", "device"),
        ("data_dir", "dataset_dir"),
        ("classes", "structures"),
        ("workers", "num_workers"),
        ("crop_size", "patch_size"),
        ("weight_decay", "optimizer#weight_decay"),
        ("patience", "train#handler_set#early_stopping#patience"),
        ("scheduler", "lr_scheduler"),
        ("lrr", "lr"),
        ("bach_size", "batch_size"),
    ],
)
def test_the_nearest_meaning_of_a_word_is_offered(word, key):
    config, _ = config_of("unet2d")
    with pytest.raises(ConfigError, match=rf"config key '{word}': .* Did you mean '{key}'\?$"):
        check_keys(config, {**config, word: 1}, [word], lambda *_: None)


def test_words_of_others_are_no_keys_and_mean_one_thing():
    names = [word for schema in common_keys().values() for word in schema.get("also", ())]
    assert len(names) == len(set(names))
    assert meant_key("lr", ["lr"]) == "lr"


@pytest.mark.parametrize("bundle", BUNDLES)
@pytest.mark.parametrize("use", USES)
def test_every_plain_key_that_a_user_may_set_is_described(bundle, use):
    config, metadata = config_of(bundle, use)
    described = keys_of(config, metadata)
    plain = [path for path, value in walk(config, into_lists=False) if not isinstance(value, dict) and "#" not in path]
    wiring = {"imports", "keys", "labels", "network", "current_run", "initialize", "training", "evaluating", "run"}
    wiring |= {"preprocess_transforms", "handlers"}
    assert {path for path in plain if path not in described} <= wiring
    assert all(schema["description"] and wording(schema) for schema in described.values())


def test_each_key_of_the_table_is_one_of_a_recipe():
    paths = {path for bundle in BUNDLES for use in USES for path in keys_of(*config_of(bundle, use))}
    patterns = {key for key in common_keys() if "*" not in key}
    assert patterns - paths <= {"train#trainer#compile", "train#trainer#amp"}, "remove it from keys.json"
    assert Path("augment#noise#prob").name in {Path(path).name for path in paths}


@pytest.mark.parametrize(
    "schema",
    [
        3,
        {},
        {"type": "int"},
        {"type": ["number", 3]},
        {"type": "string", "pattern": "(a+)+$"},
        {"enum": "abc"},
        {"type": "number", "minimum": "0"},
        {"type": "array"},
        {"type": "array", "items": {"type": "string", "pattern": "(a+)+$"}},
        {"type": "string", "words": "abc"},
    ],
)
def test_what_a_stranger_says_of_a_key_is_left_out_where_it_cannot_be_used(schema):
    config = {"mine": "a" * 40 + "!", "lr": 0.1}
    check_values(config, {"keys": {"mine": schema}})
    assert list(keys_of(config, {"keys": {"mine": schema}})) == ["lr"]


def test_a_stars_key_cannot_take_long():
    keys_of({"a" * 60: 1}, {"keys": {"*" * 60 + "x": {"type": "number"}}})


def test_objects_from_python_are_left_to_what_takes_them():
    check_values(*config_of("unet2d", dataset_dir=Path("x"), patch_size=(64, 64), spacing=(1.5, 1.5, -1)))
    assert "multiple of 8" in refusal(overlay=["fast_cpu"], patch_size=(65, 64))
