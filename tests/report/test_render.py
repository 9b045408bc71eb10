"""Pictures stand as a radiologist looks: the patient's right on the left, front and head up."""

import numpy as np
import pytest
from PIL import Image

from medseg.errors import OutputError
from medseg.grid import Grid
from medseg.labels import LabelMap
from medseg.report import overlay, save_overview
from medseg.report.render import grey, palette

LABELS = LabelMap(["liver", "spleen"])


def test_right_is_on_the_left_and_front_is_up():
    part = np.zeros((4, 3))
    part[3, 2] = 1.0  # the right front corner, in RAS
    picture = grey(part, (0, 1))
    assert picture.shape == (3, 4, 3)
    assert picture[0, 0].tolist() == [255, 255, 255]
    assert picture.sum() == 3 * 255


def test_values_beyond_the_window_and_nan_are_held_at_its_ends():
    assert grey(np.array([[-5.0, 0.5, 9.0, np.nan]]), (0, 1))[::-1, 0, 0].tolist() == [0, 127, 255, 0]


def test_an_overlay_colours_the_structures_and_nothing_else():
    base = np.full((3, 4, 3), 100, np.uint8)
    label = np.zeros((4, 3), int)
    label[3, 2] = 2
    mixed = overlay(base, label, palette(LABELS), opacity=1.0)
    assert tuple(mixed[0, 0]) == LABELS.colour(2)
    mixed[0, 0] = 100
    assert (mixed == 100).all()


def test_an_overview_has_three_planes_in_true_proportions(tmp_path):
    grid = Grid((40, 30, 10), np.diag([1.0, 1, 4, 1]))
    label = np.zeros(grid.shape, np.uint8)
    label[10:20, 10:20, 3:6] = 1
    path = save_overview(tmp_path / "a" / "p.png", np.zeros(grid.shape, np.int16), label, grid, LABELS, "scan")
    with Image.open(path) as picture:
        widths = round(320 * 40 / 30) + round(320 * 40 / 40) + round(320 * 30 / 40)
        assert abs(picture.width - (widths + 190 + 4 * 6)) <= 4


def test_an_overview_of_a_flat_volume_stays_a_picture_one_can_look_at(tmp_path):
    grid = Grid((64, 64, 2), np.diag([0.5, 0.5, 0.5, 1.0]))
    path = save_overview(tmp_path / "p.png", np.zeros(grid.shape), np.zeros(grid.shape, np.uint8), grid, LABELS)
    with Image.open(path) as picture:
        assert picture.width < 1400
        assert picture.height == 320 + 50


def test_an_overview_of_an_empty_mask_is_drawn_too(tmp_path):
    grid = Grid((8, 8, 8), np.eye(4))
    save_overview(tmp_path / "p.png", np.zeros(grid.shape), np.zeros(grid.shape, np.uint8), grid, LABELS)
    assert (tmp_path / "p.png").is_file()


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    grid = Grid((8, 8, 8), np.eye(4))
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        save_overview(tmp_path / "file" / "p.png", np.zeros(grid.shape), np.zeros(grid.shape, np.uint8), grid, LABELS)
