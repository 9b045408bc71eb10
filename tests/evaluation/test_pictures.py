import numpy as np
import pytest

from medseg.errors import DataError
from medseg.evaluation import evaluate, find_sources, match
from medseg.evaluation.pictures import worst_cases


@pytest.fixture
def scored(folders):
    pairs = match(*map(find_sources, folders))
    return evaluate(pairs).to_dict(), pairs


def test_the_worst_cases_are_shown_in_three_planes(scored):
    found = worst_cases(*scored, most=2)
    assert list(found) == ["c", "b"]
    assert [name for name, _ in found["c"]] == ["axial", "coronal", "sagittal"]
    assert worst_cases(*scored, most=0) == {}


def test_scans_are_laid_below_where_they_are_and_fit(scored, save, kit, tmp_path, caplog):
    save("images/c_0000.nii.gz", np.full((12, 10, 8), 300, np.int16), kit.AFFINE)
    save("images/b.nii.gz", np.full((3, 3, 3), 300, np.int16), kit.AFFINE)
    found = worst_cases(*scored, most=2, images=tmp_path / "images")
    white = [np.asarray(found[case][0][1]).min(axis=2).max() for case in ("c", "b")]
    assert white[0] == 255  # the scan is at the upper end of its window
    assert white[1] < 255
    assert "b.nii.gz: must have the shape" in caplog.text
    with pytest.raises(DataError, match="must be a folder of scans [(]no such folder"):
        worst_cases(*scored, most=1, images=tmp_path / "nowhere")
