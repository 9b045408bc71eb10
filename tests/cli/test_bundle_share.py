"""`medseg bundle pack`, `install`, `push` and `pull`: what is printed and refused; the work has its own tests."""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import zipfile

import nibabel as nib
import numpy as np
import pytest

from medseg.bundle.share.archive import write_archive
from medseg.bundle.verify.manifest import MANIFEST, make_manifest

pytestmark = pytest.mark.slow


def test_pack_prints_the_sha256(medseg, trained, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    path = tmp_path / "out" / "a.zip"
    done = medseg("bundle", "pack", trained, "-o", path, "--torchscript", "--metadata", "version=3.1.0")
    assert done.code == 0, done.err
    assert f"SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()}" in done.out
    assert "Left out: train.json: dataset_dir" in caplog.text
    with zipfile.ZipFile(path) as archive:
        assert "unet2d/models/model.ts" in archive.namelist()
        assert json.loads(archive.read("unet2d/configs/metadata.json"))["version"] == "3.1.0"


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

    return pack_bundle(trained, tmp_path_factory.mktemp("packed") / "tiny.zip")


def test_an_installed_bundle_predicts_the_same_voxels(medseg, packed, trained, phantom, tmp_path, monkeypatch):
    scan = phantom / "p0001" / "ct.nii.gz"
    assert medseg("predict", trained, scan, "-o", tmp_path / "home").code == 0
    monkeypatch.chdir(tmp_path)
    done = medseg("bundle", "install", packed)
    assert done.code == 0, done.err
    assert f"unet2d 0.1.0 is installed in {tmp_path / 'bundles' / 'unet2d'}" in done.out
    assert "mean Dice 1.0000, 0 of 158976 voxels differ" in done.out
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
    assert "it is not a complete zip file" in done.err
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
