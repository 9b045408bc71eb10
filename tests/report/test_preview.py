"""What is drawn is looked for in the pixels: colours where structures are, and in the legend what is in view."""

import itertools

import numpy as np
import pytest

from medseg.labels import LabelMap
from medseg.report import overlay_with_legend, panels, picture_overlay, picture_panels
from medseg.report.preview import CELL, GAP, LINE, distinct_colours, from_screen, laid_over
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


def picture_with_a_mark():
    """As on the screen: wider than high, dark but for a bright bar at the top; a structure below left."""
    image, label = np.full((24, 40), 0.1), np.zeros((24, 40), int)
    image[2:5, 22:38], label[15:22, 3:13] = 1.0, 2
    return image, label


def box_of(mask, height, width):
    """First and last row and column of what is set, in pixels of the 24x40 picture."""
    places = np.argwhere(mask) / [height / 24, width / 40]
    return [*np.round(places.min(axis=0), 1), *np.round(places.max(axis=0), 1)]


def test_what_comes_from_the_screen_is_shown_that_way_round():
    picture = np.arange(6).reshape(2, 3)
    assert from_screen(picture).shape == (3, 2)
    printable = grey(from_screen(picture).astype(float), (0, 5))[..., 0]
    assert np.array_equal(np.argsort(printable.ravel()), np.arange(6))
    assert printable.shape == (2, 3)


def test_a_picture_stays_as_it_is_on_the_screen_in_panels_and_overlays():
    image, label = picture_with_a_mark()
    width, height = CELL[0], CELL[0] * 24 // 40
    colours = np.array([[0, 0, 0], [255, 0, 0], [10, 200, 30], [0, 0, 255]])
    sheet = np.asarray(picture_overlay(image, label, LABELS, "p1", colours)).astype(int)
    area = sheet[TOP : TOP + height, GAP : GAP + width]
    bright, green = (area.min(axis=-1) > 200), (area == colours[2]).all(axis=-1)
    assert box_of(bright, height, width) == pytest.approx([2, 22, 5, 38], abs=0.5)
    assert box_of(green, height, width) == pytest.approx([15, 3, 22, 13], abs=0.2)
    panelled = np.asarray(picture_panels(image, label, label[:, ::-1], LABELS, "p1")).astype(int)
    cells = [panelled[TOP : TOP + height, GAP + n * (width + GAP) :][:, :width] for n in range(3)]
    assert box_of(cells[0].min(axis=-1) > 200, height, width) == pytest.approx([2, 22, 5, 38], abs=0.5)
    assert box_of((cells[1] == TRUTH).all(axis=-1), height, width) == pytest.approx([15, 3, 22, 13], abs=0.2)
    assert box_of((cells[2] == PREDICTION).all(axis=-1), height, width) == pytest.approx([15, 27, 22, 37], abs=0.2)
    legend = sheet[:, GAP + width :]
    assert len(found(legend, colours[2])) >= 12 * 12  # the colours that were given, in the legend, too
    assert not len(found(legend, colours[1]))
