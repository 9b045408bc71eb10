import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from medseg.data.checks.intensities import Histogram, check_intensities, histogram, is_hu, summary


def scan(seed: int = 0, shape=(24, 24, 24)) -> np.ndarray:
    """Air, fat, organs and some bone, in HU."""
    rng = np.random.default_rng(seed)
    hu = rng.normal(-1000, 12, shape)
    hu[4:-4, 4:-4] = rng.normal(-90, 20, hu[4:-4, 4:-4].shape)
    hu[7:-7, 7:-7] = rng.normal(50, 25, hu[7:-7, 7:-7].shape)
    hu[10:13, 10:13] = rng.normal(600, 200, hu[10:13, 10:13].shape)
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)


def codes(values, slope=1.0, intercept=0.0) -> list[str]:
    return [finding.code for finding in check_intensities(histogram(np.asarray(values), slope, intercept), "ct")]


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(st.sampled_from([np.int16, np.uint8, np.int32, np.uint16]), hnp.array_shapes(min_dims=3, max_dims=3)))
def test_integers_are_counted_as_by_numpy(array):
    result = histogram(array, 2.0, -3.0)
    values, counts = np.unique(array * 2.0 - 3.0, return_counts=True)
    np.testing.assert_array_equal(result.values, values)
    if int(array.max()) - int(array.min()) < 1 << 20:
        np.testing.assert_array_equal(result.counts, counts)


def test_percentiles_and_floats_agree_with_numpy():
    values = np.random.default_rng(0).normal(size=9999)
    result = histogram(values)
    for fraction in (0.005, 0.5, 0.995):
        assert result.percentile(fraction) == pytest.approx(np.quantile(values, fraction), abs=0.02)
    assert result.share(0.0) == pytest.approx((values < 0).mean(), abs=0.01)


def test_a_negative_slope_turns_the_order():
    result = histogram(np.array([1, 2, 2]), -1.0)
    assert (result.values.tolist(), result.counts.tolist()) == ([-2, -1], [2, 1])


def test_a_ct_has_no_findings_in_any_number_type():
    assert codes(scan()) == []
    assert codes(scan().astype(np.float32)) == []
    assert codes((scan() + 1024).astype(np.uint16), 1.0, -1024.0) == []


def test_nothing_finite_gives_no_number():
    result = histogram(np.full((2, 2), np.nan))
    assert set(summary(result).values()) == {None}
    assert [finding.code for finding in check_intensities(result, "ct")] == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda hu: hu + 1024, "rescale-missing"),
        (lambda hu: hu - 1024, "not-hu"),
        (lambda hu: (hu + 1024) / 4000, "not-hu"),
        (lambda hu: np.clip((hu + 200) / 2, 0, 255), "not-hu"),
        (lambda hu: np.clip(hu, 0, 800) * 0.9, "not-hu"),
        (lambda hu: hu * 0 + 7, "constant"),
        (lambda hu: np.minimum(hu, 300), "saturated"),
        (lambda hu: np.maximum(hu, -200), "saturated"),
        (lambda hu: np.where(hu < -500, -60 + hu % 40, hu), "no-air"),
        (lambda hu: np.where(hu > 0, hu * 20, hu), "hu-range"),
    ],
)
def test_values_that_are_no_hu_are_found(change, expected):
    assert codes(change(scan().astype(np.float64))) == [expected]


@pytest.mark.parametrize(("value", "severity"), [(-2048, "note"), (-3024, "note"), (0, "warning"), (-200, "warning")])
def test_padding_is_found_with_its_severity(value, severity):
    hu = scan()
    hu[:3] = value
    (finding,) = check_intensities(histogram(hu), "ct")
    assert (finding.code, finding.severity) == ("padding", severity)
    assert f"{value}" in finding.message


def test_padding_does_not_hide_a_missing_rescale():
    hu = scan() + 1024
    hu[:3] = -2000
    assert codes(hu) == ["padding", "rescale-missing"]
    assert not is_hu(check_intensities(histogram(hu), "ct"))
    assert is_hu([])


def test_without_first_drops_only_the_lowest_value():
    left = Histogram(np.array([1.0, 2.0]), np.array([3, 4])).without_first()
    assert (left.values.tolist(), left.counts.tolist()) == ([2.0], [4])
