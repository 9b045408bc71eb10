"""Errors about configs, exactly as they are printed."""

import json

import pytest

from medseg.config.check import check_keys
from medseg.config.merge import merge
from medseg.errors import ConfigError

RECIPE = {"lr": 0.1, "net": {"_target_": "torch.nn.Linear", "in_features": 2}, "handlers": ["a"]}


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {**RECIPE, "lrr": 1},
            "config key 'lrr': the bundle has no such key, and nothing refers to it. Did you mean 'lr'?",
        ),
        (
            {**RECIPE, "xyzzy": 1},
            "config key 'xyzzy': the bundle has no such key, and nothing refers to it. "
            "Remove it, or refer to it with '@'.",
        ),
        (
            {**RECIPE, "net": {**RECIPE["net"], "in_feature": 1}},
            "config key 'net#in_feature': torch.nn.Linear takes no argument 'in_feature'. "
            "Did you mean 'net#in_features'?",
        ),
    ],
)
def test_a_key_that_means_nothing(config, message):
    with pytest.raises(ConfigError) as error:
        check_keys(RECIPE, config, (), lambda component, argument: {"in_features", "bias"})
    assert str(error.value) == message


def test_files_that_cannot_be_merged(tmp_path):
    recipe, overlay = write(tmp_path / "train.json", RECIPE), tmp_path / "overlay.json"
    messages = {
        '{"lr": }': "this is no readable JSON file (Expecting value: line 1 column 8 (char 7)).",
        "[1]": "a config must be a JSON object (got a list).",
    }
    for content, message in messages.items():
        with pytest.raises(ConfigError) as error:
            merge([recipe, write(overlay, content)], {})
        assert str(error.value) == f"{overlay}: {message}"
    with pytest.raises(ConfigError) as error:
        merge([recipe, write(overlay, {"+handlers": {"a": 1}})], {})
    message = "'+' adds a dictionary to a dictionary or a list to a list (got a dict for a list)."
    assert str(error.value) == f"{overlay}, +handlers: {message}"
