"""What a run's folder brings beside its configs."""

import json

import pytest

from medseg.inspection.run_folder import check, metrics, of_run, overrides


def codes(command):
    return [one.code for one in check("run.json", {"command": command})]


@pytest.mark.parametrize(
    "command",
    [
        None,
        ["/venv/bin/medseg", "train", "unet2d", "--with", "demo", "lr=1e-3", "max_epochs=3", "patch_size=[64, 64]"],
        ["medseg", "train", "unet2d", "run_name=$'bs%d' % @batch_size", "--data", "/data"],
        ["python", "run", "training", "--config_file", "train.json", "--lr", "0.1"],
        ["medseg", "train", "unet2d", "monitor#base_url=null"],
    ],
)
def test_commands_that_are_known(command):
    assert codes(command) == []


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["medseg", "train", "unet2d", "lr=$__import__('os')"], "command-unsafe"),
        (["medseg", "train", "unet2d", 'loss={"_target_": "os.system"}'], "command-unsafe"),
        (["python", "run", "--loss#_target_", "os.system"], "command-unsafe"),
        (["python", "run", "--lr=$open(1)"], "command-unsafe"),
        (["medseg", "train", "unet2d", "monitor#base_url=https://example.org"], "sends-elsewhere"),
        (["medseg", "train", "unet2d", 'monitor={"base_url": "x"}'], "sends-elsewhere"),
        ("rm -rf /", "command-unsafe"),
        (["a", 1], "command-unsafe"),
    ],
)
def test_commands_that_are_not(command, code):
    assert codes(command) == [code]


def test_a_server_of_its_own_is_named(tmp_path):
    assert list(check("monitor/settings.json", {"base_url": None})) == []
    (tmp_path / "monitor").mkdir()
    (tmp_path / "monitor" / "settings.json").write_text(json.dumps({"base_url": "https://example.org"}))
    (tmp_path / "run.json").write_text("[")
    assert [one.code for one in of_run(tmp_path)] == ["command-unsafe", "sends-elsewhere"]


def test_overrides_of_a_command():
    assert overrides(["--a", "--b=c", "d=e=f", "g"]) == {"b": "c", "d": "e=f"}


def test_metrics_of_metadata_and_record():
    assert metrics({"eval_metrics": {"mean_dice": 0.9, "list": [1]}}, {"best_dice": 0.5, "best_epoch": 3, "x": 1}) == {
        "mean_dice": 0.9,
        "best_dice": 0.5,
        "best_epoch": 3,
    }
    assert metrics({}, None) == {}
