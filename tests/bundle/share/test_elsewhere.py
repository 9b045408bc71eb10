"""What a new user does: a new environment, medseg from its wheel, install, predict; the voxels are the same."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.bundle import Bundle, Predictor
from medseg.bundle.share import pack_bundle

pytestmark = pytest.mark.slow

BOTH = (
    "import sys\n"
    "from medseg.cli import main\n"
    "import medseg; print(medseg.__file__)\n"
    "for arguments in (['bundle', 'install', sys.argv[1]], ['predict', 'unet2d', sys.argv[2], '-o', 'masks']):\n"
    "    try: main(arguments)\n"
    "    except SystemExit as end: assert not end.code, end.code\n"
)


SOURCE = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "medseg", "bundles", "configs")


@pytest.fixture(scope="module")
def zipped(tmp_path_factory, trained):
    return pack_bundle(trained, tmp_path_factory.mktemp("zipped") / "tiny.zip", metadata={"name": "unet2d"})


@pytest.fixture(scope="module")
def wheel(tmp_path_factory, repository):
    """medseg's wheel, built from a copy of the source, because setuptools leaves files beside what it builds."""
    pytest.importorskip("setuptools", minversion="77", reason="needs setuptools 77")
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    skipped = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", ".*", "*.pt", "*.safetensors")
    for name in SOURCE:
        if (repository / name).is_dir():
            shutil.copytree(repository / name, folder / "source" / name, ignore=skipped)
        else:
            shutil.copyfile(repository / name, folder / "source" / name)
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(folder)!r})"
    run(sys.executable, "-c", code, cwd=folder / "source")
    (path,) = folder.glob("*.whl")
    return path


def run(*command, cwd):
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, cwd=cwd, env=clean)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(location, wheel, zipped, *options):
    """A new environment with medseg's wheel, and the versions that the bundle was packed with; its Python."""
    run(sys.executable, "-m", "venv", location / "env", cwd=location)
    python = next(path for path in (location / "env").glob("*/python*") if path.stem == "python")
    with zipfile.ZipFile(zipped) as archive:
        archive.extractall(location / "content")
    (lock,) = (location / "content").glob("*/requirements.lock")
    run(python, "-m", "pip", "install", "--quiet", f"{wheel}[share]", "-c", lock, *options, cwd=location)
    return python


def assert_same_as_home(location, python, zipped, trained, scan):
    output = run(python, "-c", BOTH, zipped, scan, cwd=location)
    assert str(location / "env") in output
    assert "0 of 179712 voxels differ" in output
    home = Predictor(Bundle(trained), {"device": "cpu"}).predict_case(scan)
    there = nib.load(location / "masks" / "p0000.nii.gz")
    assert len(np.unique(home.label)) > 1
    assert np.array_equal(np.asanyarray(there.dataobj), home.label)


def test_install_in_an_environment_without_this_checkout(zipped, wheel, trained, phantom, tmp_path):
    """Other packages are borrowed from here, which saves a download of gigabytes; medseg is the wheel's."""
    python = environment(tmp_path, wheel, zipped, "--no-deps", "--no-index")
    site = next((tmp_path / "env").glob("**/site-packages/medseg")).parent
    borrowed = tmp_path / "borrowed"
    borrowed.mkdir()
    for package in Path(np.__file__).parents[1].iterdir():
        if "medseg" not in package.name.lower() and not package.name.endswith(".pth"):
            (borrowed / package.name).symlink_to(package)
    (site / "borrowed.pth").write_text(str(borrowed))
    assert_same_as_home(tmp_path, python, zipped, trained, phantom / "p0000" / "ct.nii.gz")


@pytest.mark.long
def test_install_in_a_new_environment(zipped, wheel, trained, phantom, tmp_path):
    python = environment(tmp_path, wheel, zipped)
    assert_same_as_home(tmp_path, python, zipped, trained, phantom / "p0000" / "ct.nii.gz")
