"""Softmax and sums written out are the reference; what a whole loss makes of them is in test_dice_ce.py."""

import pytest
import torch

from medseg import parallel_slices
from medseg.losses import voxels
from medseg.losses.voxels import Sums, Truth, compiled, gradient, sums, voxel_sums


def truth_of(target, classes, merged=(), squared=False, smoothing=0.0, gamma=0.0):
    cases = len(target)
    gone = torch.zeros(cases, classes, dtype=torch.bool)
    gone[:, list(merged)] = True
    hard = torch.linspace(0.5, 1.5, classes)
    soft = smoothing * (~gone).float()
    return Truth(target.int(), gone, hard, soft, squared, bool(merged), smoothing > 0, gamma)


def written_out(logits, truth):
    """The sums, with everything made that there is."""
    chance = logits.flatten(2).double().softmax(dim=1)
    gone = truth.merged[:, :, None]
    ground = chance[:, :1] + (chance * gone).sum(dim=1, keepdim=True)
    chance = torch.cat([ground, torch.where(gone, 0, chance)[:, 1:]], dim=1)
    here = (truth.target >= 0)[:, None]
    hot = torch.nn.functional.one_hot(truth.target.clamp(min=0).long(), logits.shape[1]).movedim(-1, 1) * here
    weights = hot * truth.hard[:, None] * (1 - chance) ** truth.gamma + truth.soft[:, :, None] * here
    counts = (hot > 0) | (truth.soft[:, :, None] * here > 0)
    cross = -(weights * torch.where(counts, chance, 1).log()).sum(dim=(1, 2))
    mass = (chance**2 if truth.squared else chance) * here
    return Sums((chance * hot).sum(dim=2), mass.sum(dim=2), cross)


@pytest.mark.parametrize("way", ["compiled", "torch"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("merged", [(), (2, 4)])
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(("smoothing", "gamma"), [(0.0, 0.0), (0.1, 0.0), (0.0, 2.0), (0.1, 1.5)])
def test_sums_and_gradient_are_those_written_out(monkeypatch, way, last, merged, squared, smoothing, gamma):
    if way == "torch":
        monkeypatch.setattr(voxels, "_kernels", lambda: None)
    made = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(2, 6, 31, 37, generator=made)
    target = torch.randint(-1, 6, (2, 31 * 37), generator=made)
    target[torch.isin(target, torch.tensor(merged, dtype=torch.long))] = 0
    truth = truth_of(target, 6, merged, squared, smoothing, gamma)
    if last:
        logits = logits.to(memory_format=torch.channels_last)
    slopes = Sums(*(torch.rand(shape, generator=made, dtype=torch.float64) for shape in ((2, 6), (2, 6), (2,))))
    found, ours = [], []
    for deed in (voxel_sums, written_out):
        leaf = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        result = deed(leaf, truth)
        torch.autograd.backward(tuple(result), tuple(slopes))
        found.append([one.detach() for one in result])
        ours.append(leaf.grad)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(*ours, rtol=1e-5, atol=1e-6)


def test_the_compiled_kernels_are_there_for_the_tests():
    assert compiled(torch.zeros(1))
    assert not compiled(torch.zeros(1, dtype=torch.float64))


@pytest.mark.parametrize("way", ["compiled", "torch"])
def test_nothing_of_the_size_of_the_logits_is_made_but_the_gradient(monkeypatch, way):
    """Every tensor of the torch way passes through the dispatcher, and none but the gradient is large."""
    if way == "torch":
        monkeypatch.setattr(voxels, "_kernels", lambda: None)
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
    truth = truth_of(target, 16)
    slopes = Sums(torch.ones(4, 16), torch.ones(4, 16), torch.ones(4))
    whole = logits.untyped_storage().nbytes()
    with Watch():
        sums(logits, truth)
        assert max(sizes) <= whole / 8
        sizes.clear()
        gradient(logits, truth, slopes)
    assert sorted(sizes)[-1] == whole
    assert sorted(sizes)[-2] <= whole / 8


def test_parallel_slices_do_not_come_along_into_a_fork():
    assert voxels._parallel_slices(8, lambda start, stop: stop - start) in ([8], [4, 4])
    parallel_slices._pool.cache_clear()  # as a fork does, see tests/test_parallel_slices.py
    assert sum(voxels._parallel_slices(9, lambda start, stop: stop - start)) == 9
