"""`medseg bundle install`: the voxels at home are the voxels elsewhere, through the commands alone."""

import nibabel as nib
import numpy as np
import pytest


@pytest.fixture(scope="module")
def packed(tmp_path_factory, trained):
    from medseg.bundle.share import pack_bundle

    return pack_bundle(trained, tmp_path_factory.mktemp("packed") / "tiny.zip")


def test_packed_installed_and_predicted_it_gives_the_voxels_of_home(
    medseg, packed, trained, phantom, tmp_path, monkeypatch
):
    scan = phantom / "p0001" / "ct.nii.gz"
    assert medseg("predict", trained, scan, "-o", tmp_path / "home").code == 0
    monkeypatch.chdir(tmp_path)
    done = medseg("bundle", "install", packed)
    assert done.code == 0, done.err
    assert f"unet2d 0.1.0 installed in {tmp_path / 'bundles' / 'unet2d'}" in done.out
    assert "mean Dice 1.0000, 0 of 158976 voxels differ" in done.out
    assert "of 4 structures; of others it says nothing" in done.out
    assert "hides medseg's own unet2d" in done.err
    assert medseg("predict", "bundles/unet2d", scan, "-o", tmp_path / "there").code == 0
    home, there = (nib.load(tmp_path / location / "p0001.nii.gz") for location in ("home", "there"))
    assert len(np.unique(np.asanyarray(home.dataobj))) > 1
    assert np.array_equal(np.asanyarray(home.dataobj), np.asanyarray(there.dataobj))
    assert np.array_equal(home.affine, there.affine)


def test_what_is_refused_is_said_in_one_line_and_leaves_nothing(medseg, packed, tmp_path):
    bad = tmp_path / "bad.zip"
    bad.write_bytes(packed.read_bytes()[:-500])
    done = medseg("bundle", "install", bad, "-o", tmp_path / "there")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("Error: ")
    assert "bad.zip" in done.err
    done = medseg("bundle", "install", packed, "-o", tmp_path / "there", "--sha256", "0" * 64)
    assert "must have the SHA-256" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.zip"]


def test_without_the_self_test_that_is_said(medseg, packed, tmp_path):
    done = medseg("bundle", "install", packed, "-o", tmp_path / "there", "--no-self-test")
    assert done.code == 0
    assert "No self-test was run." in done.err
