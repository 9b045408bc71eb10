"""Names and values as they may come: nothing is passed over in silence, and no value becomes another structure."""

import contextlib
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medseg.data.masks import binary_mask, label_values
from medseg.errors import DataError, LabelError
from medseg.file_names import VOLUMES, is_clutter, list_files, name_key, spelled_as, stem
from medseg.labels import LabelMap

COUNTS = [pytest.param(30, id="some"), pytest.param(300, id="many", marks=pytest.mark.long)]
LETTERS = st.characters(exclude_characters="/\\\0", exclude_categories=("Cs", "Cc"))
NAMES = st.lists(
    st.builds(
        lambda text, suffix, form: unicodedata.normalize(form, text[:40]) + suffix,
        st.text(LETTERS, min_size=1, max_size=12)
        | st.sampled_from(["a", "A", "é", "straße", "STRASSE", "._x", "Ǆ", "ﬁ"]),
        st.sampled_from([".nii", ".nii.gz", ".NII.GZ", ".Nii", ".nrrd", ".txt", ""]),
        st.sampled_from(["NFC", "NFD"]),
    ),
    min_size=1,
    max_size=6,
    unique=True,
)


def fuzz(test, count, *strategies):
    options = settings(
        max_examples=count, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    options(given(*strategies)(test))()


@pytest.mark.parametrize("count", COUNTS)
def test_each_file_is_listed_named_in_a_finding_or_plainly_something_else(count):
    def test(names):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            for name in names:
                (root / name).touch()
            files, findings = list_files(root)
            reported = {Path(finding.location).name for finding in findings}
            for name in names:
                expected = not is_clutter(name) and name.lower().endswith((".nii", ".nii.gz"))
                listed = root / name in files.values()
                assert (listed or name in reported) == (expected or (name in reported)), name
                assert not (listed and name in reported)
            assert len({name_key(name) for name in files}) == len(files)
            assert all(unicodedata.is_normalized("NFC", name) for name in files)
            assert spelled_as(dict.fromkeys(map(str.upper, files)), files).keys() >= {
                name for name in files if name_key(name.upper()) == name_key(name)
            }
            assert all(
                stem(path.name) == name or not path.name.lower().endswith(VOLUMES) for name, path in files.items()
            )

    fuzz(test, count, NAMES)


VALUES = st.lists(
    st.integers(-3, 300)
    | st.floats(-2, 300)
    | st.sampled_from([0, 1, 255, 0.9999, 1.0000001, float("nan"), float("inf"), -0.0]),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("count", COUNTS)
def test_a_mask_is_exact_or_refused(count):
    def test(values, dtype, share):
        with np.errstate(all="ignore"):
            array = np.asarray(values, np.float64).astype(dtype)
        mask, advice = None, ""
        try:
            mask = binary_mask("m", array, share)
        except DataError as error:
            advice = str(error)
        if mask is None:
            assert not np.isin(array, (0, 1)).all()
            assert share is not None or any(text in advice for text in ("--binarize 0.5", "label map", "NaN"))
            return
        assert mask.dtype == bool
        if share is None or np.isin(array, (0, 1)).all():
            assert np.array_equal(mask, np.abs(array.astype(float) - 1) < 2e-5)
        else:
            assert np.isfinite(array.astype(float)).all()
            assert not mask[array <= 0].any()
            assert mask[array >= max(1, array.max())].all()

    fuzz(test, count, VALUES, st.sampled_from(["f4", "f8", "i2", "u1", ">i4", "u2"]), st.none() | st.floats(0.05, 0.95))


@pytest.mark.parametrize("count", COUNTS)
def test_a_label_keeps_its_name_or_the_map_is_refused(count):
    def test(numbers, values, dtype):
        numbers = sorted(numbers)
        labels = LabelMap([f"s{number}" for number in numbers], (0, *numbers))
        with np.errstate(all="ignore"):
            array = np.asarray(values, np.float64).astype(dtype)
        indices = None
        with contextlib.suppress(LabelError, DataError):
            indices = label_values(array, labels, "x")
        if indices is None:
            assert not np.isin(array, (0, *numbers)).all()
            return
        tolerated = len(numbers) == 1 and numbers == [1]  # a mask, which may be off by rounding
        for value, index in zip(array.tolist(), indices.tolist(), strict=True):
            assert labels.values[index] == value or (tolerated and abs(value - index) < 2e-5)

    numbers = st.sets(st.integers(1, 300), min_size=1, max_size=6)
    fuzz(test, count, numbers, VALUES, st.sampled_from(["f4", "f8", "i2", "u1", "u2"]))
