"""Compare with MONAI, with brute force over all pairs of surface voxels, and by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from monai.metrics import (
    HausdorffDistanceMetric,
    compute_average_surface_distance,
    compute_hausdorff_distance,
    compute_surface_dice,
)
from scipy import ndimage

from medseg.errors import GeometryError, LabelError
from medseg.metrics import surface, surface_distances

TWICE = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
QUIET = pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning", "ignore:the .*:UserWarning")
SPACINGS = st.tuples(*[st.floats(0.3, 6.0)] * 3)


def cube(shape, *corners):
    """Class 1 in one box, `(start, stop)` along each axis."""
    result = np.zeros(shape, np.uint8)
    result[tuple(slice(*pair) for pair in corners)] = 1
    return result


def figures(result, tolerances=(1.0, 3.0)):
    return [result.asd(), result.hausdorff(), *(result.nsd(tolerance) for tolerance in tolerances)]


def monai(prediction, truth, classes, spacing, tolerance):
    hot = [
        torch.nn.functional.one_hot(torch.tensor(np.ascontiguousarray(part, np.int64)), classes).movedim(-1, 0)[None]
        for part in (prediction, truth)
    ]
    spacing = tuple(float(length) for length in spacing)
    return [
        compute_average_surface_distance(*hot, symmetric=True, spacing=spacing)[0],
        compute_hausdorff_distance(*hot, percentile=95, spacing=spacing)[0],
        compute_surface_dice(*hot, [tolerance] * (classes - 1), spacing=spacing)[0],
    ]


def compare(prediction, truth, classes, spacing, tolerance):
    result = surface_distances(prediction, truth, classes, spacing)
    expected = monai(prediction, truth, classes, spacing, tolerance)
    checked = 0
    for index, one in enumerate(result):
        if one.comparable:
            ours = [one.asd(), one.hausdorff(), one.nsd(tolerance)]
            np.testing.assert_allclose(ours, [float(part[index]) for part in expected], rtol=2e-5)
            checked += 1
    return checked


@QUIET
@TWICE
@given(st.integers(0, 10**6), SPACINGS, st.floats(0.0, 8.0), st.booleans())
def test_monai_gives_the_same_for_blobs_that_touch(either, seed, spacing, tolerance, fortran):
    rng = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(rng.normal(size=(2, 4, 14, 12, 10)), (0, 0, 2, 2, 2))
    truth, prediction = (np.array(one, order="F" if fortran else "C") for one in fields.argmax(axis=1).astype(np.uint8))
    lengths = np.linalg.norm(np.indices((14, 12, 10)).reshape(3, -1).T * spacing, axis=1)
    assume(np.abs(lengths - tolerance).min() > 1e-5)  # at the tolerance itself float32 decides on their side
    assert compare(prediction, truth, 4, spacing, tolerance) > 0


@QUIET
@pytest.mark.parametrize("shape", [(16, 12), (9, 8, 7)])
def test_monai_gives_the_same_for_noise_in_2d_and_3d(either, shape):
    rng = np.random.default_rng(4)
    prediction, truth = rng.integers(0, 5, (2, *shape))
    assert compare(prediction, truth, 5, (0.7, 1.1, 3.0)[: len(shape)], 1.5) == 4


@QUIET
@pytest.mark.parametrize(
    ("prediction", "truth"),
    [
        (cube((6, 5, 4), (0, 6), (0, 5), (0, 4)), cube((6, 5, 4), (0, 6), (0, 5), (0, 4))),  # full
        (cube((6, 5, 4), (0, 6), (0, 5), (0, 4)), cube((6, 5, 4), (2, 3), (2, 3), (2, 3))),  # full, one voxel
        (cube((6, 5, 4), (5, 6), (4, 5), (3, 4)), cube((6, 5, 4), (0, 1), (0, 1), (0, 1))),  # one voxel in each corner
        (cube((6, 5, 4), (0, 3), (0, 5), (0, 4)), cube((6, 5, 4), (1, 4), (1, 5), (0, 4))),  # at the border
    ],
)
def test_monai_gives_the_same_at_the_border(either, prediction, truth):
    assert compare(prediction, truth, 2, (1.0, 2.0, 4.0), 3.0) == 1


@TWICE
@given(st.integers(0, 10**6), SPACINGS, st.sampled_from([2, 300]))
def test_brute_force_finds_the_same_partners(either, seed, spacing, classes):
    rng = np.random.default_rng(seed)
    truth, prediction = rng.integers(0, 2, (2, 7, 6, 5)) * (classes - 1)
    cross = ndimage.generate_binary_structure(3, 1)
    edges = [
        np.argwhere((part > 0) & ~ndimage.binary_erosion(part > 0, cross)) * spacing for part in (prediction, truth)
    ]
    apart = np.linalg.norm(edges[0][:, None] - edges[1][None], axis=-1)
    result = surface_distances(prediction, truth, classes, spacing)[-1]
    np.testing.assert_allclose(np.sort(result.to_truth), np.sort(apart.min(axis=1)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.sort(result.to_prediction), np.sort(apart.min(axis=0)), rtol=1e-12, atol=1e-12)


def test_far_away_partners_are_found_by_the_tree(either):
    truth, prediction = cube((90, 4, 4), (0, 1), (0, 1), (0, 1)), cube((90, 4, 4), (89, 90), (0, 1), (0, 1))
    result = surface_distances(prediction, truth, 2, (2.0, 1.0, 1.0))[0]
    assert result.to_truth.tolist() == result.to_prediction.tolist() == [178.0]
    assert surface_distances(prediction, truth, 2, (0.01, 0.01, 1000.0))[0].hausdorff() == pytest.approx(0.89)


def test_two_cubes_one_voxel_apart_by_hand(either):
    truth, prediction = cube((9, 9, 9), (2, 5), (2, 5), (2, 5)), cube((9, 9, 9), (2, 5), (2, 5), (3, 6))
    result = surface_distances(prediction, truth, 2, (1.0, 1.0, 3.0))[0]
    # 26 surface voxels each. Of the prediction's 9 new ones each is 3 mm from a voxel of the truth; of its other 17
    # the one that is the truth's center is 1 mm from the truth's surface, the rest lie on it.
    assert sorted(result.to_truth.tolist()) == [0.0] * 16 + [1.0] + [3.0] * 9
    assert result.asd() == pytest.approx((1 + 27) / 26)
    assert result.nsd(1.0) == pytest.approx(17 / 26)
    assert result.nsd(3.0) == 1.0
    assert result.hausdorff() == 3.0


def test_hd95_is_interpolated_and_the_larger_of_both_directions(either):
    truth = np.zeros((1, 40), int)
    truth[0, :20] = 1
    prediction = truth.copy()
    prediction[0, 25:30] = 1
    result = surface_distances(prediction, truth, 2, (1.0, 1.0))[0]
    assert sorted(result.to_truth.tolist()) == [0.0] * 2 + [6.0, 10.0]  # along a line only its ends are surface
    assert result.hausdorff() == pytest.approx(np.percentile([0, 0, 6, 10], 95))
    assert result.hausdorff(100.0) == 10.0


def test_a_single_slice_is_measured_in_2d(either):
    rng = np.random.default_rng(1)
    prediction, truth = (ndimage.gaussian_filter(rng.normal(size=(2, 20, 16)), (0, 2, 2)) > 0).astype(int)
    flat = surface_distances(prediction, truth, 2, (1.5, 2.0))[0]
    deep = surface_distances(prediction[..., None], truth[..., None], 2, (1.5, 2.0, 5.0))[0]
    assert figures(flat) == figures(deep)
    assert flat.asd() > 0


def test_a_sheared_grid_measures_in_mm_and_not_along_its_axes(either):
    sheared = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    truth, prediction = cube((6, 6, 6), (1, 2), (4, 5), (1, 2)), cube((6, 6, 6), (4, 5), (1, 2), (1, 2))
    (result,) = surface_distances(prediction, truth, 2, sheared)
    assert result.hausdorff() == pytest.approx(np.linalg.norm(sheared @ [3, -3, 0]))
    rng = np.random.default_rng(0)
    one, other = np.asfortranarray(rng.integers(0, 2, (5, 6, 7))), np.asfortranarray(rng.integers(0, 2, (5, 6, 7)))
    fortran = surface_distances(one, other, 2, sheared)[0]
    plain = surface_distances(np.ascontiguousarray(one), np.ascontiguousarray(other), 2, sheared)[0]
    assert figures(fortran) == pytest.approx(figures(plain))


def test_absent_structures_have_no_distances(either):
    empty, one = np.zeros((5, 5, 5), int), cube((5, 5, 5), (1, 4), (1, 4), (1, 4))
    both = surface_distances(empty, empty, 2, (1, 1, 1))[0]
    assert all(math.isnan(value) for value in figures(both))
    for pair in ((one, empty), (empty, one)):
        missed = figures(surface_distances(*pair, 2, (1, 1, 1))[0])
        assert all(math.isnan(value) for value in missed[:2])
        assert missed[2:] == [0.0, 0.0]


def test_unannotated_structures_have_no_distances_and_change_no_others(either):
    truth = cube((8, 8, 8), (1, 5), (1, 5), (1, 5))
    prediction = truth.copy()
    prediction[4, 4, 4] = 2
    mask = [True, True, False]
    liver, spleen = surface_distances(prediction, truth, 3, (1, 1, 1), mask)
    assert all(math.isnan(value) for value in figures(spleen))
    as_background = np.where(prediction == 2, 0, prediction)
    assert figures(liver) == figures(surface_distances(as_background, truth, 3, (1, 1, 1))[0])


def test_a_tolerance_holds_where_the_spacing_was_rounded(either):
    truth, prediction = cube((1, 1, 40), (0, 1), (0, 1), (0, 1)), cube((1, 1, 40), (0, 1), (0, 1), (30, 31))
    spacing = float(np.float32(0.1))  # 30 steps of it are 3.00000004 mm
    assert surface_distances(prediction, truth, 2, (1, 1, spacing))[0].nsd(3.0) == 1.0
    assert surface_distances(prediction, truth, 2, (1, 1, spacing))[0].nsd(2.9999) == 0.0


def test_surface_voxels_have_a_neighbor_of_another_label(either):
    label = np.zeros((4, 4, 4), np.uint8)
    label[1:4, 1:4, 1:4], label[0, :, :] = 1, 2
    result = surface.surface_voxels(label)
    assert result[2, 2, 2] == 0  # all six neighbors are class 1
    assert result[1, 2, 2] == 1  # class 2 lies before it
    assert (result[0] == 2).all()  # the border
    assert np.count_nonzero(result == 1) == 26


@pytest.mark.parametrize("spacing", [(0.0, 1, 1), (1, 1), (1, 1, -2), (1, np.nan, 1), np.zeros((3, 3)), (1, 1, 1, 1)])
def test_a_spacing_that_is_not_above_zero_is_refused(spacing):
    with pytest.raises(GeometryError, match="case s1, spacing: must be 3 lengths above 0, in mm [(]got "):
        surface_distances(np.ones((3, 3, 3), int), np.ones((3, 3, 3), int), 2, spacing, case="s1")


def test_wrong_shapes_and_labels_are_refused():
    one = np.ones((3, 3, 3), int)
    with pytest.raises(GeometryError, match="two or three axes"):
        surface_distances(one[None], one[None], 2, (1, 1, 1))
    with pytest.raises(GeometryError, match="the truth's shape"):
        surface_distances(one, one[:2], 2, (1, 1, 1))
    with pytest.raises(LabelError, match="prediction: must hold labels from 0 to 1 [(]got 2 to 2"):
        surface_distances(one * 2, one, 2, (1, 1, 1))
    with pytest.raises(LabelError, match="must hold a value for each of 2 classes"):
        surface_distances(one, one, 2, (1, 1, 1), [True])


@QUIET
def test_differences_from_monai():
    """These are the differences that docs/how-to/evaluate.md lists."""
    empty, one = np.zeros((6, 5, 4), int), cube((6, 5, 4), (1, 4), (1, 4), (1, 3))
    for pair in ((empty, one), (one, empty)):
        asd, hd95, nsd = (float(part[0]) for part in monai(*pair, 2, (1, 1, 1), 1.0))
        assert (asd, nsd) == (math.inf, 0.0)
        assert not math.isfinite(hd95)
    assert all(math.isnan(float(part[0])) for part in monai(empty, empty, 2, (1, 1, 1), 1.0))
    metric = HausdorffDistanceMetric(percentile=95, reduction="mean_batch")
    nothing = torch.zeros(1, 2, 6, 5, 4)
    metric(nothing, nothing)
    assert metric.aggregate().tolist() == [0.0]  # never seen, and a perfect score
    truth, prediction = cube((9, 9, 1), (1, 8), (1, 8), (0, 1)), cube((9, 9, 1), (1, 8), (1, 8), (0, 1))
    prediction[4, 4] = 0
    (ours,) = surface_distances(prediction, truth, 2, (1, 1, 1))
    as_plane = monai(prediction[..., 0], truth[..., 0], 2, (1, 1), 1.0)
    as_volume = monai(prediction, truth, 2, (1, 1, 1), 1.0)
    assert ours.asd() == pytest.approx(float(as_plane[0][0]))
    assert float(as_volume[0][0]) < ours.asd()
