import numpy as np
import pytest

from medseg.errors import DataError
from medseg.evaluation import evaluate_pairs, find_sources, match
from medseg.evaluation.error_maps import classify_errors, error_maps, worst_case_images
from medseg.grid import Grid
from medseg.report.overlays import ERROR_COLORS

GRID = Grid((40, 40, 40), np.diag([1.0, 1.0, 1.0, 1.0]))


def count_pixels(image, kind):
    """Count the pixels of about the color of a kind, mixed with black."""
    pixels = np.asarray(image).astype(float)
    expected = np.array(ERROR_COLORS[kind]) * (0.35 if kind == "right" else 0.8)
    return int((np.abs(pixels - expected).max(axis=2) < 6).sum())


def test_every_pair_of_labels_is_classified():
    truth, prediction = np.repeat([0, 1, 2], 3), np.tile([0, 1, 2], 3)
    assert classify_errors(truth, prediction).tolist() == [0, 3, 3, 2, 1, 4, 2, 4, 1]


def test_each_plane_shows_the_layer_with_most_errors():
    truth, prediction = np.zeros((2, 40, 40, 40), np.uint8)
    truth[10:30, 10:30, 10:30] = prediction[10:30, 10:30, 10:30] = 1
    prediction[12:20, 12:20, 25] = 0  # missed, in one axial layer
    prediction[12:14, 12:14, 12] = 2
    axial, coronal, sagittal = error_maps(None, truth, prediction, GRID)
    assert [axial[0], coronal[0], sagittal[0]] == ["axial", "coronal", "sagittal"]
    assert count_pixels(axial[1], "missed") > 1000
    assert count_pixels(axial[1], "confused") == 0  # it lies in another layer
    assert count_pixels(axial[1], "right") > 1000


def test_false_voxels_appear_on_the_right_side_of_the_patient():
    truth, prediction = np.zeros((2, 40, 40, 40), np.uint8)
    truth[5:35, 5:35, 5:35] = prediction[5:35, 5:35, 5:35] = 1
    prediction[2:5, 10:20, 10:20] = 1  # at the low end of x: the patient's left, shown on the right
    (_, image), *_ = error_maps(None, truth, prediction, GRID)
    pixels = np.asarray(image).astype(float)
    blue = np.abs(pixels - np.array(ERROR_COLORS["false"]) * 0.8).max(axis=2) < 6
    assert np.nonzero(blue)[1].mean() > pixels.shape[1] / 2


def test_scans_are_the_ground_and_empty_cases_are_drawn():
    hu = np.full((40, 40, 40), 300, np.int16)
    nothing = np.zeros((40, 40, 40), np.uint8)
    for _, image in error_maps(hu, nothing, nothing, GRID):
        assert np.asarray(image).min() == 255
    assert len(error_maps(None, nothing, nothing, GRID)) == 3


def test_pixels_are_square_in_mm():
    truth = np.zeros((20, 20, 10), np.uint8)
    truth[:] = 1
    _, (_, coronal), _ = error_maps(None, truth, truth, Grid((20, 20, 10), np.diag([1.0, 1.0, 4.0, 1.0])))
    assert coronal.height == 2 * coronal.width  # 20 mm across, 40 mm high


@pytest.fixture
def scored(folders):
    pairs = match(*map(find_sources, folders))
    return evaluate_pairs(pairs).to_dict(), pairs


def test_the_worst_cases_are_drawn_in_three_planes(scored):
    result = worst_case_images(*scored, count=2)
    assert list(result) == ["c", "b"]
    assert [name for name, _ in result["c"]] == ["axial", "coronal", "sagittal"]
    assert worst_case_images(*scored, count=0) == {}


def test_scans_are_drawn_below_if_their_grid_fits(scored, save, kit, tmp_path, caplog):
    save("images/c_0000.nii.gz", np.full((12, 10, 8), 300, np.int16), kit.AFFINE)
    save("images/b.nii.gz", np.full((3, 3, 3), 300, np.int16), kit.AFFINE)
    result = worst_case_images(*scored, count=2, images=tmp_path / "images")
    white = [np.asarray(result[case][0][1]).min(axis=2).max() for case in ("c", "b")]
    assert white[0] == 255  # the scan is at the upper end of its window
    assert white[1] < 255
    assert "b.nii.gz: its shape (3, 3, 3) differs from the shape (12, 10, 8) of the truth" in caplog.text
    with pytest.raises(DataError, match="there must be a folder of scans [(]no such folder"):
        worst_case_images(*scored, count=1, images=tmp_path / "nowhere")
