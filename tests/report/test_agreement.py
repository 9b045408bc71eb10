import numpy as np

from medseg.grid import Grid
from medseg.report.error_maps import COLOURS, agreement, kinds

GRID = Grid((40, 40, 40), np.diag([1.0, 1.0, 1.0, 1.0]))


def seen(picture, kind):
    """How many pixels have about the colour of a kind, mixed with black."""
    pixels = np.asarray(picture).astype(float)
    wanted = np.array(COLOURS[kind]) * (0.35 if kind == "right" else 0.8)
    return int((np.abs(pixels - wanted).max(axis=2) < 6).sum())


def test_every_pair_of_labels_is_one_kind():
    truth, prediction = np.repeat([0, 1, 2], 3), np.tile([0, 1, 2], 3)
    assert kinds(truth, prediction).tolist() == [0, 3, 3, 2, 1, 4, 2, 4, 1]


def test_each_plane_goes_where_most_is_wrong_and_shows_it_in_colour():
    truth, prediction = np.zeros((2, 40, 40, 40), np.uint8)
    truth[10:30, 10:30, 10:30] = prediction[10:30, 10:30, 10:30] = 1
    prediction[12:20, 12:20, 25] = 0  # missed, in one axial layer
    prediction[12:14, 12:14, 12] = 2
    axial, coronal, sagittal = agreement(None, truth, prediction, GRID)
    assert [axial[0], coronal[0], sagittal[0]] == ["axial", "coronal", "sagittal"]
    assert seen(axial[1], "missed") > 1000
    assert seen(axial[1], "confused") == 0  # it lies in another layer
    assert seen(axial[1], "right") > 1000


def test_false_voxels_are_on_the_patients_own_side():
    truth, prediction = np.zeros((2, 40, 40, 40), np.uint8)
    truth[5:35, 5:35, 5:35] = prediction[5:35, 5:35, 5:35] = 1
    prediction[2:5, 10:20, 10:20] = 1  # at the low end of x: the patient's left, which is on the right of the picture
    (_, picture), *_ = agreement(None, truth, prediction, GRID)
    pixels = np.asarray(picture).astype(float)
    blue = np.abs(pixels - np.array(COLOURS["false"]) * 0.8).max(axis=2) < 6
    assert np.nonzero(blue)[1].mean() > pixels.shape[1] / 2


def test_the_ground_is_the_scan_and_empty_cases_have_pictures_too():
    hu = np.full((40, 40, 40), 300, np.int16)
    nothing = np.zeros((40, 40, 40), np.uint8)
    for _, picture in agreement(hu, nothing, nothing, GRID):
        assert np.asarray(picture).min() == 255
    assert len(agreement(None, nothing, nothing, GRID)) == 3


def test_pixels_are_square_in_mm():
    truth = np.zeros((20, 20, 10), np.uint8)
    truth[:] = 1
    _, (_, coronal), _ = agreement(None, truth, truth, Grid((20, 20, 10), np.diag([1.0, 1.0, 4.0, 1.0])))
    assert coronal.height == 2 * coronal.width  # 20 mm across, 40 mm high
