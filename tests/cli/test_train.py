"""`medseg train`: what it starts, and every bad input as one error before anything is written."""

import json
import shutil
import sys
import time

import nibabel as nib
import numpy as np
import psutil
import pytest
import torch

pytestmark = pytest.mark.slow


def record_of(runs):
    (record,) = runs.glob("unet2d/*/run.json")
    return json.loads(record.read_text())


def test_it_trains_with_data_overlays_and_overrides(medseg, phantom, runs, small, tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"lr": 0.5, "optimizer#weight_decay": 0.25}))
    overlays = ["--with", "round1_quick", "--with", "poly", "--with", tmp_path / "mine.json"]
    done = medseg("train", "unet2d", "--data", phantom, *overlays, *small, "lr=0.125", "lr_scheduler=null")
    assert done.code == 0, done.err
    assert record_of(runs)["state"] == "finished"
    (config,) = runs.glob("unet2d/*/configs/train.json")
    effective = json.loads(config.read_text())
    assert (effective["lr"], effective["optimizer"]["weight_decay"], effective["max_epochs"]) == (0.125, 0.25, 1)
    assert effective["lr_scheduler"] is None


def test_the_same_command_goes_on_with_a_run_that_did_not_finish_and_ends_the_same(
    medseg, phantom, tmp_path, small, monkeypatch
):
    """Interrupted after the first of three epochs, by Ctrl-C; then the same command again."""
    from medseg.training import Checkpoints

    schedule = '{"_target_": "torch.optim.lr_scheduler.ExponentialLR", "optimizer": "@optimizer", "gamma": 0.5}'
    kept = [one for one in small if "max_epochs" not in one]
    command = ["train", "unet2d", "--data", phantom, *kept, "max_epochs=3", f"lr_scheduler={schedule}"]
    monkeypatch.setenv("MEDSEG_RUNS", str(tmp_path / "whole"))
    assert medseg(*command).code == 0

    save = Checkpoints.save

    def interrupted(self, engine):
        save(self, engine)
        if engine.state.epoch == 1:
            raise KeyboardInterrupt

    monkeypatch.setenv("MEDSEG_RUNS", str(tmp_path / "parts"))
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", interrupted)
        assert medseg(*command).code == 130
    assert record_of(tmp_path / "parts")["state"] == "interrupted"
    done = medseg(*command)
    assert done.code == 0, done.err
    assert record_of(tmp_path / "parts")["state"] == "finished"

    runs = [next((tmp_path / name).glob("unet2d/*/run.json")).parent for name in ("whole", "parts")]
    histories = [json.loads((run / "training_history.json").read_text()) for run in runs]
    assert histories[0]["loss"] == histories[1]["loss"]
    assert histories[0]["lr"] == histories[1]["lr"]
    weights = [torch.load(run / "checkpoints" / "last.pt", weights_only=True)["network"] for run in runs]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])

    assert medseg(*command).code == 0  # it is finished now, so this is a new one
    assert len(list((tmp_path / "parts" / "unet2d").iterdir())) == 2


def test_fresh_starts_anew(medseg, phantom, runs, small, monkeypatch):
    from medseg.training import Checkpoints

    def interrupt(self, engine):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", interrupt)
        assert medseg("train", "unet2d", "--data", phantom, *small).code == 130
    assert medseg("train", "unet2d", "--data", phantom, "--fresh", *small).code == 0
    states = [json.loads(record.read_text())["state"] for record in sorted(runs.glob("unet2d/*/run.json"))]
    assert sorted(states) == ["finished", "interrupted"]


@pytest.fixture
def copy(phantom, tmp_path):
    shutil.copytree(phantom, tmp_path / "set")
    return tmp_path / "set"


def no_ct(root):
    (root / "p0000" / "ct.nii.gz").unlink()


def mask_of_another_shape(root):
    nib.save(
        nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)), root / "p0000" / "segmentations" / "liver.nii.gz"
    )


def mask_of_another_affine(root):
    path = root / "p0000" / "segmentations" / "liver.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), image.affine - np.diag([0, 0, 1, 0])), path)


def truncated(root):
    path = root / "p0000" / "ct.nii.gz"
    path.write_bytes(path.read_bytes()[:-500])


def unknown_structure(root):
    masks = root / "p0000" / "segmentations"
    (masks / "liver.nii.gz").rename(masks / "livr.nii.gz")


def empty(root):
    shutil.rmtree(root)
    root.mkdir()


def no_validation(root):
    (root / "meta.csv").write_text("image_id;split\np0000;train\np0001;train\np0002;train\np0003;train\n")


@pytest.mark.parametrize(
    ("damage", "thing", "rule"),
    [
        (no_ct, "p0000/ct.nii.gz", "the case has no CT"),
        (mask_of_another_shape, "liver.nii.gz", "differs from the shape"),
        (mask_of_another_affine, "liver.nii.gz", "it lies up to"),
        (truncated, "p0000/ct.nii.gz", "the file is damaged or cut short"),
        (unknown_structure, "livr.nii.gz", "Did you mean 'liver'?"),
        (empty, "set", "the folder holds no data set"),
        (no_validation, "set", "there is no case to validate on"),
    ],
)
def test_a_broken_data_set_is_one_error_and_no_run(medseg, copy, runs, small, damage, thing, rule):
    damage(copy)
    done = medseg("train", "unet2d", "--data", copy, *small)
    assert done.code == 1
    last = done.err.strip().splitlines()[-1]
    assert last.startswith("Error: ")
    assert thing in last.replace("\\", "/")
    assert rule in last
    assert not list(runs.glob("unet2d/*"))
    assert not list(runs.rglob("*.partial*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lrr=0.5"], "config key 'lrr': the bundle has no such key, and nothing refers to it"),
        (["train#trainer#max_epoch=3"], "Did you mean 'train#trainer#max_epochs'?"),
        (["--with", "round1_quik"], "Did you mean 'round1_quick'?"),
        (['structures=["livr"]'], "Did you mean 'liver'?"),
        (['split={"train": ["p9"], "val": ["p0000"], "test": null}'], "has 4 cases, but not this one"),
        (["device=gpu"], 'device: use auto, cpu or cuda:0 (got "gpu").'),
    ],
)
def test_a_wrong_argument_is_one_error_and_no_run(medseg, phantom, runs, small, arguments, message):
    kept = [one for one in small if one.partition("=")[0] not in {argument.partition("=")[0] for argument in arguments}]
    done = medseg("train", "unet2d", "--data", phantom, *kept, *arguments)
    assert done.code == 1
    assert message in done.err
    assert not list(runs.glob("unet2d/*"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none_is_one_error(medseg, phantom, runs, small):
    done = medseg("train", "unet2d", "--data", phantom, *[one for one in small if "device" not in one], "device=cuda")
    assert done.code == 1
    assert "device 'cuda': torch can use 0 CUDA devices on this machine." in done.err


def test_paths_and_names_that_are_not_there(medseg, tmp_path, runs):
    done = medseg("train", "unet2d", "--data", tmp_path / "nowhere")
    assert (done.code, done.err.count("no such folder")) == (1, 1)
    assert "Did you mean 'unet2d'" in medseg("train", "unet2").err
    assert medseg("train", "unet2d", "lr").code == 2
    assert medseg("train").code == 2
    assert "say the same" in medseg("train", "unet2d", "--data", tmp_path, "dataset_dir=x").err


def test_an_output_folder_that_cannot_be_written_is_one_error(medseg, phantom, small, tmp_path):
    (tmp_path / "file").touch()
    done = medseg("train", "unet2d", "--data", phantom, *small, f"output_dir={tmp_path / 'file' / 'runs'}")
    assert done.code == 1
    assert "the folder cannot be written" in done.err


def test_detached_the_same_command_is_given_in_a_process_of_its_own(medseg, phantom, runs, monkeypatch, tmp_path):
    from medseg.runs import detach as detaching

    given, detach = [], detaching.detach

    def instead(command, folder):
        given.append((command, folder))
        program = "import sys; from medseg.runs.detach import redirect_output_to; redirect_output_to(sys.argv[1])"
        return detach([sys.executable, "-c", program, str(tmp_path)], folder)

    monkeypatch.setattr(detaching, "detach", instead)
    options = ["--data", phantom, "--with", "poly", "--with", "demo", "--backup", "s3://b/c", "--fresh"]
    done = medseg("train", "unet2d", *options, "--detach", "lr=0.5")
    assert done.code == 0, done.err
    ((command, folder),) = given
    assert folder == runs
    said = ["--with", "poly", "--with", "demo", "--data", str(phantom), "--backup", "s3://b/c", "--fresh", "lr=0.5"]
    assert command == [sys.executable, "-m", "medseg", "train", "unet2d", *said]
    assert f"Run: {tmp_path}\n" in done.out


def test_a_backup_is_a_key_of_the_config(medseg, monkeypatch):
    import medseg.bundle as bundles

    given = []
    monkeypatch.setattr(bundles, "run_bundle", lambda *one: given.append(one[-1]))
    assert medseg("train", "unet2d", "--backup", "s3://b/c").code == 0
    assert given == [{"backup": "s3://b/c"}]
    assert "say the same" in medseg("train", "unet2d", "--backup", "x", "backup=y").err


def wait_until(what, seconds=120):
    until = time.monotonic() + seconds
    while not what() and time.monotonic() < until:
        time.sleep(0.1)


@pytest.mark.long
def test_a_detached_training_is_killed_found_dead_and_gone_on_with(medseg, phantom, runs, small):
    kept = [one for one in small if "max_epochs" not in one]
    done = medseg("train", "unet2d", "--data", phantom, "--detach", *kept, "max_epochs=200")
    assert done.code == 0, done.err
    (folder,) = runs.glob("unet2d/*")
    wait_until((folder / "checkpoints" / "last.pt").is_file)
    process = psutil.Process(record_of(runs)["pid"])
    process.kill()
    process.wait()
    assert json.loads(medseg("runs", "show", "--json").out)["state"] == "died"
    done = medseg("runs", "resume", "--detach")
    assert done.code == 0, done.err
    assert json.loads(medseg("runs", "--json").out)[0]["state"] == "running"
    console = folder / "console.log"
    wait_until(lambda: "Going on after epoch" in console.read_text())
    assert "Killed in epoch" in medseg("runs", "stop", "--now").out
    assert len(list(runs.glob("unet2d/*"))) == 1
    assert console.read_text().count("Run folder:") == 2
