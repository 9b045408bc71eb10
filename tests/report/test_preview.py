"""What is drawn is looked for in the pixels: colours where structures are, and in the legend what is in view."""

import itertools

import numpy as np
import pytest

from medseg.labels import LabelMap
from medseg.report import overlay_with_legend, panels
from medseg.report.preview import CELL, GAP, LINE, distinct_colours, laid_over
from medseg.report.render import PREDICTION, TRUTH, grey, palette

LABELS = LabelMap(["liver", "spleen", "aorta"])
TOP = LINE + 6


def slice_with(*indices, size=40):
    """A slice with a square for each index, from low to high coordinates."""
    label = np.zeros((size, size), int)
    for number, index in enumerate(indices):
        label[4 + 9 * number : 11 + 9 * number, 5:15] = index
    return label


def cell(picture, row, column):
    height = width = CELL[1]
    top, left = row * (TOP + height) + TOP, GAP + column * (width + GAP)
    return np.asarray(picture)[top : top + height, left : left + width].astype(int)


def found(area, colour):
    return np.argwhere((area == np.array(colour)).all(axis=-1))


def test_truth_is_red_prediction_blue_and_the_ct_is_grey():
    truth, prediction = slice_with(1, 2), slice_with(1)
    picture = panels(np.random.default_rng(0).random((40, 40)), truth, prediction, LABELS, "s1, slice 3")
    ct, red, blue = (cell(picture, 0, column) for column in range(3))
    assert (ct[..., 0] == ct[..., 2]).all()
    assert len(found(red, TRUTH)) > len(found(blue, PREDICTION)) > 0
    assert not len(found(red, PREDICTION)) + len(found(blue, TRUTH)) + len(found(ct, TRUTH))


def test_the_patients_right_is_on_the_left_and_front_is_up():
    truth = np.zeros((40, 40), int)
    truth[30:38, 30:38] = 1  # right front, in RAS
    places = found(cell(panels(np.zeros((40, 40)), truth, truth, LABELS), 0, 1), TRUTH)
    assert (places < CELL[1] / 2).all()


def test_a_structure_has_one_colour_in_truth_prediction_and_legend():
    truth, prediction = slice_with(1, 2), slice_with(0, 2, 3)
    picture = panels(np.zeros((40, 40)), truth, prediction, LABELS)
    colours = distinct_colours(LABELS, truth, prediction)
    for index, there in ((1, (True, False)), (2, (True, True)), (3, (False, True))):
        assert tuple(len(found(cell(picture, 1, column), colours[index])) > 0 for column in (0, 1)) == there
        assert len(found(cell(picture, 1, 2), colours[index])) >= 12 * 12


def test_the_legend_has_what_is_in_view_and_nothing_else():
    empty = slice_with()
    blank, named = (panels(np.zeros((40, 40)), one, empty, LABELS) for one in (empty, slice_with(1)))
    assert cell(blank, 1, 2).max() < 30
    assert cell(named, 1, 2).max() > 200


def test_one_structure_needs_one_row():
    label = slice_with(1)
    one, several = (panels(np.zeros((40, 40)), label, label, labels) for labels in (LabelMap(["liver"]), LABELS))
    assert one.height < several.height - 300


def test_a_long_legend_goes_on_beside_itself_as_far_as_there_is_room():
    labels = LabelMap.totalsegmentator("all")
    label = np.zeros((118, 118), int)
    label[:, :] = np.arange(118)[:, None]
    few, many = (
        overlay_with_legend(np.zeros((118, 118)), np.where(label < most, label, 0), labels) for most in (10, 118)
    )
    assert CELL[1] + 600 > many.width > few.width + 150
    assert many.height == few.height
    assert panels(np.zeros((118, 118)), label * 0, label, labels).width < 3 * (CELL[1] + GAP) + 300


def test_what_is_in_the_truth_stands_before_what_was_only_predicted():
    truth, prediction = slice_with(3), slice_with(0, 1, 1, 2)
    picture = panels(np.zeros((40, 40)), truth, prediction, LABELS)
    colours = distinct_colours(LABELS, truth, prediction)
    heights = [found(cell(picture, 1, 2), colours[index])[:, 0].min() for index in (3, 1, 2)]
    assert heights == sorted(heights)
    assert len(set(heights)) == 3


def test_a_slice_alone_with_its_legend():
    picture = overlay_with_legend(np.zeros((40, 40)), slice_with(1, 3), LABELS, "s1")
    colours = distinct_colours(LABELS, slice_with(1, 3))
    area = np.asarray(picture).astype(int)
    assert len(found(area, colours[1])) > 0
    assert not len(found(area, colours[2]))


def test_colours_in_view_differ_and_stay_while_the_prediction_changes():
    labels = LabelMap.totalsegmentator("all")
    truth = np.repeat(np.arange(1, 31), 40).reshape(30, 40)
    colours = distinct_colours(labels, truth)[1:31]
    gaps = [np.abs(one - other).sum() for one, other in itertools.combinations(colours, 2)]
    assert min(gaps) >= 45
    other = distinct_colours(labels, truth, np.full((30, 40), 90))
    assert (other[1:31] == colours).all()
    assert (distinct_colours(LABELS, slice_with(2)) == palette(LABELS)).all()


@pytest.mark.parametrize("shape", [(40, 30), (64, 20), (5, 50)])
def test_colours_lie_where_the_structure_is_whatever_the_shape(shape):
    label = np.zeros(shape, int)
    label[: shape[0] // 2] = 1
    base = np.zeros((*np.multiply(shape[::-1], 4), 3), np.uint8)
    mixed = laid_over(base, label, palette(LABELS), opacity=1.0)
    small = grey(label.astype(float), (0, 1))[..., 0] > 0
    assert ((mixed.max(axis=-1) > 0) == np.kron(small, np.ones((4, 4), bool))).all()


def test_values_that_are_no_numbers_are_drawn():
    panels(np.full((9, 9), np.nan), slice_with(size=9), slice_with(size=9), LABELS)
