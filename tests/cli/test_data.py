import json
import shutil

import nibabel as nib
import numpy as np
import pytest


def test_a_phantom_set_is_written(medseg, tmp_path):
    done = medseg("data", "phantom", tmp_path / "set", "--train", 1, "--val", 1, "--test", 0, "--size", 16, 16,
                  "--spacing", 25, 18, 60, "--region", "abdomen", "--seed", 4)  # fmt: skip
    assert done.code == 0, done.err
    assert "2 phantoms" in done.out
    assert len(list((tmp_path / "set").glob("p*/segmentations/*.nii.gz"))) == 2 * 117
    assert json.loads((tmp_path / "set" / "phantom.json").read_text())["spec"]["seed"] == 4


def test_an_invalid_phantom_is_one_error(medseg, tmp_path):
    done = medseg("data", "phantom", tmp_path / "set", "--region", "leg")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("Error: phantom: the regions are trunk")
    assert not (tmp_path / "set").exists()


def test_a_set_is_prepared_and_its_overlaps_are_counted(medseg, case, tmp_path):
    done = medseg("data", "prepare", case, tmp_path / "out", "--structures", "organs")
    assert done.code == 0, done.err
    assert "overlap: spleen over liver, 8 voxels" in done.out or "overlap: spleen over liver" in done.out
    assert (tmp_path / "out" / "datalist.json").is_file()


def test_an_invalid_preparation_is_one_error_and_writes_nothing(medseg, case, tmp_path):
    mask = case / "s0001" / "segmentations" / "liver.nii.gz"
    mask.write_bytes(mask.read_bytes()[:-30])
    done = medseg("data", "prepare", case, tmp_path / "out")
    assert done.code == 1
    assert "liver.nii.gz: the file is damaged or cut short" in done.err
    assert not list((tmp_path / "out").rglob("*.nii.gz"))
    for arguments in ((tmp_path / "nowhere", tmp_path / "out"), (case, case / "out")):
        assert medseg("data", "prepare", *arguments).code == 1
    assert "livr" in medseg("data", "prepare", case, tmp_path / "o", "--structures", "livr").err


def test_a_set_is_prepared_with_every_option(medseg, phantom, tmp_path):
    (tmp_path / "first.txt").write_text("liver  # wins over all\n")
    (tmp_path / "out.txt").write_text("p0003  # moved\n")
    arguments = [phantom, tmp_path / "out", "--structures", "liver", "--structures", "spleen", "--spacing", 9, 9, -1]
    arguments += ["--crop", "--store", "--precedence", tmp_path / "first.txt", "--exclude", tmp_path / "out.txt"]
    arguments += ["--workers", 2]
    done = medseg("data", "prepare", *arguments)
    assert done.code == 0, done.err
    assert "3 cases in" in done.out
    written = json.loads((tmp_path / "out" / "fingerprint.json").read_text())
    assert written["prepared"]["precedence"] == ["liver"]
    assert written["spacing_mm"]["median"][:2] == [9.0, 9.0]
    assert len(list((tmp_path / "out" / "store").iterdir())) == 6
    assert "3 cases in" in (again := medseg("data", "prepare", *arguments)).out
    assert "3 of them from before" in again.out


def test_a_case_that_fails_is_listed_and_the_exit_code_says_so(medseg, phantom, tmp_path):
    shutil.copytree(phantom, tmp_path / "set")
    mask = tmp_path / "set" / "p0001" / "segmentations" / "liver.nii.gz"
    mask.write_bytes(mask.read_bytes()[:-30])
    done = medseg("data", "prepare", tmp_path / "set", tmp_path / "out", "--workers", 0)
    assert done.code == 1
    assert "3 cases in" in done.out
    assert "Left out: p0001" in done.err
    assert "liver.nii.gz: the file is damaged or cut short" in done.err


@pytest.mark.parametrize("value", [255, 0.9999])
def test_masks_of_other_values_need_the_option_that_each_command_names(medseg, case, tmp_path, value):
    for path in (case / "s0001" / "segmentations").iterdir():
        image = nib.load(path)
        nib.save(nib.Nifti1Image((np.asarray(image.dataobj) * value).astype(np.float32), image.affine), path)
    commands = [
        ("data", "check", case),
        ("data", "prepare", case, tmp_path / "prepared"),
        ("data", "convert", case, tmp_path / "raw", "--to", "nnunet"),
        ("evaluate", case, case, "-o", tmp_path / "scores", "--error-maps", 0),
    ]
    for command in commands:
        refused = medseg(*command, "--workers", 0)
        assert refused.code == 1
        assert "--binarize 0.5" in " ".join((refused.out + refused.err).split())
        taken = medseg(*command, "--workers", 0, "--binarize", 0.5)
        assert taken.code == 0, taken.err
    assert medseg("data", "check", tmp_path / "prepared", "--workers", 0).code == 0
    assert medseg(*commands[0], "--binarize", 1).code == 2
