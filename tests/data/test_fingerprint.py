"""NumPy's percentiles are the reference."""

import numpy as np
import pytest

from medseg.data.fingerprint import case_statistics, fingerprint, percentiles
from medseg.grid import Grid
from medseg.labels import LabelMap

LABELS = LabelMap(["liver", "spleen", "stomach"])
GRID = Grid((20, 18, 16), np.diag([-1.5, -1.5, 3.0, 1.0]))


def volume(seed):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, GRID.shape).astype(np.uint8)
    return rng.normal(40 * label, 15).round().astype(np.int16), label


def test_figures_of_a_case_agree_with_numpy():
    hu, label = volume(0)
    result = case_statistics(hu, label, GRID, LABELS)
    assert result["voxels"] == {"liver": int((label == 1).sum()), "spleen": int((label == 2).sum()), "stomach": 0}
    assert result["spacing"] == [1.5, 1.5, 3.0]
    assert set(result["hu_by_structure"]) == {"liver", "spleen"}
    for index, name in ((1, "liver"), (2, "spleen")):
        inside = hu[label == index]
        first = result["hu_by_structure"][name]
        assert first["mean"] == pytest.approx(inside.mean(), abs=1e-3)
        for share in (0.5, 50, 99.5):
            assert first[f"p{share:g}"] == np.percentile(inside, share, method="inverted_cdf")


def test_figures_of_a_set_agree_with_numpy_over_all_its_voxels():
    volumes = [volume(seed) for seed in range(3)]
    result = fingerprint([case_statistics(hu, label, GRID, LABELS) for hu, label in volumes], LABELS)
    inside = np.concatenate([hu[label > 0] for hu, label in volumes])
    for share in (0.5, 5, 50, 95, 99.5):
        assert result["hu_within_structures"][f"p{share:g}"] == np.percentile(inside, share, method="inverted_cdf")
    assert result["structures"]["stomach"] == {"frequency": 0.0, "voxels": 0, "median_ml": None, "median_hu": None}
    sizes = [int((label == 1).sum()) for _, label in volumes]
    assert result["structures"]["liver"]["voxels"] == sum(sizes)
    assert result["structures"]["liver"]["median_ml"] == pytest.approx(np.median(sizes) * 6.75 / 1000, abs=1e-3)
    assert result["size_mm"]["median"] == [30.0, 27.0, 48.0]


def test_hu_beyond_the_range_count_as_its_ends():
    label = np.ones(GRID.shape, np.uint8)
    result = case_statistics(np.full(GRID.shape, 30000.0), label, GRID, LABELS)
    assert result["hu_by_structure"]["liver"]["p50"] == 3071
    counts = np.zeros(4096, np.int64)
    counts[0] = 1
    assert percentiles(counts)["p0.5"] == -1024
