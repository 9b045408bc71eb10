"""Compare sums and gradients with softmax and sums written out, and the loops with NumPy."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from medseg import parallel_slices
from medseg.losses import voxel_loops
from medseg.losses import voxel_sums as module
from medseg.losses.voxel_sums import VoxelSums, VoxelTargets, gradient, sums, uses_numba, voxel_sums


def targets_of(target, classes, merged=(), squared=False, smoothing=0.0, gamma=0.0):
    cases = len(target)
    merged_classes = torch.zeros(cases, classes, dtype=torch.bool)
    merged_classes[:, list(merged)] = True
    hard = torch.linspace(0.5, 1.5, classes)
    soft = smoothing * (~merged_classes).float()
    return VoxelTargets(target.int(), merged_classes, hard, soft, squared, bool(merged), smoothing > 0, gamma)


def written_out(logits, targets):
    """Compute the sums from all probabilities."""
    probability = logits.flatten(2).double().softmax(dim=1)
    merged_classes = targets.merged[:, :, None]
    ground = probability[:, :1] + (probability * merged_classes).sum(dim=1, keepdim=True)
    probability = torch.cat([ground, torch.where(merged_classes, 0, probability)[:, 1:]], dim=1)
    here = (targets.target >= 0)[:, None]
    hot = torch.nn.functional.one_hot(targets.target.clamp(min=0).long(), logits.shape[1]).movedim(-1, 1) * here
    weights = hot * targets.hard[:, None] * (1 - probability) ** targets.gamma + targets.soft[:, :, None] * here
    counts = (hot > 0) | (targets.soft[:, :, None] * here > 0)
    cross = -(weights * torch.where(counts, probability, 1).log()).sum(dim=(1, 2))
    mass = (probability**2 if targets.squared else probability) * here
    return VoxelSums((probability * hot).sum(dim=2), mass.sum(dim=2), cross)


@pytest.mark.parametrize("way", ["compiled", "torch"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("merged", [(), (2, 4)])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(("smoothing", "gamma"), [(0.0, 0.0), (0.1, 0.0), (0.0, 2.0), (0.1, 1.5)])
def test_sums_and_gradient_are_those_written_out(monkeypatch, way, last, merged, squared, smoothing, gamma):
    if way == "torch":
        monkeypatch.setattr(module, "_loops", lambda: None)
    made = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(2, 6, 31, 37, generator=made)
    target = torch.randint(-1, 6, (2, 31 * 37), generator=made)
    target[torch.isin(target, torch.tensor(merged, dtype=torch.long))] = 0
    targets = targets_of(target, 6, merged, squared, smoothing, gamma)
    if last:
        logits = logits.to(memory_format=torch.channels_last)
    slopes = VoxelSums(*(torch.rand(shape, generator=made, dtype=torch.float64) for shape in ((2, 6), (2, 6), (2,))))
    found, ours = [], []
    for deed in (voxel_sums, written_out):
        leaf = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        result = deed(leaf, targets)
        torch.autograd.backward(tuple(result), tuple(slopes))
        found.append([one.detach() for one in result])
        ours.append(leaf.grad)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(*ours, rtol=1e-5, atol=1e-6)


def test_the_tests_run_with_the_compiled_loops():
    assert uses_numba(torch.zeros(1))
    assert not uses_numba(torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize("way", ["compiled", "torch"])
def test_only_the_gradient_has_the_size_of_the_logits(monkeypatch, way):
    """Watch every tensor that torch creates in the dispatcher."""
    if way == "torch":
        monkeypatch.setattr(module, "_loops", lambda: None)
    sizes = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            given = {one.untyped_storage().data_ptr() for one in args if isinstance(one, torch.Tensor)}
            if isinstance(made, torch.Tensor) and made.untyped_storage().data_ptr() not in given:
                sizes.append(made.untyped_storage().nbytes())
            return made

    logits = torch.randn(4, 16, 512, 256)
    target = torch.randint(0, 16, (4, 512 * 256))
    targets = targets_of(target, 16)
    slopes = VoxelSums(torch.ones(4, 16), torch.ones(4, 16), torch.ones(4))
    whole = logits.untyped_storage().nbytes()
    with Watch():
        sums(logits, targets)
        assert max(sizes) <= whole / 8
        sizes.clear()
        gradient(logits, targets, slopes)
    assert sorted(sizes)[-1] == whole
    assert sorted(sizes)[-2] <= whole / 8


def test_threads_are_started_again_in_a_fork():
    assert module._parallel_tiles(8, lambda tiles: tiles.stop - tiles.start) in ([8], [4, 4])
    parallel_slices._pool.cache_clear()  # as a fork does, see tests/test_parallel_slices.py
    assert sum(module._parallel_tiles(9, lambda tiles: tiles.stop - tiles.start)) == 9


def test_the_exponential_is_that_of_numpy():
    x = np.concatenate([-np.linspace(0, 87, 20001), -np.geomspace(1e-8, 1, 2001)]).astype(np.float32)
    found = np.array([voxel_loops._exp(value) for value in x])
    assert np.abs(found / np.exp(x.astype(np.float64)) - 1).max() < 2e-7


def test_the_exponential_at_the_ends():
    assert voxel_loops._exp(np.float32(0)) == 1
    assert 0 < voxel_loops._exp(np.float32(-np.inf)) < 2e-38
    assert np.isnan(voxel_loops._exp(np.float32(np.nan)))


def test_without_numba_sums_fall_back_to_torch():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "import torch; from medseg.losses import DiceCELoss, voxel_sums\n"
        "assert not voxel_sums.uses_numba(torch.zeros(1))\n"
        "print(round(float(DiceCELoss()(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.uint8))), 4))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert process.stdout.strip() == "1.3598", process.stderr
