"""The part of a segmentation loss that looks at every voxel: three sums over softmax probabilities, and their gradient.

Compiled with numba where it is installed (the extra `fast`) and the logits lie in RAM; torch does the same otherwise,
and on a GPU. Either goes through the logits in parts and makes the probabilities of each part anew when the gradient
is wanted, so that the gradient is the only thing of the size of the logits that is ever made.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from medseg.errors import MedsegError, MissingExtraError
from medseg.parallel_slices import parallel_slices

_INTEGERS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


class Truth(NamedTuple):
    """What the voxels are, and what they weigh.

    Args:
        target: class of each voxel, `(B, N)`, int32; -1 where it takes no part.
        merged: classes of each case that count as background in it, `(B, C)`, bool; no voxel has one of them.
        hard: weight of a voxel's own class in the cross-entropy, `(C,)`, float32.
        soft: weight of every class in each voxel's, `(B, C)`, float32: label smoothing; 0 for merged ones.
        squared: whether the sum over probabilities is one over their squares.
        partly: whether anything is merged at all.
        smooth: whether `soft` is above 0 anywhere.
        gamma: of the focal loss: a voxel's own class counts (1 - probability)^gamma; 0 is cross-entropy.
    """

    target: torch.Tensor
    merged: torch.Tensor
    hard: torch.Tensor
    soft: torch.Tensor
    squared: bool
    partly: bool
    smooth: bool
    gamma: float = 0.0


class Sums(NamedTuple):
    """Sums over the voxels of each case, float64.

    Args:
        both: probability of a class where it is, `(B, C)`.
        mass: probability of a class anywhere, or its square, `(B, C)`; 0 for merged ones.
        cross: weighted negative log probabilities, `(B,)`.
    """

    both: torch.Tensor
    mass: torch.Tensor
    cross: torch.Tensor


def voxel_sums(logits: torch.Tensor, truth: Truth) -> Sums:
    """The sums, differentiable once in the logits.

    Args:
        logits: `(B, C, *spatial)`; channels first or last in memory is read as it lies, anything else is copied.
        truth: what the voxels are.
    """
    if not (logits.is_contiguous() or logits.movedim(1, -1).is_contiguous()):
        logits = logits.contiguous()
    return Sums(*_VoxelSums.apply(logits, *truth))  # type: ignore[no-untyped-call]


class _VoxelSums(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        target: torch.Tensor,
        merged: torch.Tensor,
        hard: torch.Tensor,
        soft: torch.Tensor,
        squared: bool,
        partly: bool,
        smooth: bool,
        gamma: float,
    ) -> tuple[torch.Tensor, ...]:
        ctx.save_for_backward(logits, target, merged, hard, soft)
        ctx.flags = squared, partly, smooth, gamma
        return tuple(sums(logits, Truth(target, merged, hard, soft, *ctx.flags)))

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        logits, *tables = ctx.saved_tensors
        with torch.no_grad():
            found = gradient(logits, Truth(*tables, *ctx.flags), Sums(*slopes))
        if torch.is_grad_enabled():  # create_graph: whoever asks for the gradient of this one shall be told
            found = _Once.apply(found, logits)  # type: ignore[no-untyped-call]
        return found, *[None] * 8


class _Once(torch.autograd.Function):
    """The gradient, as something that depends on the logits in a way that is not known."""

    @staticmethod
    def forward(ctx: Any, found: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return found.view_as(found)

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> None:
        raise MedsegError(
            "DiceCELoss",
            "can be differentiated once",
            "a second derivative asked for",
            "Use monai.losses.DiceCELoss where gradients of gradients are wanted.",
        )


def compiled(logits: torch.Tensor) -> bool:
    """Whether the compiled kernels can be used with these."""
    return logits.device.type == "cpu" and logits.dtype in _INTEGERS and _kernels() is not None


@functools.cache
def _kernels() -> Any | None:
    try:
        return importlib.import_module("medseg.losses.compiled")
    except MissingExtraError:
        return None


def _flat(logits: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """The logits as they lie in memory: `(B, C, N)`, or `(B, N, C)` and True."""
    last = not logits.is_contiguous() and logits.movedim(1, -1).is_contiguous()
    return (logits.movedim(1, -1).flatten(1, -2), True) if last else (logits.flatten(2), False)


def sums(logits: torch.Tensor, truth: Truth) -> Sums:
    """The sums, see `Sums`; `logits` is `(B, C, *spatial)`, contiguous with channels first or last."""
    cases, classes = logits.shape[:2]
    kind = torch.float32 if logits.device.type == "mps" else torch.float64
    made = [torch.zeros(shape, dtype=kind, device=logits.device) for shape in ((cases, classes),) * 2 + ((cases,),)]
    kernels = _kernels() if compiled(logits) else None
    if kernels is None:
        for b, voxels, part in _parts(logits):
            _sums_of(part, truth, b, voxels, *(one[b] for one in made))
        return Sums(*made)
    flat, last = _flat(logits)
    bits = flat.view(_INTEGERS[flat.dtype]).numpy()
    target, merged, hard, soft = (one.numpy() for one in truth[:4])
    gamma = np.float32(truth.gamma)

    def work(start: int, stop: int) -> list[torch.Tensor]:
        own = [torch.zeros_like(one) for one in made]
        kernels.sums(
            bits, last, target, start, stop, merged, hard, soft, truth.squared, gamma, *(one.numpy() for one in own)
        )
        return own

    parts = _parallel_slices(cases * -(-target.shape[1] // kernels.TILE), work)
    return Sums(*(torch.stack(one).sum(dim=0) for one in zip(*parts, strict=True)))


def gradient(logits: torch.Tensor, truth: Truth, slopes: Sums) -> torch.Tensor:
    """The gradient in the logits, in their type and layout, given the gradients of a loss in each of the sums."""
    out = torch.empty_like(logits)
    slopes = Sums(slopes.both, torch.where(truth.merged, slopes.mass[:, :1], slopes.mass), slopes.cross)
    kernels = _kernels() if compiled(logits) else None
    if kernels is None:
        into = _parts(out)
        for b, voxels, part in _parts(logits):
            next(into)[2].copy_(_gradient_of(part, truth, b, voxels, slopes))
        return out
    flat, last = _flat(logits)
    bits, found = (one.view(_INTEGERS[one.dtype]).numpy() for one in (flat, _flat(out)[0]))
    target, merged, hard, soft = (one.numpy() for one in truth[:4])
    gamma = np.float32(truth.gamma)
    tables = [one.float().contiguous().numpy() for one in slopes]

    def work(start: int, stop: int) -> None:
        kernels.gradient(bits, last, target, start, stop, merged, hard, soft, truth.squared, gamma, *tables, found)

    _parallel_slices(len(bits) * -(-target.shape[1] // kernels.TILE), work)
    return out


def _parallel_slices(tiles: int, work: Callable[[int, int], Any]) -> list[Any]:
    return parallel_slices(tiles, lambda part: work(part.start, part.stop), torch.get_num_threads(), grain=4)


# torch


def _parts(logits: torch.Tensor) -> Any:
    """Case by case, as many voxels at a time as stay in a cache (or, on a GPU, keep it busy): `(C, n)`."""
    step = max(1, (2**20 if logits.device.type == "cpu" else 2**23) // logits.shape[1])
    for b, case in enumerate(logits):
        flat = case.flatten(1)
        for low in range(0, flat.shape[1], step):
            yield b, slice(low, low + step), flat[:, low : low + step]


def _sums_of(
    part: torch.Tensor,
    truth: Truth,
    b: int,
    voxels: slice,
    both: torch.Tensor,
    mass: torch.Tensor,
    cross: torch.Tensor,
) -> None:
    """Add what some voxels of a case give."""
    logp, target, merged = _log_softmax(part), truth.target[b, voxels].long(), truth.merged[b]
    here, target = target >= 0, target.clamp(min=0)
    if truth.partly:
        logp[0] = torch.where(_grouped(merged), logp, -torch.inf).logsumexp(dim=0)
    own = logp.gather(0, target[None])[0]
    weighted = truth.hard.to(own)[target] * own
    if truth.gamma:
        weighted = weighted * (1 - own.exp()).clamp(min=0) ** truth.gamma
    soft = truth.soft[b].to(own)[:, None]
    if truth.smooth:
        weighted = weighted + torch.where(soft > 0, soft * logp, 0).sum(dim=0)
    cross -= (weighted * here).sum(dtype=cross.dtype)
    both.index_add_(0, target, (own.exp() * here).to(both))
    logp.exp_().mul_(here)
    mass += torch.where(merged, 0, (logp * logp if truth.squared else logp).sum(dim=1, dtype=mass.dtype))


def _gradient_of(part: torch.Tensor, truth: Truth, b: int, voxels: slice, slopes: Sums) -> torch.Tensor:
    """The gradient in the logits of some voxels of a case, `(C, n)`."""
    p, target, merged = _log_softmax(part).exp_(), truth.target[b, voxels].long(), truth.merged[b]
    here, target = target >= 0, target.clamp(min=0)
    both, mass, rate = (one[b].to(p) for one in slopes)
    hard, soft = truth.hard.to(p), truth.soft[b].to(p)
    group = _grouped(merged)
    # the probability of what each class counts as
    held = torch.where(group, (p * group).sum(dim=0), p) if truth.partly else p
    own = held.gather(0, target[None])[0]
    slope = 2 * mass[:, None] * held if truth.squared else mass[:, None]
    hold = rate * hard[target]
    if truth.gamma:
        rest = (1 - own).clamp(min=0)
        logs = own.clamp(min=torch.finfo(p.dtype).tiny).log()
        hold = hold * (rest**truth.gamma - truth.gamma * own * rest ** (truth.gamma - 1) * logs)
    pull = both[target] * own - hold  # on the class of a voxel alone
    shift = rate * soft.sum() - pull - (slope * p).sum(dim=0)
    found = p * (slope + shift)
    if truth.partly:
        share = p / held.clamp(min=torch.finfo(p.dtype).tiny)
        of_group = share * (torch.where(target == 0, pull, 0) - rate * soft[0])
        found += torch.where(group, of_group, -rate * soft[:, None])
        pull = torch.where(target == 0, 0, pull)
    elif truth.smooth:
        found -= rate * soft[:, None]
    found.scatter_add_(0, target[None], pull[None])
    return torch.where(here, found, 0)


def _log_softmax(part: torch.Tensor) -> torch.Tensor:
    return part.to(torch.promote_types(part.dtype, torch.float32)).log_softmax(dim=0)


def _grouped(merged: torch.Tensor) -> torch.Tensor:
    """The classes that count as background, it itself among them, `(C, 1)`."""
    group = merged.clone()
    group[0] = True
    return group[:, None]
