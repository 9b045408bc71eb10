import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from medseg.data.checks import labels
from medseg.data.checks.labels import Structure, measure, nonzero_box
from medseg.grid import Grid

GRID = Grid((20, 18, 16), np.array([[-2.0, 0, 0, 5], [0, 0, 3.0, 7], [0, 2.5, 0, -4], [0, 0, 0, 1]]))


def structure(**changes) -> Structure:
    plain = {"voxels": 100, "ml": 1.0, "centre": (0, 0, 0), "rear": (0, 0, 0), "borders": "", "islands": 1, "stray": 0,
             "in_air": 0.0, "digest": str(changes)}  # fmt: skip
    return Structure(**{**plain, **changes})


def measured(mask: np.ndarray, hu: np.ndarray | None = None, air: float = -900) -> Structure:
    box = nonzero_box(mask)
    return measure(mask[box] == 1, box, GRID, None if hu is None else hu[box], air)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(st.sampled_from([np.uint8, np.int16, bool]), (5, 4, 6), elements=st.sampled_from([0, 0, 0, 1])))
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_box_is_the_one_scipy_finds(order, array):
    expected = ndimage.find_objects((array != 0).astype(int))
    assert nonzero_box(np.asarray(array, order=order)) == (expected[0] if expected else None)


def test_a_structure_is_measured_as_by_hand():
    rng = np.random.default_rng(0)
    mask = np.zeros(GRID.shape, np.uint8)
    mask[3:9, 4:10, 5:12] = rng.random((6, 6, 7)) > 0.6
    mask[15, 15, 14] = 1
    one = measured(mask)
    where = np.argwhere(mask) @ GRID.affine[:3, :3].T + GRID.affine[:3, 3]
    assert one.voxels == mask.sum()
    assert one.ml == pytest.approx(mask.sum() * 15 / 1000)
    assert one.centre == pytest.approx(where.mean(axis=0))
    y = where[:, 1]
    assert one.rear == pytest.approx(where[y <= y.min() + np.ptp(y) / 4].mean(axis=0))
    assert one.borders == ""
    assert one.islands == ndimage.label(mask, np.ones((3, 3, 3)))[1]
    assert np.isnan(one.in_air)


def test_borders_are_named_by_axis_and_air_is_a_share():
    mask = np.zeros(GRID.shape, np.uint8)
    mask[0:4, 5:7, 14:16] = 1
    hu = np.full(GRID.shape, 40, np.int16)
    hu[:3] = -1000
    one = measured(mask, hu)
    assert (one.borders, one.in_air) == ("IK", 0.75)
    assert measured(mask, hu, air=-1100).in_air == 0


def test_equal_masks_have_one_digest_and_moved_ones_do_not():
    mask = np.zeros(GRID.shape, np.uint8)
    mask[3:6, 4:7, 5:8] = 1
    assert measured(mask).digest == measured(np.asfortranarray(mask.copy())).digest
    assert measured(mask).digest != measured(np.roll(mask, 1, axis=0)).digest


@pytest.mark.parametrize("values", [[0, 2], [0, -1], [0, 0.5], [1, np.nan], [0, 255]])
def test_anything_but_0_and_1_is_found(values):
    finding = labels.stray_values(np.array(values), "mask")
    assert finding.code == "mask-values"
    assert "1 of its voxels" in finding.message


@pytest.mark.parametrize("values", [np.array([0, 1], np.uint8), np.array([True, False]), np.array([0.0, 1.0])])
def test_0_and_1_of_any_type_are_a_mask(values):
    assert labels.stray_values(values, "mask") is None


def test_thresholds_of_single_structures():
    codes = {finding.code for finding in labels.examine({"liver": structure(in_air=0.2, islands=14, stray=50)})}
    assert codes == set()
    assert labels.examine({"liver": structure(in_air=0.5)})[0].code == "label-over-air"
    assert labels.examine({"liver": structure(islands=15, stray=10)})[0].code == "islands"
    assert labels.examine({"costal_cartilages": structure(islands=30, stray=50)}) == []
    assert labels.examine({"liver": structure(borders="K")})[0].code == "touches-border"
    same = {"aorta": structure(digest="x"), "liver": structure(digest="x"), "colon": structure(digest="y")}
    (finding,) = labels.examine(same)
    assert (finding.code, finding.location) == ("mask-duplicate", "aorta, liver")
    assert labels.air_below("lung_upper_lobe_left") < labels.air_below("liver")


def test_only_whole_volumes_of_enough_cases_are_compared():
    volumes = {f"s{number}": {"liver": 1500.0 + number} for number in range(6)}
    assert labels.outlying_volumes(volumes) == []
    (finding,) = labels.outlying_volumes({**volumes, "small": {"liver": 200.0}, "other": {"spleen": 1.0}})
    assert (finding.code, finding.case, finding.location) == ("volume-outlier", "small", "liver")
    assert "200 ml" in finding.message
    assert labels.outlying_volumes({f"s{number}": {"liver": 10.0**number} for number in range(4)}) == []
    spread = {f"s{number}": {"colon": 100.0 * 2**number} for number in range(7)}
    assert labels.outlying_volumes(spread) == []
