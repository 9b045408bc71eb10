"""Compare what numba compiles with torch."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from medseg.inference import kernels
from medseg.inference.kernels import AxisMap, Layer, argmax_channels, interpolate_labels, interpolate_logits, uses_numba


def layer(seed, shape=(7, 6, 5), weighted=True, smooth=True):
    made = torch.Generator().manual_seed(seed)
    sums = torch.rand(shape, generator=made)
    if smooth:
        sums[:, : shape[1] // 2, 1] += 2
    weights = torch.rand(shape[:2], generator=made) + 0.5 if weighted else None
    return Layer(sums, weights, argmax_channels(sums))


def axis(size, count, seed):
    where = np.sort(np.random.default_rng(seed).uniform(0, size - 1, count))
    low = np.minimum(np.floor(where), size - 2).astype(np.int64)
    inside = np.ones(count, bool)
    inside[-1] = False
    return AxisMap(low, (where - low).astype(np.float32), inside)


def test_the_tests_run_with_the_compiled_loops():
    assert uses_numba(torch.zeros(1))


def test_without_numba_kernels_fall_back_to_torch():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import torch; from medseg.inference import kernels\n"
        "assert not kernels.uses_numba(torch.zeros(1))\n"
        "print(kernels.argmax_channels(torch.tensor([[[0.0, 2.0, 1.0]]])).tolist())"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.stdout.strip() == "[[1]]", process.stderr


@settings(deadline=None)
@given(st.integers(0, 1000), st.booleans(), st.booleans(), st.sampled_from([0.0, 0.3, 0.9]))
def test_labels_between_layers_are_those_of_interpolated_logits(seed, weighted, smooth, fraction):
    below, above = layer(seed, weighted=weighted, smooth=smooth), layer(seed + 1, weighted=not weighted, smooth=smooth)
    rows, columns = axis(7, 11, seed), axis(6, 4, seed + 2)
    result = interpolate_labels(below, above, fraction, rows, columns)
    logits = interpolate_logits(below, above, fraction, rows, columns)
    top = logits.topk(2, dim=-1).values
    clear = (top[..., 0] - top[..., 1] > 1e-5) & torch.from_numpy(rows.inside[:, None] & columns.inside)
    assert torch.equal(result.long()[clear], logits.argmax(-1)[clear])
    assert not result[-1].any()
    assert not result[:, -1].any()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_loops", lambda: None)
        other = interpolate_labels(below, above, fraction, rows, columns)
    assert torch.equal(result[clear], other[clear])
    assert result.dtype == other.dtype == torch.uint8


def test_interpolation_is_that_of_numpy():
    below, above = layer(0, weighted=False), layer(1)
    rows, columns = axis(7, 5, 3), axis(6, 4, 4)
    mixed = 0.75 * below.sums.numpy() + 0.25 * above.sums.numpy() / above.weights.numpy()[..., None]
    for at, (i, wi) in enumerate(zip(rows.low, rows.fraction, strict=True)):
        for to, (j, wj) in enumerate(zip(columns.low, columns.fraction, strict=True)):
            corners = mixed[i : i + 2, j : j + 2]
            expected = np.einsum("i,j,ijc->c", [1 - wi, wi], [1 - wj, wj], corners)
            assert np.allclose(interpolate_logits(below, above, 0.25, rows, columns)[at, to], expected, atol=1e-5)


@pytest.mark.parametrize(("channels", "kind"), [(5, torch.uint8), (256, torch.uint8), (257, torch.int16)])
def test_the_first_of_equals_is_the_largest(channels, kind):
    sums = torch.randint(0, 3, (6, 7, channels)).float()
    result = argmax_channels(sums)
    assert result.dtype == kind
    assert torch.equal(result.long(), torch.from_numpy(sums.numpy().argmax(-1)))


def test_a_plain_pick_interpolates_nothing():
    one = layer(0)
    plain = AxisMap(np.array([2, 0]), np.zeros(2, np.float32), np.ones(2, bool))
    assert plain.is_on_grid
    assert torch.equal(interpolate_labels(one, one, 0.0, plain, plain), one.labels[[2, 0]][:, [2, 0]])
