"""Pixels of the drawn images: colors where structures are, and the structures in view in the legend.

Images stand as a radiologist looks: the patient's right on the left, front and head up.
"""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from medseg.errors import OutputError
from medseg.grid import Grid
from medseg.labels import LabelMap
from medseg.report import image_panels, image_preview, overlay, panels, save_overview, slice_image
from medseg.report.figures import CELL, GAP, LINE_HEIGHT, Entry, contact_sheet
from medseg.report.overlays import PREDICTION, TRUTH, class_colors, distinct_colors, from_screen, gray

LABELS = LabelMap(["liver", "spleen", "aorta"])
TOP = LINE_HEIGHT + 6


def slice_with(*indices, size=40):
    """A slice with a square for each index, from low to high coordinates."""
    label = np.zeros((size, size), int)
    for number, index in enumerate(indices):
        label[4 + 9 * number : 11 + 9 * number, 5:15] = index
    return label


def cell(sheet, row, column):
    height = width = CELL[1]
    top, left = row * (TOP + height) + TOP, GAP + column * (width + GAP)
    return np.asarray(sheet)[top : top + height, left : left + width].astype(int)


def pixels_of(area, color):
    return np.argwhere((area == np.array(color)).all(axis=-1))


def test_truth_is_red_prediction_blue_and_the_ct_is_gray():
    truth, prediction = slice_with(1, 2), slice_with(1)
    sheet = panels(np.random.default_rng(0).random((40, 40)), truth, prediction, LABELS, "s1, slice 3")
    ct, red, blue = (cell(sheet, 0, column) for column in range(3))
    assert (ct[..., 0] == ct[..., 2]).all()
    assert len(pixels_of(red, TRUTH)) > len(pixels_of(blue, PREDICTION)) > 0
    assert not len(pixels_of(red, PREDICTION)) + len(pixels_of(blue, TRUTH)) + len(pixels_of(ct, TRUTH))


def test_the_patients_right_is_on_the_left_and_front_is_up():
    truth = np.zeros((40, 40), int)
    truth[30:38, 30:38] = 1  # right front, in RAS
    positions = pixels_of(cell(panels(np.zeros((40, 40)), truth, truth, LABELS), 0, 1), TRUTH)
    assert (positions < CELL[1] / 2).all()


def test_a_structure_has_one_color_in_truth_prediction_and_legend():
    truth, prediction = slice_with(1, 2), slice_with(0, 2, 3)
    sheet = panels(np.zeros((40, 40)), truth, prediction, LABELS)
    colors = distinct_colors(LABELS, truth, prediction)
    for index, visible in ((1, (True, False)), (2, (True, True)), (3, (False, True))):
        assert tuple(len(pixels_of(cell(sheet, 1, column), colors[index])) > 0 for column in (0, 1)) == visible
        assert len(pixels_of(cell(sheet, 1, 2), colors[index])) >= 12 * 12


def test_the_legend_has_only_the_structures_in_view():
    empty = slice_with()
    blank, named = (panels(np.zeros((40, 40)), first, empty, LABELS) for first in (empty, slice_with(1)))
    assert cell(blank, 1, 2).max() < 30
    assert cell(named, 1, 2).max() > 200


def test_one_structure_needs_one_row():
    label = slice_with(1)
    first, several = (panels(np.zeros((40, 40)), label, label, labels) for labels in (LabelMap(["liver"]), LABELS))
    assert first.height < several.height - 300


def test_a_long_legend_continues_in_more_columns():
    labels = LabelMap.totalsegmentator("all")
    label = np.zeros((118, 118), int)
    label[:, :] = np.arange(118)[:, None]
    few, many = (
        image_preview(np.zeros((118, 118)), np.where(label < highest, label, 0), labels) for highest in (10, 118)
    )
    assert CELL[1] + 600 > many.width > few.width + 150
    assert many.height == few.height
    assert panels(np.zeros((118, 118)), label * 0, label, labels).width < 3 * (CELL[1] + GAP) + 300


@pytest.mark.parametrize("height", [10, 60, 384])
def test_no_entry_of_a_legend_is_alone_in_its_column(height):
    for count in range(1, 19):  # more do not fit beside the lowest image
        legend = [Entry(f"s{index}", (255, index, 7)) for index in range(count)]
        sheet = np.asarray(contact_sheet([[("", np.zeros((height, 50, 3), np.uint8))]], "", legend)).astype(int)
        columns = [pixels_of(sheet, entry.color)[:, 1].min() for entry in legend]  # every entry is there
        assert count == 1 or min(columns.count(column) for column in columns) > 1


def test_structures_of_the_truth_stand_before_those_only_predicted():
    truth, prediction = slice_with(3), slice_with(0, 1, 1, 2)
    sheet = panels(np.zeros((40, 40)), truth, prediction, LABELS)
    colors = distinct_colors(LABELS, truth, prediction)
    heights = [pixels_of(cell(sheet, 1, 2), colors[index])[:, 0].min() for index in (3, 1, 2)]
    assert heights == sorted(heights)
    assert len(set(heights)) == 3


def test_a_slice_alone_with_its_legend():
    sheet = image_preview(np.zeros((40, 40)), slice_with(1, 3), LABELS, "s1")
    colors = class_colors(LABELS)
    area = np.asarray(sheet).astype(int)
    assert len(pixels_of(area, colors[1])) > 0
    assert not len(pixels_of(area, colors[2]))


def test_colors_in_view_differ_and_stay_while_the_prediction_changes():
    labels = LabelMap.totalsegmentator("all")
    truth = np.repeat(np.arange(1, 31), 40).reshape(30, 40)
    colors = distinct_colors(labels, truth)[1:31]
    gaps = [np.abs(first - second).sum() for first, second in itertools.combinations(colors, 2)]
    assert min(gaps) >= 45
    second = distinct_colors(labels, truth, np.full((30, 40), 90))
    assert (second[1:31] == colors).all()
    assert (distinct_colors(LABELS, slice_with(2)) == class_colors(LABELS)).all()


@pytest.mark.parametrize("shape", [(40, 30), (64, 20), (5, 50)])
def test_colors_lie_where_the_structure_is_in_any_shape(shape):
    label = np.zeros(shape, int)
    label[: shape[0] // 2] = 1
    base = np.zeros((*np.multiply(shape[::-1], 4), 3), np.uint8)
    mixed = overlay(base, label, class_colors(LABELS), opacity=1.0)
    small = gray(label.astype(float), (0, 1))[..., 0] > 0
    assert ((mixed.max(axis=-1) > 0) == np.kron(small, np.ones((4, 4), bool))).all()


def test_nan_is_drawn():
    panels(np.full((9, 9), np.nan), slice_with(size=9), slice_with(size=9), LABELS)


def sheet_with_a_mark():
    """As on the screen: wider than high, dark but for a bright bar at the top; a structure below left."""
    image, label = np.full((24, 40), 0.1), np.zeros((24, 40), int)
    image[2:5, 22:38], label[15:22, 3:13] = 1.0, 2
    return image, label


def box_of(mask, height, width):
    """First and last row and column of what is set, in pixels of the 24x40 sheet."""
    positions = np.argwhere(mask) / [height / 24, width / 40]
    return [*np.round(positions.min(axis=0), 1), *np.round(positions.max(axis=0), 1)]


def test_screen_arrays_keep_their_orientation():
    image = np.arange(6).reshape(2, 3)
    assert from_screen(image).shape == (3, 2)
    printable = gray(from_screen(image).astype(float), (0, 5))[..., 0]
    assert np.array_equal(np.argsort(printable.ravel()), np.arange(6))
    assert printable.shape == (2, 3)


def test_a_sheet_stays_as_it_is_on_the_screen_in_panels_and_previews(tmp_path):
    image, label = sheet_with_a_mark()
    width, height = CELL[0], CELL[0] * 24 // 40
    colors = np.array([[0, 0, 0], [255, 0, 0], [10, 200, 30], [0, 0, 255]])
    (tmp_path / "classes.json").write_text(json.dumps(dict(zip(LABELS.names, colors.tolist(), strict=True))))
    colored = LABELS.with_colors(tmp_path / "classes.json")
    sheet = np.asarray(image_preview(image, label, colored, "p1")).astype(int)
    area = sheet[TOP : TOP + height, GAP : GAP + width]
    bright, green = (area.min(axis=-1) > 200), (area == colors[2]).all(axis=-1)
    assert box_of(bright, height, width) == pytest.approx([2, 22, 5, 38], abs=0.5)
    assert box_of(green, height, width) == pytest.approx([15, 3, 22, 13], abs=0.2)
    panelled = np.asarray(image_panels(image, label, label[:, ::-1], LABELS, "p1")).astype(int)
    cells = [panelled[TOP : TOP + height, GAP + n * (width + GAP) :][:, :width] for n in range(3)]
    assert box_of(cells[0].min(axis=-1) > 200, height, width) == pytest.approx([2, 22, 5, 38], abs=0.5)
    assert box_of((cells[1] == TRUTH).all(axis=-1), height, width) == pytest.approx([15, 3, 22, 13], abs=0.2)
    assert box_of((cells[2] == PREDICTION).all(axis=-1), height, width) == pytest.approx([15, 27, 22, 37], abs=0.2)
    legend = sheet[:, GAP + width :]
    assert len(pixels_of(legend, colors[2])) >= 12 * 12  # the colors that were given, in the legend, too
    assert not len(pixels_of(legend, colors[1]))


def test_gray_has_right_on_the_left_and_front_up():
    part = np.zeros((4, 3))
    part[3, 2] = 1.0  # the right front corner, in RAS
    image = gray(part, (0, 1))
    assert image.shape == (3, 4, 3)
    assert image[0, 0].tolist() == [255, 255, 255]
    assert image.sum() == 3 * 255


def test_values_beyond_the_window_and_nan_are_at_its_ends():
    assert gray(np.array([[-5.0, 0.5, 9.0, np.nan]]), (0, 1))[::-1, 0, 0].tolist() == [0, 127, 255, 0]


def test_an_overlay_colors_only_the_structures():
    base = np.full((3, 4, 3), 100, np.uint8)
    label = np.zeros((4, 3), int)
    label[3, 2] = 2
    mixed = overlay(base, label, class_colors(LABELS), opacity=1.0)
    assert tuple(mixed[0, 0]) == LABELS.color(2)
    mixed[0, 0] = 100
    assert (mixed == 100).all()


def test_an_overview_has_three_planes_in_true_proportions(tmp_path):
    grid = Grid((40, 30, 10), np.diag([1.0, 1, 4, 1]))
    label = np.zeros(grid.shape, np.uint8)
    label[10:20, 10:20, 3:6] = 1
    path = save_overview(tmp_path / "a" / "p.png", np.zeros(grid.shape, np.int16), label, grid, LABELS, "scan")
    with Image.open(path) as image:
        widths = round(320 * 40 / 30) + round(320 * 40 / 40) + round(320 * 30 / 40)
        assert image.height == 320 + LINE_HEIGHT + 6 + LINE_HEIGHT + 2 * GAP
        assert 0 < image.width - (widths + 4 * GAP) < 150  # the legend of one structure


def test_an_overview_of_a_flat_volume_has_a_usual_size(tmp_path):
    grid = Grid((64, 64, 2), np.diag([0.5, 0.5, 0.5, 1.0]))
    path = save_overview(tmp_path / "p.png", np.zeros(grid.shape), np.zeros(grid.shape, np.uint8), grid, LABELS)
    with Image.open(path) as image:
        assert image.width < 1400
        assert image.height == 320 + LINE_HEIGHT + 6 + LINE_HEIGHT + 2 * GAP


def test_an_overview_of_an_empty_mask_is_drawn_too(tmp_path):
    grid = Grid((8, 8, 8), np.eye(4))
    save_overview(tmp_path / "p.png", np.zeros(grid.shape), np.zeros(grid.shape, np.uint8), grid, LABELS)
    assert (tmp_path / "p.png").is_file()


def test_an_overview_in_a_folder_that_cannot_be_written_is_refused(tmp_path):
    grid = Grid((8, 8, 8), np.eye(4))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        save_overview(tmp_path / "file" / "p.png", np.zeros(grid.shape), np.zeros(grid.shape, np.uint8), grid, LABELS)


def test_outlines_are_opaque_and_the_border_of_the_image_is_none():
    label = np.zeros((8, 8), int)
    label[0:5, :] = 1
    mixed = overlay(np.zeros((8, 8, 3), np.uint8), label, np.array([[0, 0, 0], [200, 100, 50]]), opacity=0.5)
    columns = mixed[:, :, 0]
    assert set(columns[:, 3].tolist()) == {200}  # beside the background; RAS axis 0 grows to the left of the image
    assert set(columns[:, 4:].ravel().tolist()) == {100}
    assert set(columns[:, :3].ravel().tolist()) == {0}


def test_each_class_can_have_its_own_opacity():
    label = np.array([[1, 2]])
    colors = np.array([[0, 0, 0], [200, 0, 0], [0, 200, 0]])
    mixed = overlay(np.zeros((2, 1, 3), np.uint8), label, colors, np.array([0.0, 0.5, 1.0]), outlines=False)
    assert sorted(mixed.max(axis=-1).ravel().tolist()) == [100, 200]


def test_a_slice_keeps_its_proportions_in_mm():
    grid = Grid((40, 20, 1), np.diag([1.0, 4.0, 5.0, 1.0]))
    label = np.zeros(grid.shape, np.uint8)
    label[10:20, 10:20] = 2
    image = slice_image(np.zeros(grid.shape, np.int16), label, grid, LABELS)
    assert image.size == (160, 320)
    assert (np.asarray(image) == class_colors(LABELS)[2]).all(axis=-1).any()
