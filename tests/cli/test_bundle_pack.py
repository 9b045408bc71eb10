"""`medseg bundle pack`: what it says, and what it refuses; the work itself has tests of its own."""

import hashlib
import json
import logging
import zipfile

import pytest


def test_a_run_becomes_a_zip_whose_sum_is_said(medseg, trained, tmp_path, caplog):
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
        (["unet2d", "-o", "a.zip"], 1, "must hold the trained weights to be packed"),
        (["unett2d", "-o", "a.zip"], 1, "Did you mean 'unet2d'"),
        (["unet2d", "-o", "a.zip", "--metadata", "version"], 2, "must be KEY=TEXT"),
        (["unet2d"], 2, "Missing option '-o'"),
    ],
)
def test_what_cannot_be_packed_is_said_in_one_line(medseg, tmp_path, monkeypatch, arguments, code, why):
    done = medseg(
        "bundle", "pack", *arguments[:1], *[tmp_path / one if one == "a.zip" else one for one in arguments[1:]]
    )
    assert done.code == code
    assert why in done.err
    assert not list(tmp_path.iterdir())
