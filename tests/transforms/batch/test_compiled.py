"""The compiled loop against torch over all that can be drawn, and far beyond it; and that there is a way without it."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

pytest.importorskip("numba", reason="the extra 'fast' is not installed")
from medseg.transforms.batch import warp

pytestmark = pytest.mark.slow
NUMBERS = st.floats(-3, 3)
SHIFTS = st.one_of(st.floats(-60, 60), st.sampled_from([0.0, 0.5, -1.0, 1e9, -1e9]))


def smooth_sample(height, width):
    """An image that changes by less than 0.1 from pixel to pixel, and labels."""
    i, j = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    image = torch.tensor(np.sin(i / 20 + j / 15) + 1.5, dtype=torch.float32)
    labels = torch.tensor((i * 7 + j * 3) % 118, dtype=torch.uint8)
    return torch.stack([image, image.flip(1)])[None], labels[None, None]


@settings(deadline=None, max_examples=150)
@example(1, 1, [0.0, 0.0, 0.0, 2.2e-313], 0.0, 0.0)  # divided by that, there is no number any more
@example(30, 40, [1e-9, -1e-10, 1e-10, 1e-9], 14.5, 19.5)
@given(st.integers(1, 40), st.integers(1, 40), st.lists(NUMBERS, min_size=4, max_size=4), SHIFTS, SHIFTS)
def test_every_matrix_gives_what_torch_gives(height, width, linear, shift_i, shift_j):
    where = np.array([[[*linear[:2], shift_i], [*linear[2:], shift_j]]])
    image, label = smooth_sample(height, width)
    found, labelled = warp._compiled(image, label, where, np.array([0]))
    wanted, truth = warp._sampled(image.double(), label, where)
    # torch's grid is float64 here; what lies on the very border differs with the last bit of the place
    torch.testing.assert_close(found.double(), wanted, atol=1e-5, rtol=0)
    unlike = (labelled != truth)[0, 0].numpy()
    if unlike.any():
        middle = np.array([(height - 1) / 2, (width - 1) / 2])
        places = np.argwhere(unlike) - middle
        at = places @ where[0, :, :2].T + where[0, :, 2] + middle
        assert (np.abs(at % 1 - 0.5).min(axis=1) < 1e-6).all()  # ties of a half, and nothing else


def test_it_is_the_same_in_many_threads():
    images, labels = (torch.cat([one, one.flip(3)] * 4) for one in smooth_sample(64, 48))
    rng = np.random.default_rng(0)
    where = np.eye(2, 3) + rng.uniform(-0.2, 0.2, (8, 2, 3))
    before, alone = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            alone.append(warp.warp(images, labels, where, np.arange(7)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(alone[0][0], alone[1][0])
    assert torch.equal(alone[0][1], alone[1][1])


def test_tensors_that_are_not_contiguous_are_taken_as_they_are():
    images, labels = smooth_sample(20, 30)
    where = np.array([[[0.9, 0.1, 1.0], [-0.1, 1.1, -2.0]]])
    turned = images.transpose(2, 3).contiguous().transpose(2, 3)
    for last in (turned, images.to(memory_format=torch.channels_last)):
        torch.testing.assert_close(warp.warp(last, labels, where)[0], warp.warp(images, labels, where)[0])


def test_without_numba_it_goes_on_in_torch():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import numpy, torch; from medseg.transforms.batch import warp\n"
        "assert not warp.compiled(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))\n"
        "turned = numpy.array([[[-1.0, 0, 0], [0, 1, 0]]])\n"
        "print(warp.warp(torch.zeros(1, 1, 2, 1), torch.tensor([[[[3], [5]]]]), turned)[1].flatten().tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[5, 3]", done.stderr
