"""What a new user does: a new environment, medseg from the zip, install, predict; the voxels are those of home."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.bundle import Bundle, Predictor
from medseg.bundle.share import pack_bundle

BOTH = (
    "import sys\n"
    "from medseg.cli import main\n"
    "import medseg; print(medseg.__file__)\n"
    "for arguments in (['bundle', 'install', sys.argv[1]], ['predict', 'unet2d', sys.argv[2], '-o', 'masks']):\n"
    "    try: main(arguments)\n"
    "    except SystemExit as end: assert not end.code, end.code\n"
)


@pytest.fixture(scope="module")
def zipped(tmp_path_factory, trained):
    pytest.importorskip("setuptools", minversion="77", reason="needs setuptools 77")
    return pack_bundle(trained, tmp_path_factory.mktemp("zipped") / "tiny.zip", with_wheel=True)


def run(*command, cwd):
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=cwd, env=clean)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(location, zipped, *options):
    """A new environment with medseg from the zip; its Python."""
    run(sys.executable, "-m", "venv", location / "env", cwd=location)
    python = next(path for path in (location / "env").glob("*/python*") if path.stem == "python")
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(location / "content")
    (wheel,) = (location / "content").glob("*/wheels/*.whl")
    lock = wheel.parents[1] / "requirements.lock"
    run(python, "-m", "pip", "install", "--quiet", wheel, "-c", lock, *options, cwd=location)
    return python


def same_as_home(location, python, zipped, trained, scan):
    said = run(python, "-c", BOTH, zipped, scan, cwd=location)
    assert str(location / "env") in said
    assert "0 of 158976 voxels differ" in said
    home = Predictor(Bundle(trained), {"device": "cpu"}).predict_case(scan)
    there = nib.load(location / "masks" / "p0000.nii.gz")
    assert len(np.unique(home.label)) > 1
    assert np.array_equal(np.asanyarray(there.dataobj), home.label)


def test_in_an_environment_with_nothing_of_this_checkout(zipped, trained, phantom, tmp_path):
    """Other packages are borrowed from here, which saves a download of gigabytes; medseg is the wheel's."""
    python = environment(tmp_path, zipped, "--no-deps", "--no-index")
    site = next((tmp_path / "env").glob("**/site-packages/medseg")).parent
    borrowed = tmp_path / "borrowed"
    borrowed.mkdir()
    for package in Path(np.__file__).parents[1].iterdir():
        if "medseg" not in package.name.lower() and not package.name.endswith(".pth"):
            (borrowed / package.name).symlink_to(package)
    (site / "borrowed.pth").write_text(str(borrowed))
    same_as_home(tmp_path, python, zipped, trained, phantom / "p0000" / "ct.nii.gz")


@pytest.mark.long
def test_in_an_environment_made_anew(zipped, trained, phantom, tmp_path):
    python = environment(tmp_path, zipped)
    same_as_home(tmp_path, python, zipped, trained, phantom / "p0000" / "ct.nii.gz")
