"""The estimate against what is measured, and the budget that it is held to."""

import ctypes
import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import BasicUNet

from medseg.errors import DataError
from medseg.inference import StreamingInferer
from medseg.inference.memory import Shapes, estimate, fit, width_of
from medseg.resources import parse_bytes

LARGE = Shapes((512, 512, 400), (333, 333, 400), (256, 256), 8, 118, 1, 96)


def peak_above(work):
    """The most memory this process held during `work`, above what it held before; bytes."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not clear.exists():
        pytest.skip("only Linux tells a process its own peak")

    def read(key):
        return next(
            int(line.split()[1]) * 1024
            for line in status.read_text(encoding="utf-8").splitlines()
            if line.startswith(key)
        )

    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # what was freed and kept would be used again without being seen
    clear.write_text("5", encoding="utf-8")
    before = read("VmRSS")
    work()
    return read("VmHWM") - before


@pytest.mark.parametrize(("roi", "single"), [((192, 192), True), ((128, 128), False)])
def test_the_estimate_is_within_a_factor_of_the_measured_peak(roi, single):
    network = BasicUNet(2, 1, 20, features=[16, 16, 32, 32, 32, 16]).eval()
    inferer = StreamingInferer(roi, 4, 0.25)
    volume = torch.from_numpy(np.random.default_rng(0).random((1, 1, 192, 192, 8), np.float32))
    with torch.inference_mode():
        inferer(volume[..., :1], network)  # what is loaded or compiled at the first call is no part of it
        measured = peak_above(lambda: inferer(volume, network))
    shapes = Shapes((1, 1, 1), (192, 192, 8), roi, 4, 20, 1, width_of(network, 1, roi), single=single, ahead=False)
    guess = estimate(shapes).ram
    assert guess / 2 < measured < guess * 2, (guess, measured)


def test_more_of_anything_needs_no_less():
    base = estimate(LARGE).ram
    for change in (
        {"source": (512, 512, 800)}, {"network": (333, 333, 800)}, {"roi": (320, 320)}, {"batch": 16},
        {"classes": 200}, {"channels": 3}, {"width": 200.0}, {"parameters": 10**8},
    ):  # fmt: skip
        assert estimate(replace(LARGE, **change)).ram > base, change
    assert estimate(replace(LARGE, ahead=False)).ram < base


def test_a_gpu_takes_the_windows_and_the_slab():
    need = estimate(replace(LARGE, on_gpu=True, ahead=False))
    assert need.gpu > 0
    assert need.ram < estimate(replace(LARGE, ahead=False)).ram + need.gpu
    assert need.output == 512 * 512 * 400


def test_a_budget_first_takes_windows_then_the_reading_ahead():
    full = estimate(LARGE).ram
    assert fit(LARGE, None, None, "a") == fit(LARGE, full, None, "a") == LARGE
    fewer = fit(LARGE, full - 1, None, "a")
    assert (fewer.batch, fewer.ahead) == (4, True)
    smallest = replace(LARGE, batch=1, ahead=False)
    assert fit(LARGE, estimate(smallest).ram, None, "a").ahead is False
    with pytest.raises(
        DataError, match=r"^a: needs at least .* GB of RAM \(.* of RAM are free\)\. Allow more with --memory"
    ):
        fit(LARGE, estimate(smallest).ram - 1, None, "a")
    on_gpu = replace(LARGE, on_gpu=True)
    with pytest.raises(DataError, match="are free on the GPU"):
        fit(on_gpu, None, 1000, "a")


@pytest.mark.parametrize("process", [300_000_000, 700_000_000, 1_490_000_000])
@pytest.mark.parametrize("shapes", [LARGE, replace(LARGE, source=(64, 64, 40), network=(64, 64, 40))])
def test_the_smallest_budget_that_is_named_suffices_and_none_is_negative(shapes, process):
    allowed = 250_000_000
    with pytest.raises(DataError) as caught:
        fit(shapes, allowed - process, None, "a", process)
    assert caught.value.came == "0.25 GB of RAM are allowed"
    assert "for the program itself" in caught.value.problem
    smallest = parse_bytes(caught.value.problem.removeprefix("needs at least ").partition(" of RAM")[0])
    assert fit(shapes, smallest - int(1.02 * process), None, "a", process)
