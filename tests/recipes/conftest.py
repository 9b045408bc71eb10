"""Every bundle at its smallest: settings by name in tiny/, the phantom it trains on, a run of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medseg.data import SlicePhantomSpec, write_slice_phantom

COMMON = {"max_epochs": 1, "num_workers": 0, "device": "cpu"}


def is_of_slices(root: Path) -> bool:
    """Whether a bundle takes pictures."""
    return bool(json.loads((root / "configs" / "train.json").read_text())["data"].get("slices"))


@pytest.fixture(scope="session")
def slice_phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom of slices: two patients to train on, one to validate, two slices each; not to be changed."""
    spec = SlicePhantomSpec(train=2, val=1, slices=2, size=(40, 48), seed=3)
    return write_slice_phantom(tmp_path_factory.mktemp("slices") / "set", spec)


@pytest.fixture
def data(root: Path, phantom: Path, slice_phantom: Path) -> Path:
    """The data set that the bundle `root` trains on."""
    return slice_phantom if is_of_slices(root) else phantom


@pytest.fixture
def unseen(root: Path, phantom: Path, slice_phantom: Path) -> Path:
    """What the bundle `root` is given to segment."""
    return slice_phantom / "valid" / "images" if is_of_slices(root) else phantom / "p0003"


@pytest.fixture
def small(root: Path) -> dict[str, Any]:
    """Overrides with which the bundle `root` trains an epoch of two iterations in a second or two."""
    return {**COMMON, **json.loads((Path(__file__).parent / "tiny" / f"{root.name}.json").read_text())}


@pytest.fixture
def settings(small: dict[str, Any], data: Path, runs: Path) -> dict[str, Any]:
    return {**small, "dataset_dir": str(data)}


@pytest.fixture(scope="session")
def _runs() -> dict[str, Path]:
    return {}


@pytest.fixture
def bundle_run(
    root: Path, small: dict[str, Any], data: Path, _runs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a run of the bundle `root`: two epochs of two iterations; not to be changed."""
    from medseg.bundle import Bundle, run_bundle

    if root.name not in _runs:
        folder = tmp_path_factory.mktemp("run")
        overrides = {**small, "max_epochs": 2, "dataset_dir": str(data), "output_dir": str(folder)}
        run_bundle(Bundle(root), "training", "train", (), overrides)
        (record,) = folder.glob(f"{root.name}/*/run.json")
        _runs[root.name] = record.parent
    return _runs[root.name]
