"""Check label maps, and the loops that only numba compiles."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg.errors import LabelError, MissingExtraError
from medseg.metrics import label_arrays


@pytest.mark.parametrize(("classes", "kind"), [(256, np.uint8), (257, np.uint16)])
def test_label_maps_become_the_smallest_integer_type(classes, kind):
    for given in (np.array([0, 3], np.int64), np.array([0.0, 3.0]), torch.tensor([0, 3]), MetaTensor([0.0, 3.0])):
        result = label_arrays.class_indices(given, classes, "truth")
        assert result.dtype == kind
        assert result.tolist() == [0, 3]


def test_a_label_map_of_the_right_type_is_not_copied():
    given = np.zeros((2, 3), np.uint8)
    assert np.shares_memory(label_arrays.class_indices(given, 4, "truth"), given)
    assert np.shares_memory(label_arrays.class_indices(torch.from_numpy(given), 4, "truth"), given)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([0.0, 0.5]), "case s1, truth: must hold whole numbers, but some values lie between them"),
        (np.array([0.0, np.nan]), "some values are NaN or infinite"),
        (np.array([0.0, np.inf]), "some values are NaN or infinite"),
        (np.array([-1, 0]), "must hold labels from 0 to 3 [(]got -1 to 0"),
        (np.array([1j]), "must hold class indices [(]got complex128"),
    ],
)
def test_arrays_that_are_no_label_map_are_refused(values, message):
    with pytest.raises(LabelError, match=message):
        label_arrays.class_indices(values, 4, "truth", "s1")


def test_without_numba_there_are_no_compiled_loops(monkeypatch):
    def missing(_name):
        raise MissingExtraError("numba")

    monkeypatch.setattr(label_arrays.importlib, "import_module", missing)
    label_arrays.loops.cache_clear()
    assert label_arrays.loops() is None
    label_arrays.loops.cache_clear()


def compiled_loops():
    pytest.importorskip("numba")
    return label_arrays.loops()


def test_runs_are_counted_to_their_ends():
    count_loops = compiled_loops()
    truth, prediction = np.array([1, 1, 1, 0, 0, 1], np.uint8), np.array([1, 1, 0, 0, 0, 1], np.uint8)
    counts = np.zeros((2, 2), np.int64)
    count_loops.count_pairs(truth, prediction, counts)
    assert counts.tolist() == [[2, 0], [1, 3]]
    count_loops.count_pairs(truth[:0], prediction[:0], counts)
    assert counts.sum() == 6


def test_steps_that_leave_the_volume_or_end_on_another_label_do_not_count():
    count_loops = compiled_loops()
    surface = np.zeros((1, 1, 4), np.uint8)
    surface[0, 0, 3], surface[0, 0, 1] = 1, 2
    steps = np.array([[0, 0, 0], [0, 0, -1], [0, 0, 1], [0, 0, 2], [0, 0, 3]])
    distances = np.empty(2)
    voxels, label = np.array([[0, 0, 0], [0, 0, 0]]), np.array([1, 3], np.uint8)
    count_loops.nearest(voxels, label, surface, steps, np.array([0.0, 1, 1, 2, 3]), distances)
    assert distances.tolist() == [3.0, -1.0]
