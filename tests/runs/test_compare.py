"""What sets runs apart."""

from medseg.runs.compare import compare, speed, unlike_recipe
from medseg.runs.run import Run


def validation(epoch, mean, **dice):
    return {"kind": "validation", "epoch": epoch, "mean_dice": mean, "dice": dice}


def test_runs_side_by_side(make_run):
    rows = [
        {"kind": "epoch", "epoch": 1, "samples_per_second": 10.0, "train_seconds": 4.0},
        validation(1, 0.6, liver=0.8, spleen=0.4),
        {"kind": "epoch", "epoch": 2, "samples_per_second": 30.0, "train_seconds": 2.0},
        validation(2, 0.5, liver=0.9, spleen=0.1),
    ]
    one = make_run("a", rows, {"lr": 0.1, "bundle_root": "/a", "loss": {"batch": True}}, state="finished")
    other = make_run("b", [validation(1, 0.7, liver=0.7, colon=None)], {"lr": 0.2, "loss": {"batch": True}})
    found = compare([one, other])
    assert found["settings"] == {"lr": [0.1, 0.2]}
    assert found["dice"] == {"liver": [0.8, 0.7], "spleen": [0.4, None], "colon": [None, None]}
    assert found["samples_per_second"] == [20.0, None]
    assert found["epoch_seconds"] == [3.0, None]
    assert [run.name for run in found["runs"]] == ["a", "b"]


def test_settings_unlike_the_recipe(make_run, repository):
    import json

    recipe = json.loads((repository / "bundles" / "unet2d" / "configs" / "train.json").read_text())
    folder = make_run("a", config={**recipe, "lr": 0.125, "bundle_root": "/elsewhere", "output_dir": "/runs"})
    assert unlike_recipe(Run(folder)) == {"lr": [recipe["lr"], 0.125]}
    assert unlike_recipe(Run(make_run("b", bundle="missing"))) == {}
    assert unlike_recipe(Run(make_run("c", bundle=None))) == {}


def test_without_epochs_there_is_no_speed():
    assert speed([]) == (None, None)
