"""Small folders of predictions and truths."""

from types import SimpleNamespace

import numpy as np
import pytest

from medseg.data.nifti_writer import write_label_map
from medseg.grid import Grid
from medseg.labels import LabelMap

AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
TRUE = LabelMap(["liver", "spleen", "kidney_left"])
OTHER = LabelMap(["kidney_left", "gizmo", "liver", "spleen"])  # the same names, numbered otherwise


def renumber(label, source, target):
    table = np.array([target.index(name) if name in target else 0 for name in source.names])
    table[0] = 0
    return table[label].astype(np.uint8)


@pytest.fixture(scope="session")
def kit():
    """What the tests build their own cases from."""
    return SimpleNamespace(AFFINE=AFFINE, TRUE=TRUE, OTHER=OTHER, renumber=renumber, volume=volume)


@pytest.fixture
def put(tmp_path):
    """Write a label map: `put("truth/a.nii.gz", array, labels)`."""

    def write(name, label, labels=TRUE, affine=AFFINE):
        return write_label_map(tmp_path / name, np.asarray(label, np.uint8), Grid(label.shape, affine), labels)

    return write


def volume(shift=0):
    """A liver that moves with `shift`, a spleen that does not."""
    label = np.zeros((12, 10, 8), np.uint8)
    label[1 + shift : 6 + shift, 2:7, 1:6] = 1
    label[8:11, 6:9, 2:5] = 2
    return label


@pytest.fixture
def folders(put, tmp_path):
    """Three cases; the predictions are numbered otherwise and get worse from case to case."""
    for shift, case in enumerate(("a", "b", "c")):
        put(f"truth/{case}.nii.gz", volume())
        put(f"pred/{case}.nii.gz", renumber(volume(shift), TRUE, OTHER), OTHER)
    return tmp_path / "pred", tmp_path / "truth"
