"""Error messages of the room as a user sees them."""

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.grid import Grid
from medseg.labels import LabelMap
from medseg.report import save_dataset_page, save_overview, save_series, structure_statistics

LABELS = LabelMap(["liver"])
GRID = Grid((2, 2, 2), np.eye(4))


def test_statistics_of_different_shapes():
    with pytest.raises(MedsegError) as error:
        structure_statistics(np.zeros((2, 2, 3)), np.zeros((2, 2, 2), int), GRID, LABELS)
    assert str(error.value) == (
        "statistics: the scan has the shape (2, 2, 3), the label map (2, 2, 2), their grid (2, 2, 2). "
        "Give all three of one scan."
    )


@pytest.mark.parametrize("name", ["page", "overview", "series"])
def test_a_folder_that_is_a_file_is_named(tmp_path, fake_run, name):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "x"
    with pytest.raises(MedsegError) as error:
        if name == "page":
            save_dataset_page(path, {"root": "x"}, {})
        elif name == "overview":
            save_overview(path.with_suffix(".png"), np.zeros((2, 2, 2)), np.zeros((2, 2, 2), int), GRID, LABELS)
        else:
            save_series(tmp_path / "file", fake_run())
    assert str(error.value).startswith(f"{tmp_path / 'file'}: ")
    assert str(error.value).endswith(".")
