"""The compiled loops are tested through `overlap` and `surface`; here is what only they do."""

import numpy as np
import pytest

pytest.importorskip("numba")

from medseg.metrics import compiled


def test_runs_are_counted_to_their_ends():
    truth, prediction = np.array([1, 1, 1, 0, 0, 1], np.uint8), np.array([1, 1, 0, 0, 0, 1], np.uint8)
    counts = np.zeros((2, 2), np.int64)
    compiled.count_pairs(truth, prediction, counts)
    assert counts.tolist() == [[2, 0], [1, 3]]
    compiled.count_pairs(truth[:0], prediction[:0], counts)
    assert counts.sum() == 6


def test_steps_that_leave_the_volume_or_end_elsewhere_do_not_count():
    surface = np.zeros((1, 1, 4), np.uint8)
    surface[0, 0, 3], surface[0, 0, 1] = 1, 2
    steps = np.array([[0, 0, 0], [0, 0, -1], [0, 0, 1], [0, 0, 2], [0, 0, 3]])
    found = np.empty(2)
    places, label = np.array([[0, 0, 0], [0, 0, 0]]), np.array([1, 3], np.uint8)
    compiled.nearest(places, label, surface, steps, np.array([0.0, 1, 1, 2, 3]), found)
    assert found.tolist() == [3.0, -1.0]
