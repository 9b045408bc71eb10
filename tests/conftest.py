"""What the tests share: small images on disk, a phantom data set, real data where it lies beside the project."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.data.phantom import PhantomSpec, write_phantom

os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # as the command line does, see medseg.cli.main
os.environ["MEDSEG_STATE_DIR"] = tempfile.mkdtemp(prefix="medseg-state-")  # not the one of this user
os.environ["MEDSEG_MONITOR"] = "off"  # runs start no tracker, except where a test is about it
for name, heard in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
    # a shell that starts the tests in the background lets them ignore these, and their processes with them
    if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        signal.signal(getattr(signal, name), heard)
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
    return PhantomSpec(train=2, val=1, test=1, seed=3, size=(48, 40), spacing=(8.0, 7.0, 18.0), region="abdomen")


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


def _element(group: int, number: int, kind: str, value: bytes) -> bytes:
    """One DICOM element, explicit VR, little endian."""
    value += (b"\0" if kind in ("UI", "OW") else b" ") * (len(value) % 2)
    head = group.to_bytes(2, "little") + number.to_bytes(2, "little") + kind.encode()
    return (
        head
        + (bytes(2) + len(value).to_bytes(4, "little") if kind == "OW" else len(value).to_bytes(2, "little"))
        + value
    )


def dicom_bytes(pixels: np.ndarray, position: tuple[float, ...] | None, **changes: object) -> bytes:
    """One CT slice, `(rows, columns)` in HU, as a DICOM file written by hand; `changes` go by DICOM keyword."""
    rows, columns = pixels.shape
    said = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        "SOPInstanceUID": f"1.2.3.{hash(position) % 10**9}",
        "Modality": "CT",
        "SliceThickness": 3.0,
        "SeriesInstanceUID": "1.2.3.4",
        "SeriesNumber": 1,
        "ImagePositionPatient": position,
        "ImageOrientationPatient": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": rows,
        "Columns": columns,
        "PixelSpacing": (1.0, 1.0),
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleIntercept": -1024.0,
        "RescaleSlope": 1.0,
        **changes,
    }
    tags = {
        "SOPClassUID": (0x8, 0x16, "UI"), "SOPInstanceUID": (0x8, 0x18, "UI"), "Modality": (0x8, 0x60, "CS"),
        "SliceThickness": (0x18, 0x50, "DS"), "SeriesInstanceUID": (0x20, 0xE, "UI"),
        "SeriesNumber": (0x20, 0x11, "IS"),
        "ImagePositionPatient": (0x20, 0x32, "DS"), "ImageOrientationPatient": (0x20, 0x37, "DS"),
        "SamplesPerPixel": (0x28, 0x2, "US"), "PhotometricInterpretation": (0x28, 0x4, "CS"),
        "Rows": (0x28, 0x10, "US"),
        "Columns": (0x28, 0x11, "US"), "PixelSpacing": (0x28, 0x30, "DS"), "BitsAllocated": (0x28, 0x100, "US"),
        "BitsStored": (0x28, 0x101, "US"), "HighBit": (0x28, 0x102, "US"), "PixelRepresentation": (0x28, 0x103, "US"),
        "RescaleIntercept": (0x28, 0x1052, "DS"), "RescaleSlope": (0x28, 0x1053, "DS"),
    }  # fmt: skip
    body = b""
    for name, (group, number, kind) in tags.items():
        value = said[name]
        if value is None:
            continue
        if kind == "US":
            coded = int(str(value)).to_bytes(2, "little")
        else:
            coded = "\\".join(str(one) for one in (value if isinstance(value, tuple) else (value,))).encode()
        body += _element(group, number, kind, coded)
    slope, intercept = float(str(said["RescaleSlope"])), float(str(said["RescaleIntercept"]))
    stored = np.round((pixels - intercept) / slope).astype("<i2")
    body += _element(0x7FE0, 0x10, "OW", stored.tobytes())
    meta = _element(0x2, 0x2, "UI", b"1.2.840.10008.5.1.4.1.1.2") + _element(0x2, 0x3, "UI", b"1.2.3")
    meta += _element(0x2, 0x10, "UI", b"1.2.840.10008.1.2.1")
    return bytes(128) + b"DICM" + _element(0x2, 0x0, "UL", len(meta).to_bytes(4, "little")) + meta + body


@pytest.fixture
def save_dicom(tmp_path: Path) -> Save:
    """Write a volume `(columns, rows, slices)` as an axial DICOM series: `save_dicom(name, hu, step, **changes)`.

    A change that is a function gets the number of the slice; `skip` leaves a slice out.
    """

    def write(name: str, hu: np.ndarray, step: float = 3.0, **changes: object) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        for k in range(hu.shape[2]):
            own = {key: value(k) if callable(value) else value for key, value in changes.items()}
            if own.pop("skip", False):
                continue
            position = own.pop("ImagePositionPatient", (-20.0, -30.0, 100.0 + step * k))
            # named against the order, so that names cannot be what sorts them
            file = folder / f"IM{hu.shape[2] - k:03d}{own.pop('suffix', '')}.dcm"
            file.write_bytes(dicom_bytes(hu[:, :, k].T, position, **own))  # type: ignore[arg-type]
        return folder

    return write
