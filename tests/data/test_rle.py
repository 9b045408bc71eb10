import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.data.rle import decode_runs, encode_runs
from medseg.errors import DataError


@given(st.integers(1, 7), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_encoding_and_decoding_give_the_same_mask(rows, columns, seed):
    mask = np.random.default_rng(seed).random((rows, columns)) < 0.5
    assert np.array_equal(decode_runs(encode_runs(mask), mask.shape), mask)


def test_runs_go_along_the_rows_from_one():
    assert np.argwhere(decode_runs("4 2", (3, 4))).tolist() == [[0, 3], [1, 0]]
    assert not decode_runs("", (3, 4)).any()


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ("12 2", r"3 rows and 4 columns, 12 pixels (the run '12 2', which ends at pixel 13"),
        ("1 2 3", "pairs"),
        ("0 2", "begin at 1"),
        ("3 0", "begin at 1"),
        ("a b", "whole numbers"),
    ],
)
def test_runs_that_cannot_be_are_refused(runs, said):
    with pytest.raises(DataError, match=said) as error:
        decode_runs(runs, (3, 4), "train.csv, case1")
    assert "train.csv, case1" in str(error.value)
