"""`medseg list`, the keys in the help of a bundle, and words of other programs in place of options and keys."""

import json
import subprocess
import sys

import pytest

from medseg.catalogue import groups


def rows(medseg, *arguments):
    done = medseg("list", *arguments, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_bundles_overlays_structures_and_keys_are_listed(medseg):
    assert {row["name"] for row in rows(medseg, "bundles")} >= {"unet2d", "segformer2d"}
    assert {row["name"] for row in rows(medseg, "overlays")} == {"no_monitor", "one_cycle", "poly", "trackio", "wandb"}
    assert {"fast_cpu", "poly"} <= {row["name"] for row in rows(medseg, "overlays", "unet2d")}
    structures = rows(medseg, "structures")
    assert [row["name"] for row in structures] == list(groups()["all"])
    assert structures[0] == {"index": 1, "name": "spleen", "group": "organs"}
    keys = {row["key"]: row for row in rows(medseg, "keys", "unet2d")}
    assert keys["lr"] == {
        "key": "lr",
        "default": "0.001",
        "values": "a number above 0 and up to 10",
        "meaning": "learning rate",
    }
    assert "image_size" in {row["key"] for row in rows(medseg, "keys", "segformer2d", "--config", "inference")}
    assert "max_epochs" in medseg("list", "keys", "unet2d").out


def test_the_structures_of_a_run_are_its_own(medseg, trained):
    names = [row["name"] for row in rows(medseg, "structures", trained)]
    assert names == ["spleen", "kidney_right", "kidney_left", "liver"]


def test_an_unknown_bundle_or_kind_is_one_line(medseg):
    assert "Did you mean 'unet2d'?" in medseg("list", "keys", "unet2").err
    assert medseg("list", "networks").code == 2
    assert "medseg info BUNDLE" in medseg("list", "bundles", "unet2d").err


def test_bundles_are_found_by_name_from_any_folder(tmp_path):
    code = "from medseg.cli import main; main(['train', 'x.nii.gz'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "or one of these names: segformer2d, unet2d." in done.stderr


def test_help_lists_the_keys_of_a_bundle(medseg):
    assert "Keys of unet2d:\n" in medseg("train", "unet2d", "--help").out
    assert "max_epochs" in medseg("train", "unet2d", "--help").out
    assert "medseg list keys BUNDLE" in medseg("train", "--help").out


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        ("train unet2d --epochs 3", "Did you mean max_epochs=VALUE?"),
        ("train unet2d --lr=0.1", "Did you mean lr=VALUE?"),
        ("train unet2d --batch-size 3", "Did you mean batch_size=VALUE?"),
        ("train unet2d -b 3", "Did you mean batch_size=VALUE?"),
        ("train unet2d --data-dir x", "Did you mean '--data'?"),
        ("train unet2d --gpu", "Did you mean device=VALUE?"),
        ("train unet2d --scheduler poly", "Did you mean lr_scheduler=VALUE?"),
        ("train unet2d --detatch", "Did you mean '--detach'?"),
        ("predict x y -o z --device cpu", "Did you mean --set device=VALUE?"),
        ("predict x y -o z --tta", "Did you mean --set inferer#flips=VALUE?"),
        ("predict x y --out z", "Did you mean '--output'?"),
        ("evaluate a b -o c --organs liver", "Did you mean '--structures'?"),
        ("data prepare a b --num-workers 3", "Did you mean '--workers'?"),
    ],
)
def test_an_option_of_another_program_names_what_it_means(medseg, arguments, fix):
    done = medseg(*arguments.split())
    assert done.code == 2
    word = next(word for word in arguments.split() if word.startswith("-") and word != "-o").partition("=")[0]
    assert done.err.endswith(f"Error: There is no option '{word}'. {fix}\n")


@pytest.mark.parametrize("arguments", ["predict x y -o z --epochs 3", "runs show --zzz"])
def test_an_option_that_means_nothing_here_names_nothing(medseg, arguments):
    assert medseg(*arguments.split()).code == 2
    assert "VALUE" not in medseg(*arguments.split()).err


@pytest.mark.parametrize("detach", [[], ["--detach"]])
@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("max_epochs=two", 'max_epochs: use a whole number from 1 to 1000000 (got "two").'),
        ("max_epochs=true", "max_epochs: use a whole number from 1 to 1000000 (got true)."),
        ("lr=nan", 'lr: use a number above 0 and up to 10 (got "nan").'),
        ("lr=NaN", "lr: use a number above 0 and up to 10 (got NaN)."),
        ("batch_size=0", "batch_size: use a whole number from 1 to 65536 (got 0)."),
        ("spacing=1.5,1.5", "spacing: use a list of 3 numbers from 0.01 to 100 or -1 (got [1.5, 1.5])."),
        ("device=cuda:x", 'device: use auto, cpu or cuda:0 (got "cuda:x").'),
        ("learning_rate=1", "Did you mean 'lr'?"),
    ],
)
def test_a_wrong_value_is_one_line_before_anything_starts(medseg, runs, pair, message, detach):
    done = medseg("train", "unet2d", pair, *detach)
    assert done.code == 1
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not runs.exists()


def test_values_are_checked_without_torch(tmp_path):
    code = (
        "import sys, contextlib\nfrom medseg.cli import main\n"
        "with contextlib.suppress(SystemExit): main(['train', 'unet2d', 'lr=0'])\nprint('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True, stderr=subprocess.DEVNULL) == "False\n"


@pytest.mark.parametrize("value", [[], "x", {"inputs": []}, {"inputs": {"image": 3}, "outputs": {"pred": []}}, None, 3])
def test_metadata_of_another_form_break_neither_info_nor_list(medseg, tmp_path, value):
    for name in ("metadata", "train"):
        (tmp_path / "configs").mkdir(exist_ok=True)
        content = {"name": "x", "network_data_format": value, "keys": {}} if name == "metadata" else {"lr": 1}
        (tmp_path / "configs" / f"{name}.json").write_text(json.dumps(content))
    assert medseg("info", tmp_path).code == 0
    assert rows(medseg, "structures", tmp_path) == []
    assert [row["key"] for row in rows(medseg, "keys", tmp_path)] == ["lr"]


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ('loss={"_target_": "DiceLosss"}', "train.json: loss#_target_: there is no class or function of this name"),
        (
            "network_def#features=[1]",
            "train.json: network_def: BasicUNet failed with these arguments: ValueError",
        ),
        ("train#trainer#amp=$nope", "train.json: train#trainer#amp: nothing is called 'nope' ($nope)."),
        ("optimizer#lr=@lrr", "train.json: optimizer: it refers to @lrr, and the config has no such key. Did you mean"),
        (
            "train#prepare_batch=$lambda *a, **k: 1/0",
            "train.json: training#0: this failed: ZeroDivisionError: division",
        ),
    ],
)
def test_what_fails_while_a_training_is_built_or_runs_is_one_line(medseg, phantom, runs, small, pair, message):
    settings = [setting for setting in small if setting.partition("=")[0] != pair.partition("=")[0]]
    done = medseg("train", "unet2d", "--trust", "--data", phantom, *settings, pair)
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith(f"Error: {message}")
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("inferer#overlap=1", "inferer#overlap: use a number from 0 to below 1 (got 1)."),
        ("device=gpu", 'device: use auto, cpu or cuda:0 (got "gpu").'),
        ("tta=true", "Did you mean 'inferer#flips'?"),
        ("inferer#precision=fp64", 'inferer#precision: use fp32, bf16 or fp16 (got "fp64").'),
    ],
)
def test_a_wrong_value_of_a_prediction_is_one_line(medseg, trained, tmp_path, pair, message):
    done = medseg("predict", trained, "ct.nii.gz", "-o", tmp_path / "masks", "--set", pair)
    assert done.code == 1
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not (tmp_path / "masks").exists()
