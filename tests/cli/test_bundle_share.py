"""`medseg bundle pack`, `install`, `push` and `pull`: what is printed and refused; the work has its own tests."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shlex
import shutil
import socket
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.bundle.share.archive import write_archive
from medseg.bundle.verify.manifest import MANIFEST, make_manifest

pytestmark = pytest.mark.slow


def start_of(run):
    started = json.loads((run / "run.json").read_text())["started"]
    return re.sub("[-:]", "", started)[:15].replace("T", "-")


def test_pack_prints_the_sha256(medseg, trained, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = tmp_path / "out" / "a.zip"
    done = medseg("bundle", "pack", trained, "-o", path, "--torchscript", "--metadata", "version=3.1.0")
    name = f"unet2d-{start_of(trained)}"
    assert done.code == 0, done.err
    assert f"SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}" in done.out
    assert "Left out: train.json: dataset_dir" in caplog.text
    with zipfile.ZipFile(path) as archive:
        assert f"{name}/models/model.ts" in archive.namelist()
        metadata = json.loads(archive.read(f"{name}/configs/metadata.json"))
        assert (metadata["version"], metadata["name"], metadata["recipe"]) == ("3.1.0", name, "unet2d")
        assert "without weights" not in metadata["description"]


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (["unet2d", "-o", "a.zip"], 1, "the trained weights are missing"),
        (["unett2d", "-o", "a.zip"], 1, "Did you mean 'unet2d'"),
        (["unet2d", "-o", "a.zip", "--metadata", "version"], 2, "must be KEY=TEXT"),
        (["unet2d"], 2, "Missing option '-o'"),
    ],
)
def test_pack_errors_are_one_line(medseg, tmp_path, monkeypatch, arguments, code, why):
    done = medseg(
        "bundle", "pack", *arguments[:1], *[tmp_path / entry if entry == "a.zip" else entry for entry in arguments[1:]]
    )
    assert done.code == code
    assert why in done.err
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def packed(tmp_path_factory, trained):
    from medseg.bundle.share import pack_bundle

    return pack_bundle(trained, tmp_path_factory.mktemp("packed") / "tiny.zip", metadata={"name": "unet2d"})


def test_an_installed_bundle_predicts_the_same_voxels(medseg, packed, trained, phantom, tmp_path, monkeypatch):
    scan = phantom / "p0001" / "ct.nii.gz"
    assert medseg("predict", trained, scan, "-o", tmp_path / "home").code == 0
    monkeypatch.chdir(tmp_path)
    done = medseg("bundle", "install", packed)
    assert done.code == 0, done.err
    assert f"unet2d 0.1.0 is installed in {tmp_path / 'bundles' / 'unet2d'}" in done.out
    assert "mean Dice 1.0000, 0 of 179712 voxels differ" in done.out
    assert "of 4 structures, and says nothing of others" in done.out
    assert "the name unet2d now means this bundle, not medseg's own" in done.err
    assert medseg("predict", "bundles/unet2d", scan, "-o", tmp_path / "there").code == 0
    home, there = (nib.load(tmp_path / location / "p0001.nii.gz") for location in ("home", "there"))
    assert len(np.unique(np.asanyarray(home.dataobj))) > 1
    assert np.array_equal(np.asanyarray(home.dataobj), np.asanyarray(there.dataobj))
    assert np.array_equal(home.affine, there.affine)


def test_install_errors_are_one_line_and_leave_nothing(medseg, packed, tmp_path):
    bad = tmp_path / "bad.zip"
    bad.write_bytes(packed.read_bytes()[:-500])
    done = medseg("bundle", "install", bad, "-o", tmp_path / "there")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("Error: ")
    assert "bad.zip" in done.err
    done = medseg("bundle", "install", packed, "-o", tmp_path / "there", "--sha256", "0" * 64)
    assert "its SHA-256 must be" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.zip"]


def test_install_reports_a_skipped_self_test(medseg, packed, tmp_path):
    done = medseg("bundle", "install", packed, "-o", tmp_path / "there", "--no-self-test")
    assert done.code == 0
    assert "The self-test was skipped." in done.err


@pytest.fixture
def file(tmp_path):
    location = tmp_path / "content"
    location.mkdir()
    (location / "LICENSE").write_text("free")
    (location / MANIFEST).write_text(json.dumps(make_manifest(location, {"bundle": "it"})))
    return write_archive(location, tmp_path / "a.zip", "it")


def test_push_copies_to_a_folder_and_prints_how_to_install(medseg, file, tmp_path):
    done = medseg("bundle", "push", file, tmp_path / "share")
    assert done.code == 0
    assert f"medseg bundle install {tmp_path / 'share' / 'a.zip'}" in done.out
    assert (tmp_path / "share" / "a.zip").read_bytes() == file.read_bytes()
    assert (tmp_path / "share" / "a.zip.sha256").is_file()


def test_without_a_network_one_line_says_so(medseg, file, monkeypatch):
    constants = pytest.importorskip("huggingface_hub.constants")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    done = medseg("bundle", "push", file, "hf://o/m")
    assert done.code == 1
    assert done.err.startswith("Error: hf://o/m: the place cannot be reached or written")
    assert "Check the name and the network." in done.err


def test_push_refuses_other_files(medseg, tmp_path):
    (tmp_path / "b.zip").write_text("no zip")
    done = medseg("bundle", "push", tmp_path / "b.zip", tmp_path / "share")
    assert done.code == 1
    assert "the zip is damaged or not safe to unpack" in done.err
    assert not (tmp_path / "share").exists()


@pytest.fixture
def shared_file(file, tmp_path):
    (tmp_path / "share").mkdir()
    return file.rename(tmp_path / "share" / "a.zip")


def test_pull_prints_how_to_inspect_and_install(medseg, shared_file, tmp_path):
    sum_of = hashlib.sha256(shared_file.read_bytes()).hexdigest()
    done = medseg("bundle", "pull", shared_file.parent, "-o", tmp_path / "mine", "--sha256", sum_of)
    assert done.code == 0, done.err
    got = tmp_path / "mine" / "a.zip"
    assert got.read_bytes() == shared_file.read_bytes()
    assert f"medseg bundle install {got}" in done.out


def test_pull_errors_are_one_line(medseg, shared_file, tmp_path):
    done = medseg("bundle", "pull", tmp_path / "nothing.zip", "-o", tmp_path / "mine")
    assert done.code == 1
    assert "the file does not exist" in done.err
    done = medseg("bundle", "pull", shared_file, "-o", tmp_path / "mine", "--sha256", "1" * 64)
    assert done.code == 1
    assert "its SHA-256 must be" in done.err
    assert not (tmp_path / "mine").exists()


def test_pull_takes_a_file_name_as_push_does(medseg, shared_file, tmp_path):
    target = tmp_path / "my files" / "b.zip"
    done = medseg("bundle", "pull", shared_file, "-o", target)
    assert done.code == 0, done.err
    assert target.read_bytes() == shared_file.read_bytes()
    assert target.with_name("b.zip.sha256").read_text().split() == [
        hashlib.sha256(shared_file.read_bytes()).hexdigest(),
        "b.zip",
    ]
    assert f"medseg bundle install '{target}'" in done.out
    (tmp_path / "c.zip").mkdir()  # a folder stays a folder
    assert medseg("bundle", "pull", shared_file, "-o", tmp_path / "c.zip").code == 0
    assert (tmp_path / "c.zip" / "a.zip").is_file()


@pytest.mark.parametrize("names", [["a.json"], ["b.txt"], [], ["it/b.txt"], ["configs/train.json"], ["c/", "a.json"]])
def test_a_zip_that_is_no_bundle_is_one_line(medseg, tmp_path, names):
    path = tmp_path / "it.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "" if name.endswith("/") else "{}")
    for verb, target in (("inspect", []), ("verify", []), ("install", ["-o", tmp_path / "there"])):
        done = medseg("bundle", verb, path, *target)
        assert (done.code, "Traceback" in done.err) == (1, False)
        assert "metadata.json" in done.out + done.err
    assert not (tmp_path / "there").exists()


def printed_command(done, beginning):
    """The words of a command that was printed behind `beginning: `."""
    (line,) = [line.partition(": ")[2] for line in done.out.splitlines() if line.startswith(beginning)]
    return shlex.split(line)


def test_the_printed_commands_run_for_a_bundle_of_slices_in_a_folder_with_a_blank(
    medseg, trained_slices, tmp_path, monkeypatch
):
    folder = tmp_path / "of a colleague"
    folder.mkdir()
    monkeypatch.chdir(folder)
    packed = medseg("bundle", "pack", trained_slices, "-o", folder / "my slices.zip")
    assert packed.code == 0, packed.err
    program, *words = printed_command(packed, "Others install it with")
    installed = medseg(*words)
    assert installed.code == 0, installed.err
    program, *words = printed_command(installed, "Segment images")
    assert (program, words[0], words[2:]) == ("medseg", "predict", ["IMAGES", "-o", "masks"])
    images = sorted((Path(words[1]) / "selftest" / "input").iterdir())
    assert [path.name for path in images] == [f"phantom_{number:04d}.png" for number in range(1, 5)]
    words[2] = images[0].parent
    done = medseg(*words)
    assert done.code == 0, done.err
    assert sorted(path.name for path in (folder / "masks" / "masks").iterdir()) == [path.name for path in images]


def test_two_runs_of_one_recipe_install_side_by_side(medseg, trained, trained_slices, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    second = Path(shutil.copytree(trained, tmp_path / "second"))
    record = json.loads((second / "run.json").read_text())
    (second / "run.json").write_text(json.dumps({**record, "started": "2026-01-02T03:04:05+0000"}))
    for number, arguments in enumerate(([trained], [second], [trained, "--name", "liver-1"])):
        assert medseg("bundle", "pack", *arguments, "-o", f"{number}.zip").code == 0
        done = medseg("bundle", "install", f"{number}.zip", "--no-self-test")
        assert done.code == 0, done.err
        assert "medseg's own" not in done.err
    names = {path.name for path in (tmp_path / "bundles").iterdir()}
    assert names == {f"unet2d-{start_of(trained)}", "unet2d-20260102-030405", "liver-1"}
    assert "weights       model.pt" in medseg("info", "liver-1").out
    assert "Weights: models/model.pt, models/model.safetensors" in medseg("bundle", "inspect", "liver-1").out
    assert medseg("bundle", "pack", "liver-1", "-o", "again.zip").code == 0
    assert medseg("bundle", "install", "again.zip", "-o", "again").code == 0


def test_a_run_that_was_never_validated_says_so_when_it_is_packed(medseg, trained, tmp_path, caplog):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    rows = [line for line in (run / "metrics.jsonl").read_text().splitlines() if '"validation"' not in line]
    (run / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    for file in (run / "run.json", run / "training_history.json"):
        content = json.loads(file.read_text())
        file.write_text(json.dumps({key: value for key, value in content.items() if "best" not in key}))
    assert medseg("bundle", "pack", run, "-o", tmp_path / "a.zip", "--name", "it").code == 0
    assert "was never validated, so nothing says how well it segments" in caplog.text
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        card = archive.read("it/docs/model_card.md").decode()
        assert "It was never validated: how well it segments is not known." in card
        assert "eval_metrics" not in json.loads(archive.read("it/configs/metadata.json"))


def test_inspect_and_info_of_a_run_say_that_it_has_weights(medseg, trained):
    inspected, info = medseg("bundle", "inspect", trained).out, medseg("info", trained).out
    assert "Weights: checkpoints/best.pt, models/model.pt" in inspected
    assert "weights       model.pt" in info
    assert "without weights" not in inspected + info
    assert "Weights: none" in medseg("bundle", "inspect", "unet2d").out
