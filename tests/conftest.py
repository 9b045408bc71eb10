"""What the tests share: small images on disk, a phantom data set, real data where it lies beside the project."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.data.phantom import PhantomSpec, write_phantom

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the command line does, see medseg.cli.main
REPOSITORY = Path(__file__).resolve().parent.parent
REAL = Path(os.environ.get("MEDSEG_TEST_DATA", REPOSITORY.parent / "shared" / "data"))


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def real() -> Path:
    """The folder of real test data; tests that want it are skipped where it is not."""
    if not REAL.is_dir():
        pytest.skip(f"no real test data in {REAL} (MEDSEG_TEST_DATA says where it is)")
    return REAL


@pytest.fixture(scope="session")
def tiny_spec() -> PhantomSpec:
    return PhantomSpec(train=2, val=1, test=1, seed=3, size=(48, 40), spacing=(8.0, 7.0, 20.0), region="abdomen")


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory, tiny_spec: PhantomSpec) -> Path:
    """A phantom data set of four small abdomens in the TotalSegmentator layout; not to be changed."""
    return write_phantom(tmp_path_factory.mktemp("phantom") / "set", tiny_spec)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs go to a folder of the test's own."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("MEDSEG_RUNS", str(folder))
    return folder


Save = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Write an array as NIfTI: `save(name, array, affine)`."""

    def write(name: str | Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)
        return path

    return write


@pytest.fixture
def case(save: Save, tmp_path: Path) -> Path:
    """One case in the TotalSegmentator layout: a CT, a liver and a spleen that overlap."""
    rng = np.random.default_rng(0)
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    save("set/s0001/ct.nii.gz", rng.integers(-200, 200, (12, 10, 8)).astype(np.int16), affine)
    liver, spleen = np.zeros((12, 10, 8), np.uint8), np.zeros((12, 10, 8), np.uint8)
    liver[2:8, 2:8, 2:6], spleen[6:10, 6:9, 4:8] = 1, 1
    save("set/s0001/segmentations/liver.nii.gz", liver, affine)
    save("set/s0001/segmentations/spleen.nii.gz", spleen, affine)
    return tmp_path / "set"


TINY_OVERRIDES = {
    "structures": ["liver", "spleen", "kidney_left", "kidney_right"],
    "spacing": [-1, -1, -1],
    "patch_size": [32, 32],
    "network_def#features": [4, 4, 8, 8, 8, 4],
    "max_epochs": 1,
    "samples_per_case": 4,
    "batch_size": 4,
    "num_workers": 0,
    "device": "cpu",
}


@pytest.fixture(scope="session")
def tiny() -> dict[str, object]:
    """Overrides with which the unet2d bundle trains an epoch on the phantom in a second or two."""
    return dict(TINY_OVERRIDES)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, phantom: Path, tiny: dict[str, object]) -> Path:
    """The folder of a run of unet2d: two epochs of two iterations on the phantom; not to be changed."""
    from medseg.bundle import Bundle, run_bundle

    folder = tmp_path_factory.mktemp("trained")
    overrides = {**tiny, "max_epochs": 2, "dataset_dir": str(phantom), "output_dir": str(folder)}
    run_bundle(Bundle.open("unet2d"), "training", "train", (), overrides)
    (record,) = folder.glob("unet2d/*/run.json")
    assert json.loads(record.read_text())["state"] == "finished"
    return record.parent
