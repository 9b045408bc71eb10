"""Which settings make a run another one, and with which changes it can be resumed."""

import copy
import json
import os
import time

import pytest

from medseg.atomic import write_json
from medseg.bundle import Bundle, resume_run, run_bundle
from medseg.bundle.run import update_from_backup
from medseg.bundle.run_identity import compare_configs, json_config, log_changes, log_similar_runs, result_config
from medseg.config.diff import differences
from medseg.errors import ConfigError, MedsegError, RunError, UntrustedError
from medseg.runs.record import read_record
from medseg.training import Checkpoints
from medseg.training.run import identity

pytestmark = pytest.mark.slow

LOGGED = "train#handler_set#history#log_every_n_batches"


@pytest.fixture(scope="module")
def recipe():
    return json.loads((Bundle.open("unet2d").root / "configs" / "train.json").read_text())


def changed(recipe, **changes):
    config = copy.deepcopy(recipe)
    for path, value in changes.items():
        *above, last = path.split("#")
        part = config
        for name in above:
            part = part[name]
        part[last] = value
    return config


def same_run(recipe, config):
    return identity(result_config(json_config(recipe)), "data") == identity(result_config(json_config(config)), "data")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("num_workers", 3),
        ("train#dataset#cache_rate", 0.5),
        ("device", "cuda:1"),
        ("backup", "/mnt/copies"),
        ("resume", False),
        ("dataset_dir", "/elsewhere"),
        ("monitor", {"backend": "wandb"}),
        ("train#handler_set#checkpoints#every", 1),
        ("train#handler_set#history#_disabled_", True),
        ("train#handler_set#nan_guard#patience", 3),
        ("train#handler_set#history#log_every_n_batches", 3),
        ("train#handler_set#more#mine", {"_target_": "medseg.monitoring.Tracking"}),
        ("train#handlers", [{"_target_": "medseg.monitoring.Monitor"}]),
        ("validate#handler_set#previews#every_n_epochs", 7),
    ],
)
def test_handlers_that_only_log_or_save_leave_the_run_the_same(recipe, path, value):
    config = changed(recipe, **{path: value})
    if path == "train#handlers":
        config["train"]["handlers"] = [*recipe["train"]["handlers"], *value]
    assert differences(recipe, config)
    assert same_run(recipe, config)
    assert not compare_configs(recipe, config).essential


def test_the_tracking_that_monai_puts_in_is_the_same_run(recipe, repository):
    tracked = copy.deepcopy(recipe)
    configs = json.loads((repository / "configs" / "tracking.json").read_text())["configs"]
    for engine, role in (("train", "trainer"), ("validate", "validator")):  # as monai.bundle.run does
        tracked[engine]["handlers"].append(configs[role])
    tracked |= {key: value for key, value in configs.items() if key not in (*recipe, "trainer", "validator")}
    assert same_run(recipe, tracked)
    tracked["medseg_tracking"]["_target_"] = "some.other.Handler"
    assert not same_run(recipe, tracked)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("lr", 0.002),
        ("batch_size", 4),
        ("seed", 1),
        ("run_name", "another"),
        ("train#inferer#precision", "bf16"),
        ("max_epochs", 51),
        ("train#handler_set#early_stopping#patience", 3),
        ("structures", "organs"),
        ("network_def#features", [4] * 6),
        ("augment#noise#std", 0.5),
        ("train#handler_set#more#mine", {"_target_": "some.other.Handler"}),
        ("train#handler_set#clip#max_norm", 3.0),
    ],
)
def test_settings_that_change_the_result_make_another_run(recipe, path, value):
    config = changed(recipe, **{path: value})
    assert not same_run(recipe, config)
    assert (
        path in compare_configs(recipe, config).essential
        or f"{path}#_target_" in compare_configs(recipe, config).essential
    )


SCHEDULE = {
    "_target_": "torch.optim.lr_scheduler.PolynomialLR",
    "optimizer": "@optimizer",
    "total_iters": "@max_epochs",
}


@pytest.mark.parametrize(
    ("before", "now", "unsafe"),
    [
        ({}, {"max_epochs": 60}, []),
        ({}, {"max_epochs": 40}, ["max_epochs"]),
        ({}, {"train#trainer#max_epochs": 60}, []),
        ({}, {"train#trainer#max_epochs": 40}, ["train#trainer#max_epochs", "max_epochs"]),
        ({"lr_scheduler": SCHEDULE}, {"max_epochs": 60}, ["max_epochs"]),
        (
            {"steps": "$2 * @max_epochs", "lr_scheduler": {**SCHEDULE, "total_iters": "@steps"}},
            {"max_epochs": 60},
            ["max_epochs"],
        ),
        ({"lr_scheduler": {**SCHEDULE, "total_iters": 100}}, {"max_epochs": 60}, []),
        ({}, {"val_interval": 5, "train#handler_set#early_stopping#patience": 3, LOGGED: 1}, []),
        ({}, {"train#dataset#cache_rate": 0, "validate#dataset#cache_rate": 0.5}, []),
        ({}, {"train#dataloader#num_workers": 1, "validate#dataset#num_workers": 1}, []),
        ({}, {"inferer#sw_batch_size": 1, "inferer#sw_device": "cpu", "inferer#device": "cpu"}, []),
        ({}, {"inferer#overlap": 0.5, "inferer#sw_batch_size": 1}, ["inferer#overlap"]),
        ({}, {"lr": 0.002, "val_interval": 5}, ["lr"]),
        ({}, {"optimizer#weight_decay": 0, "batch_size": 2}, ["optimizer#weight_decay", "batch_size"]),
    ],
)  # fmt: skip
def test_changes_with_which_a_run_can_be_resumed(recipe, before, now, unsafe):
    old = changed(recipe, **before)
    found = compare_configs(old, changed(old, **now))
    assert sorted(found.unsafe) == sorted(unsafe)
    assert set(found.changed) == set(now)


@pytest.mark.parametrize("name", ["unet2d", "segformer2d"])
def test_in_every_bundle_the_rate_makes_another_run_and_the_monitor_does_not(name):
    recipe = json.loads((Bundle.open(name).root / "configs" / "train.json").read_text())
    assert not same_run(recipe, changed(recipe, lr=0.002))
    assert same_run(recipe, changed(recipe, monitor={"backend": "wandb", "project": "x"}))
    assert same_run(recipe, changed(recipe, output_dir="/elsewhere", num_workers=7))


def test_a_bundle_lists_harmless_keys_of_its_own():
    config = {"run": ["$@train#trainer.run()"], "train": {"trainer": {"root": "@data_root", "lr": "@rate"}}, "rate": 1}
    here, there = {**config, "data_root": "/here"}, {**config, "data_root": "/there"}
    assert result_config(here) != result_config(there)
    assert result_config(here, ["data_root"]) == result_config(there, ["data_root"])
    assert compare_configs(here, there).unsafe
    assert not compare_configs(here, there, ["data_root"]).essential


def test_a_key_that_another_key_is_made_from_is_not_left_out(recipe):
    config = changed(
        recipe, **{"optimizer#weight_decay": "$@num_logged / 1000", "num_logged": 10, LOGGED: "@num_logged"}
    )
    other = changed(config, num_logged=99)
    assert not same_run(config, other)


def test_a_run_that_a_kill_left_without_its_config_is_resumed(recipe, tmp_path, caplog):
    caplog.set_level("INFO")
    log_changes(tmp_path, recipe)
    assert not caplog.text
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.json").write_text(json.dumps(recipe))
    log_changes(tmp_path, changed(recipe, num_workers=3))
    assert "num_workers" in caplog.text


def test_the_same_folder_by_another_path_is_no_change(recipe, tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    (tmp_path / "set").mkdir()
    (tmp_path / "leave.txt").write_text("a")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    whole = {
        "dataset_dir": str(tmp_path / "set"),
        "exclude": str(tmp_path / "leave.txt"),
        "backup": str(tmp_path / "b"),
    }
    (tmp_path / "configs" / "train.json").write_text(json.dumps(changed(recipe, **whole)))
    relative = changed(recipe, dataset_dir="set", exclude="leave.txt", backup="b")
    log_changes(tmp_path, relative)
    assert not caplog.text
    assert same_run(changed(recipe, **whole), json_config(relative))
    log_changes(tmp_path, {**relative, "dataset_dir": "."})
    assert f"dataset_dir {tmp_path / 'set'} -> {tmp_path}" in caplog.text


def write_similar(parent, recipe, name, age, **record):
    folder = parent / name
    write_json(folder / "configs" / "train.json", json_config(recipe))
    write_json(folder / "run.json", {"state": "failed", "data": "d", **record})
    os.utime(folder / "run.json", (time.time() - age,) * 2)


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([("20260102-a", 60.0, "failed")], "20260102-a is failed and differs in: lr 0.001 -> 0.5"),
        ([("20260102-a", 60.0, "interrupted")], "20260102-a is interrupted and differs"),
        ([("20260102-a", 60.0, "failed"), ("20260103-b", 50.0, "finished")], ""),
        ([("20260102-a", 90_000.0, "failed")], ""),
        ([], ""),
    ],
)
def test_a_similar_run_is_named_if_it_is_the_latest_and_of_today(recipe, tmp_path, caplog, runs, expected):
    caplog.set_level("INFO")
    for name, age, state in runs:
        write_similar(tmp_path, recipe, name, age, state=state)
    log_similar_runs(tmp_path, changed(recipe, lr=0.5), {"data": "d"})
    assert (expected in caplog.text) if expected else not caplog.text


# Whole runs of a second


@pytest.fixture
def settings(tiny, phantom, runs):
    return {**tiny, "dataset_dir": str(phantom), "samples_per_case": 2, "batch_size": 2, "max_epochs": 2}


def train(settings, root="unet2d", **overrides):
    run_bundle(Bundle.open(root), "training", "train", (), {**settings, **overrides})


def interrupted(settings, monkeypatch, after=1, **overrides):
    """Train until Ctrl-C after an epoch; the folder of the run."""
    save = Checkpoints.save

    def stop(self, engine):
        save(self, engine)
        if engine.state.epoch == after:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", stop)
        with pytest.raises(KeyboardInterrupt):
            train(settings, **overrides)


def folders(runs):
    return sorted(path.parent for path in runs.glob("unet2d/*/run.json"))


def causes(error):
    while error is not None:
        yield error
        error = error.__cause__


def refused(caught, kind):
    (found,) = [error for error in causes(caught.value) if type(error) is kind]
    return str(found)


def epochs(folder):
    return json.loads((folder / "training_history.json").read_text())["epoch"]


def test_one_run_from_its_interruption_to_ever_more_epochs(settings, runs, monkeypatch, capfd, tmp_path):
    """Other logging goes on, another rate starts anew and says so; by name only what is safe goes on."""
    interrupted(settings, monkeypatch)
    (folder,) = folders(runs)
    record = read_record(folder)
    assert record["data"] != record["train_data"]

    with pytest.raises((RuntimeError, MedsegError)) as caught:
        train(settings, resume=str(folder), lr=0.5)
    text = refused(caught, ConfigError)
    assert "these settings change what it has computed so far" in text
    assert "lr 0.001 -> 0.5" in text
    assert "--fresh" in text

    train(settings, num_workers=0, **{LOGGED: 1})
    assert folders(runs) == [folder]
    assert f"Changed since it began: {LOGGED} 10 -> 1" in capfd.readouterr().err
    assert epochs(folder) == [1, 2]
    assert read_record(folder)["state"] == "finished"

    with pytest.raises((RuntimeError, MedsegError)) as caught:
        train(settings, resume=folder.name)
    assert "Raise max_epochs" in refused(caught, RunError)

    resume_run(folder, {"max_epochs": 3, "output_dir": str(runs)})
    assert epochs(folder) == [1, 2, 3]
    config = json.loads((folder / "configs" / "train.json").read_text())
    assert (
        config["max_epochs"],
        config["resume"],
        config["train"]["handler_set"]["history"]["log_every_n_batches"],
    ) == (3, True, 1)
    assert "medseg.bundle.bundle_root" in config["bundle_root"]
    monkeypatch.chdir(tmp_path)
    resume_run(folder, {"max_epochs": 4})
    assert folders(runs) == [folder]
    assert epochs(folder) == [1, 2, 3, 4]
    assert not (tmp_path / "runs" / "runs").exists()


def test_a_run_that_was_interrupted_is_named_where_a_new_one_starts(settings, runs, monkeypatch, capfd):
    interrupted(settings, monkeypatch, run_name="first")
    (first,) = folders(runs)
    train(settings, run_name="first", lr=0.002, max_epochs=1)
    assert len(folders(runs)) == 2
    said = f"{first.name} is interrupted and differs in: max_epochs 2 -> 1, lr 0.001 -> 0.002; this starts a new run"
    assert said in capfd.readouterr().err


def test_the_config_in_its_folder_resumes_that_very_run(settings, runs, monkeypatch, tmp_path):
    import monai.bundle

    interrupted(settings, monkeypatch)
    (folder,) = folders(runs)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDSEG_RUNS")
    monai.bundle.run("training", config_file=str(folder / "configs" / "train.json"), logging_file=None)
    assert folders(runs) == [folder]
    assert epochs(folder) == [1, 2]
    assert read_record(folder)["state"] == "finished"
    assert list(tmp_path.iterdir()) == [runs]


def test_changed_training_data_is_refused_and_changed_validation_data_is_logged(
    settings, runs, monkeypatch, phantom, tmp_path, capfd
):
    import shutil

    data = tmp_path / "data"
    shutil.copytree(phantom, data)
    settings = {**settings, "dataset_dir": str(data)}
    interrupted(settings, monkeypatch)
    (folder,) = folders(runs)
    cases = read_record(folder)["cases"]
    scan = data / cases["val"][0] / "ct.nii.gz"
    scan.write_bytes(scan.read_bytes() + bytes(10))
    shutil.rmtree(runs / ".cache")
    train(settings, resume=str(folder))
    assert "validation or test data has changed" in capfd.readouterr().err
    scan = data / cases["train"][0] / "ct.nii.gz"
    scan.write_bytes(scan.read_bytes() + bytes(10))
    with pytest.raises((RuntimeError, MedsegError)) as caught:
        train(settings, resume=str(folder), max_epochs=3)
    assert "training data have changed since it began" in refused(caught, ConfigError)


def test_a_run_is_resumed_from_its_backup_alone(settings, runs, monkeypatch, tmp_path):
    import shutil

    import torch

    location = {"backup": "elsewhere"}
    monkeypatch.chdir(tmp_path)
    interrupted(settings, monkeypatch, **location)
    (folder,) = folders(runs)
    assert json.loads((folder / "configs" / "train.json").read_text())["backup"] == str(tmp_path / "elsewhere")
    shutil.rmtree(runs)
    train(settings, **location)
    assert folders(runs) == [folder]
    assert epochs(folder) == [1, 2]
    copied = tmp_path / "elsewhere" / "unet2d" / folder.name
    for name in ("run.json", "metrics.jsonl", "models/model.pt", "checkpoints/last.pt"):
        assert (copied / name).read_bytes() == (folder / name).read_bytes(), name
    train(settings, output_dir=str(tmp_path / "whole"))
    (whole,) = (tmp_path / "whole" / "unet2d").iterdir()
    weights = [torch.load(one / "checkpoints" / "last.pt", weights_only=True)["network"] for one in (whole, copied)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_run_by_name_is_resumed_from_its_backup_where_that_got_further(settings, runs, monkeypatch, tmp_path):
    import shutil

    location = {"backup": str(tmp_path / "elsewhere")}
    interrupted(settings, monkeypatch, max_epochs=3, **location)
    (folder,) = folders(runs)
    first = tmp_path / "first"
    shutil.copytree(folder, first)
    interrupted(settings, monkeypatch, after=2, max_epochs=3, **location)
    shutil.rmtree(folder)
    shutil.copytree(first, folder)  # the machine that knows of the first epoch alone
    before = read_record(first)["iteration"]
    for root in (folder, "unet2d"):
        if root == folder:
            with pytest.raises((RuntimeError, MedsegError)) as caught:
                train({**settings, "max_epochs": 3}, root, resume=str(folder), **location)
            assert f"it is at iteration {before}, and its backup at {2 * before}" in refused(caught, RunError)
        else:
            train({**settings, "max_epochs": 3}, root, resume=str(folder), **location)
    assert epochs(folder) == [1, 2, 3]
    began = [row for row in (folder / "metrics.jsonl").read_text().splitlines() if '"begin"' in row]
    assert [json.loads(row)["iteration"] for row in began] == [0, before, 2 * before]


def test_resuming_from_its_folder_brings_what_the_backup_has_more(settings, runs, monkeypatch, tmp_path):
    import shutil

    backup = {"backup": str(tmp_path / "elsewhere")}
    interrupted(settings, monkeypatch, max_epochs=3, **backup)
    (folder,) = folders(runs)
    first = tmp_path / "first"
    shutil.copytree(folder, first)
    interrupted(settings, monkeypatch, after=2, max_epochs=3, **backup)
    shutil.rmtree(folder)
    shutil.copytree(first, folder)  # the machine that knows of the first epoch alone
    before = read_record(first)["iteration"]
    resume_run(folder)
    assert epochs(folder) == [1, 2, 3]
    began = [json.loads(row) for row in (folder / "metrics.jsonl").read_text().splitlines() if '"begin"' in row]
    assert [row["iteration"] for row in began] == [0, before, 2 * before]
    assert not update_from_backup(folder, {})
    assert not update_from_backup(Bundle.open("unet2d").root, backup)


def test_a_copy_from_the_backup_with_other_addresses_is_not_trusted(settings, runs, monkeypatch, tmp_path):
    import shutil

    backup = {"backup": str(tmp_path / "elsewhere")}
    interrupted(settings, monkeypatch, max_epochs=3, **backup)
    (folder,) = folders(runs)
    first = tmp_path / "first"
    shutil.copytree(folder, first)
    interrupted(settings, monkeypatch, after=2, max_epochs=3, **backup)
    shutil.rmtree(folder)
    shutil.copytree(first, folder)
    copy = tmp_path / "elsewhere" / "unet2d" / folder.name / "configs" / "train.json"
    config = json.loads(copy.read_text())
    copy.write_text(json.dumps({**config, "monitor": {**config["monitor"], "base_url": "https://example.org"}}))
    with pytest.raises(UntrustedError, match=r"to use its train\.json runs whatever that holds"):
        resume_run(folder)


def test_a_run_with_a_backup_needs_no_trust_here_and_a_changed_one_does(settings, runs, monkeypatch, tmp_path):
    interrupted(settings, monkeypatch, backup=str(tmp_path / "elsewhere"))
    (folder,) = folders(runs)
    Bundle.open(folder).require_trust("train")
    path = folder / "configs" / "train.json"
    path.write_text(path.read_text().replace(str(tmp_path / "elsewhere"), "s3://elsewhere/bucket"))
    with pytest.raises(UntrustedError, match=r"to use its train\.json runs whatever that holds"):
        Bundle.open(folder).require_trust("train")


def test_an_impossible_backup_is_refused_before_anything_is_written(settings, runs, tmp_path):
    (tmp_path / "file").touch()
    for backup in ("nope://x", str(tmp_path / "file")):
        with pytest.raises(MedsegError, match="backup="):
            train(settings, backup=backup)
    assert not list(runs.glob("unet2d/*"))


def test_a_run_of_another_bundle_is_refused(settings, runs):
    other = runs / "unet2d" / "other"
    other.mkdir(parents=True)
    (other / "run.json").write_text(json.dumps({"bundle": "segformer", "state": "failed"}))
    with pytest.raises((RuntimeError, MedsegError)) as caught:
        train(settings, resume=str(other))
    assert "this is a run of segformer, not of unet2d" in refused(caught, RunError)
