import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from medseg.data.checks import structures
from medseg.data.checks.structures import Overlaps, Structure, check_overlaps, measure, nonzero_box
from medseg.errors import DataError
from medseg.grid import Grid

GRID = Grid((20, 18, 16), np.array([[-2.0, 0, 0, 5], [0, 0, 3.0, 7], [0, 2.5, 0, -4], [0, 0, 0, 1]]))


def structure(**changes) -> Structure:
    plain = {"voxels": 100, "ml": 1.0, "center": (0, 0, 0), "rear": (0, 0, 0), "borders": "", "islands": 1, "stray": 0,
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


def test_measurements_agree_with_a_direct_computation():
    rng = np.random.default_rng(0)
    mask = np.zeros(GRID.shape, np.uint8)
    mask[3:9, 4:10, 5:12] = rng.random((6, 6, 7)) > 0.6
    mask[15, 15, 14] = 1
    first = measured(mask)
    where = np.argwhere(mask) @ GRID.affine[:3, :3].T + GRID.affine[:3, 3]
    assert first.voxels == mask.sum()
    assert first.ml == pytest.approx(mask.sum() * 15 / 1000)
    assert first.center == pytest.approx(where.mean(axis=0))
    y = where[:, 1]
    assert first.rear == pytest.approx(where[y <= y.min() + np.ptp(y) / 4].mean(axis=0))
    assert first.borders == ""
    assert first.islands == ndimage.label(mask, np.ones((3, 3, 3)))[1]
    assert np.isnan(first.in_air)


def test_borders_are_named_by_axis_and_air_is_a_share():
    mask = np.zeros(GRID.shape, np.uint8)
    mask[0:4, 5:7, 14:16] = 1
    hu = np.full(GRID.shape, 40, np.int16)
    hu[:3] = -1000
    first = measured(mask, hu)
    assert (first.borders, first.in_air) == ("IK", 0.75)
    assert measured(mask, hu, air=-1100).in_air == 0


def test_equal_masks_have_one_digest_and_moved_ones_do_not():
    mask = np.zeros(GRID.shape, np.uint8)
    mask[3:6, 4:7, 5:8] = 1
    assert measured(mask).digest == measured(np.asfortranarray(mask.copy())).digest
    assert measured(mask).digest != measured(np.roll(mask, 1, axis=0)).digest


def test_thresholds_of_single_structures():
    codes = {
        finding.code for finding in structures.check_structures({"liver": structure(in_air=0.2, islands=14, stray=50)})
    }
    assert codes == set()
    assert structures.check_structures({"liver": structure(in_air=0.5)})[0].code == "label-over-air"
    assert structures.check_structures({"liver": structure(islands=15, stray=10)})[0].code == "islands"
    assert structures.check_structures({"costal_cartilages": structure(islands=30, stray=50)}) == []
    assert structures.check_structures({"liver": structure(borders="K")})[0].code == "touches-border"
    same = {"aorta": structure(digest="x"), "liver": structure(digest="x"), "colon": structure(digest="y")}
    (finding,) = structures.check_structures(same)
    assert (finding.code, finding.location) == ("mask-duplicate", "aorta, liver")
    assert structures.air_below("lung_upper_lobe_left") < structures.air_below("liver")


def test_every_pair_is_counted_even_if_three_overlap():
    rng = np.random.default_rng(1)
    masks = {name: np.asfortranarray(rng.random((9, 8, 7)) > 0.5) for name in "abcd"}
    overlaps = Overlaps((9, 8, 7))
    for name, mask in masks.items():
        box = nonzero_box(mask)
        overlaps.add(name, mask[box], box)
    expected = {
        (first, second): (masks[first] & masks[second]).sum() for first, second in itertools.combinations("abcd", 2)
    }
    assert overlaps.pairs == expected
    members = [tuple(name for name in "abcd" if masks[name][at]) for at in np.ndindex(9, 8, 7)]
    assert [overlaps.combinations[code] for code in overlaps.codes.ravel()] == members


def test_more_combinations_than_can_be_counted_is_an_error():
    overlaps = Overlaps((2, 1, 1))
    overlaps.combinations += [()] * 65535
    with pytest.raises(DataError, match="more than 65,535 combinations"):
        overlaps.add("a", np.ones((2, 1, 1), bool), (slice(0, 2), slice(0, 1), slice(0, 1)))


def test_one_structure_within_another_is_a_warning_unless_it_belongs_there():
    by_name = {
        name: structure(voxels=100, digest=name) for name in ("liver", "spleen", "kidney_left", "kidney_cyst_left")
    }
    assert check_overlaps({}, by_name) == []
    assert [finding.code for finding in check_overlaps({("liver", "spleen"): 20}, by_name)] == ["overlaps"]
    result = check_overlaps({("liver", "spleen"): 60}, by_name)
    assert [finding.code for finding in result] == ["overlaps", "overlap-large"]
    assert result[1].message.startswith("60% of ")
    nested = {("kidney_cyst_left", "kidney_left"): 100}
    assert [finding.code for finding in check_overlaps(nested, by_name)] == ["overlaps"]
