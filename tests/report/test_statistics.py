"""Statistics against a plain computation, structure by structure."""

import csv
import json

import numpy as np
import pytest

from medseg.errors import GeometryError, OutputError
from medseg.grid import Grid
from medseg.labels import LabelMap
from medseg.report import save_statistics, structure_statistics

LABELS = LabelMap(["liver", "spleen", "kidney_left", "kidney_right"])
GRID = Grid((7, 6, 5), np.array([[0, -0.5, 0, 1], [2, 0, 0, 2], [0, 0, 3.0, 3], [0, 0, 0, 1]]))  # 3 mm3 a voxel


@pytest.fixture
def scan():
    rng = np.random.default_rng(0)
    label = np.zeros(GRID.shape, np.uint8)
    label[1:-1, 1:-1, 1:-1] = rng.integers(0, 3, (5, 4, 3))
    label[6, 2, 2] = 4
    return rng.integers(-1000, 1000, GRID.shape).astype(np.int16), label


def plain_statistics(hu, label, index):
    mask = label == index
    inner = np.zeros(label.shape, bool)
    inner[1:-1, 1:-1, 1:-1] = True
    mean = pytest.approx(hu[mask].astype(float).mean()) if mask.any() else None
    return int(mask.sum()), pytest.approx(mask.sum() * 0.003), mean, bool((mask & ~inner).any())


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_statistics_equal_a_plain_computation(scan, order, kind):
    hu, label = scan[0].astype(kind, order=order), scan[1].copy(order=order)
    rows = structure_statistics(hu, label, GRID, LABELS)
    assert [row.structure for row in rows] == list(LABELS)
    for row in rows:
        assert (row.voxels, row.volume_ml, row.mean_hu, row.touches_border) == plain_statistics(hu, label, row.index)
    assert [row.touches_border for row in rows] == [False, False, False, True]


@pytest.mark.parametrize(("axis", "end"), [(axis, end) for axis in range(3) for end in (0, -1)])
def test_each_face_is_border(axis, end):
    label = np.zeros(GRID.shape, np.uint8)
    np.moveaxis(label, axis, 0)[end, 2, 2] = 1
    assert structure_statistics(label, label, GRID, LABELS)[0].touches_border


def test_absent_structures_have_no_mean_and_only_requested_ones_are_returned(scan):
    hu, label = scan
    (kidney,) = structure_statistics(hu, label, GRID, LABELS, only=["kidney_left"])
    assert (kidney.voxels, kidney.volume_ml, kidney.mean_hu, kidney.touches_border) == (0, 0.0, None, False)


def test_json_and_table_agree(scan, tmp_path):
    path = save_statistics(tmp_path / "a.statistics.json", structure_statistics(*scan, GRID, LABELS), GRID, "a.nii.gz")
    written = json.loads(path.read_text())
    assert (written["scan"], written["spacing_mm"]) == ("a.nii.gz", [2.0, 0.5, 3.0])
    with (tmp_path / "a.statistics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(written["structures"]) == 4
    for cells, row in zip(table, written["structures"], strict=True):
        assert cells.pop("warnings") == ""
        assert cells == {key: "" if value is None else str(value) for key, value in row.items()}
    assert written["structures"][2]["mean_hu"] is None


def test_other_shapes_and_folders_that_cannot_be_written_are_refused(scan, tmp_path):
    hu, label = scan
    with pytest.raises(GeometryError, match=r"the scan has the shape \(6, 6, 5\), the label map \(7, 6, 5\)"):
        structure_statistics(hu[1:], label, GRID, LABELS)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="the folder cannot be written"):
        save_statistics(tmp_path / "file" / "a.json", [], GRID, "a")
