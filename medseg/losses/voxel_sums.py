"""Sum over all voxels what a segmentation loss needs of them, and compute the gradient of these sums.

Compiled with numba where it is installed (the extra `fast`) and the logits lie in RAM; torch does the same otherwise,
and on a GPU. Both go through the logits in parts and compute the probabilities of each part again for the gradient,
so that the gradient is the only thing of the size of the logits that ever exists.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from medseg.errors import MedsegError, MissingExtraError
from medseg.parallel_slices import parallel_slices

# NumPy has no bfloat16: the loops take the bits.
_INTEGERS = {torch.float32: torch.int32, torch.bfloat16: torch.int16}


class VoxelTargets(NamedTuple):
    """The class of each voxel, and the weights of the classes.

    Args:
        target: class of each voxel, `(B, N)`, int32; -1 where it takes no part.
        merged: classes of each case that count as background in it, `(B, C)`, bool; no voxel has one of them.
        hard: weight of a voxel's target class in the cross-entropy, `(C,)`, float32.
        soft: weight of every class in each voxel's cross-entropy, `(B, C)`, float32: label smoothing; 0 for merged
            ones.
        squared: whether the sum over probabilities is a sum over their squares.
        any_merged: whether `merged` is true anywhere.
        any_soft: whether `soft` is above 0 anywhere.
        gamma: of the focal loss: the target class counts (1 - probability)^gamma; 0 is cross-entropy.
    """

    target: torch.Tensor
    merged: torch.Tensor
    hard: torch.Tensor
    soft: torch.Tensor
    squared: bool
    any_merged: bool
    any_soft: bool
    gamma: float = 0.0


class VoxelSums(NamedTuple):
    """Sums over the voxels of each case, float64.

    Args:
        intersection: probability of each class in the voxels of that class, `(B, C)`.
        prediction: probability of each class in all voxels, or its square, `(B, C)`; 0 for merged ones.
        cross_entropy: weighted negative log probabilities, `(B,)`.
    """

    intersection: torch.Tensor
    prediction: torch.Tensor
    cross_entropy: torch.Tensor


def voxel_sums(logits: torch.Tensor, targets: VoxelTargets) -> VoxelSums:
    """Return the sums, differentiable once with respect to the logits.

    Args:
        logits: `(B, C, *spatial)`; channels first or last in memory are read as they lie, anything else is copied.
        targets: of the voxels.
    """
    if not (logits.is_contiguous() or logits.movedim(1, -1).is_contiguous()):
        logits = logits.contiguous()
    return VoxelSums(*_SumsFunction.apply(logits, *targets))  # type: ignore[no-untyped-call]


class _SumsFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        target: torch.Tensor,
        merged: torch.Tensor,
        hard: torch.Tensor,
        soft: torch.Tensor,
        squared: bool,
        any_merged: bool,
        any_soft: bool,
        gamma: float,
    ) -> tuple[torch.Tensor, ...]:
        ctx.save_for_backward(logits, target, merged, hard, soft)
        ctx.flags = squared, any_merged, any_soft, gamma
        return tuple(sums(logits, VoxelTargets(target, merged, hard, soft, *ctx.flags)))

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        logits, *tables = ctx.saved_tensors
        with torch.no_grad():
            grad = gradient(logits, VoxelTargets(*tables, *ctx.flags), VoxelSums(*slopes))
        if torch.is_grad_enabled():  # create_graph=True: a second derivative must be an error, not silently 0
            grad = _Once.apply(grad, logits)  # type: ignore[no-untyped-call]
        return grad, *[None] * 8


class _Once(torch.autograd.Function):
    """Pass the gradient on as something that depends on the logits in an unknown way."""

    @staticmethod
    def forward(ctx: Any, grad: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return grad.view_as(grad)

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor) -> None:
        fix = "Use monai.losses.DiceCELoss for gradients of gradients."
        raise MedsegError("DiceCELoss", "has no second derivative", fix=fix)


def uses_numba(logits: torch.Tensor) -> bool:
    """Return whether the compiled loops take these logits."""
    return logits.device.type == "cpu" and logits.dtype in _INTEGERS and _loops() is not None


@functools.cache
def _loops() -> Any | None:
    try:
        return importlib.import_module("medseg.losses.voxel_loops")
    except MissingExtraError:
        return None


def _flatten(logits: torch.Tensor) -> tuple[torch.Tensor, bool]:
    """Return the logits as they lie in memory: `(B, C, N)` and False, or `(B, N, C)` and True."""
    channels_last = not logits.is_contiguous() and logits.movedim(1, -1).is_contiguous()
    flat = logits.movedim(1, -1).flatten(1, -2) if channels_last else logits.flatten(2)
    return flat, channels_last


def sums(logits: torch.Tensor, targets: VoxelTargets) -> VoxelSums:
    """Return the sums; `logits` is `(B, C, *spatial)`, contiguous with channels first or last."""
    cases, classes = logits.shape[:2]
    dtype = torch.float32 if logits.device.type == "mps" else torch.float64
    shapes = (cases, classes), (cases, classes), (cases,)
    totals = [torch.zeros(shape, dtype=dtype, device=logits.device) for shape in shapes]
    loops = _loops() if uses_numba(logits) else None
    if loops is None:
        for b, voxels, part in _parts(logits):
            _add_sums(part, targets, b, voxels, *(total[b] for total in totals))
        return VoxelSums(*totals)
    flat, channels_last = _flatten(logits)
    bits = flat.view(_INTEGERS[flat.dtype]).numpy()
    tables = [table.numpy() for table in targets[:4]]
    gamma = np.float32(targets.gamma)

    def add_tiles(tiles: slice) -> list[torch.Tensor]:
        # Each thread has sums of its own: they are added up in the order of the tiles, so that a result does not
        # depend on which thread is first.
        partial = [torch.zeros_like(total) for total in totals]
        arrays = [total.numpy() for total in partial]
        span = tiles.start, tiles.stop
        loops.sums(bits, channels_last, tables[0], *span, *tables[1:], targets.squared, gamma, *arrays)
        return partial

    partials = _parallel_tiles(cases * -(-tables[0].shape[1] // loops.TILE), add_tiles)
    return VoxelSums(*(torch.stack(parts).sum(dim=0) for parts in zip(*partials, strict=True)))


def gradient(logits: torch.Tensor, targets: VoxelTargets, slopes: VoxelSums) -> torch.Tensor:
    """Return the gradient with respect to the logits, in their type and layout.

    Args:
        logits: `(B, C, *spatial)`, contiguous with channels first or last.
        targets: of the voxels.
        slopes: the gradient of the loss with respect to each of the sums.
    """
    out = torch.empty_like(logits)
    # Merged classes have the slope of the background that they are merged into.
    prediction = torch.where(targets.merged, slopes.prediction[:, :1], slopes.prediction)
    slopes = slopes._replace(prediction=prediction)
    loops = _loops() if uses_numba(logits) else None
    if loops is None:
        for (b, voxels, part), (_, _, out_part) in zip(_parts(logits), _parts(out), strict=True):
            out_part.copy_(_gradient(part, targets, b, voxels, slopes))
        return out
    flat, channels_last = _flatten(logits)
    bits, out_bits = (values.view(_INTEGERS[values.dtype]).numpy() for values in (flat, _flatten(out)[0]))
    tables = [table.numpy() for table in targets[:4]]
    gamma = np.float32(targets.gamma)
    arrays = [slope.float().contiguous().numpy() for slope in slopes]

    def write_tiles(tiles: slice) -> None:
        span = tiles.start, tiles.stop
        loops.gradient(bits, channels_last, tables[0], *span, *tables[1:], targets.squared, gamma, *arrays, out_bits)

    _parallel_tiles(len(bits) * -(-tables[0].shape[1] // loops.TILE), write_tiles)
    return out


def _parallel_tiles(tiles: int, work: Callable[[slice], Any]) -> list[Any]:
    return parallel_slices(tiles, work, torch.get_num_threads(), grain=4)


# torch


def _parts(logits: torch.Tensor) -> Iterator[tuple[int, slice, torch.Tensor]]:
    """Yield case by case as many voxels, `(C, n)`, as stay in a cache, or on a GPU keep it busy."""
    step = max(1, (2**20 if logits.device.type == "cpu" else 2**23) // logits.shape[1])
    for b, case in enumerate(logits):
        flat = case.flatten(1)
        for low in range(0, flat.shape[1], step):
            yield b, slice(low, low + step), flat[:, low : low + step]


def _add_sums(
    part: torch.Tensor,
    targets: VoxelTargets,
    b: int,
    voxels: slice,
    intersection: torch.Tensor,
    prediction: torch.Tensor,
    cross_entropy: torch.Tensor,
) -> None:
    """Add the sums of some voxels of case `b`."""
    log_p = _log_softmax(part)
    target = targets.target[b, voxels].long()
    merged = targets.merged[b]
    counts, target = target >= 0, target.clamp(min=0)
    if targets.any_merged:
        log_p[0] = torch.where(_background_classes(merged), log_p, -torch.inf).logsumexp(dim=0)
    log_target = log_p.gather(0, target[None])[0]
    weighted = targets.hard.to(log_target)[target] * log_target
    if targets.gamma:
        weighted = weighted * (1 - log_target.exp()).clamp(min=0) ** targets.gamma
    soft = targets.soft[b].to(log_target)[:, None]
    if targets.any_soft:
        weighted = weighted + torch.where(soft > 0, soft * log_p, 0).sum(dim=0)
    cross_entropy -= (weighted * counts).sum(dtype=cross_entropy.dtype)
    intersection.index_add_(0, target, (log_target.exp() * counts).to(intersection))
    p = log_p.exp_().mul_(counts)
    sums_of_class = (p * p if targets.squared else p).sum(dim=1, dtype=prediction.dtype)
    prediction += torch.where(merged, 0, sums_of_class)


def _gradient(part: torch.Tensor, targets: VoxelTargets, b: int, voxels: slice, slopes: VoxelSums) -> torch.Tensor:
    """Return the gradient with respect to the logits of some voxels of case `b`, `(C, n)`.

    Softmax: d p_c / d logit_k = p_c (delta_ck - p_k), so every term becomes p times (its slope minus the mean slope).
    """
    p = _log_softmax(part).exp_()
    target = targets.target[b, voxels].long()
    counts, target = target >= 0, target.clamp(min=0)
    intersection, prediction, cross_entropy = (slope[b].to(p) for slope in slopes)
    hard, soft = targets.hard.to(p), targets.soft[b].to(p)
    background = _background_classes(targets.merged[b])
    # The probability of what each class counts as.
    merged_p = torch.where(background, (p * background).sum(dim=0), p) if targets.any_merged else p
    target_p = merged_p.gather(0, target[None])[0]
    slope = 2 * prediction[:, None] * merged_p if targets.squared else prediction[:, None]
    target_ce = cross_entropy * hard[target]
    if targets.gamma:
        q = (1 - target_p).clamp(min=0)
        log_p = target_p.clamp(min=torch.finfo(p.dtype).tiny).log()
        target_ce = target_ce * (q**targets.gamma - targets.gamma * target_p * q ** (targets.gamma - 1) * log_p)
    pull = intersection[target] * target_p - target_ce  # on the target class alone
    shift = cross_entropy * soft.sum() - pull - (slope * p).sum(dim=0)  # on all classes
    grad = p * (slope + shift)
    if targets.any_merged:
        # The background's pull is shared by the classes merged into it, by their part in its probability.
        share = p / merged_p.clamp(min=torch.finfo(p.dtype).tiny)
        shared_pull = share * (torch.where(target == 0, pull, 0) - cross_entropy * soft[0])
        grad += torch.where(background, shared_pull, -cross_entropy * soft[:, None])
        pull = torch.where(target == 0, 0, pull)
    elif targets.any_soft:
        grad -= cross_entropy * soft[:, None]
    grad.scatter_add_(0, target[None], pull[None])
    return torch.where(counts, grad, 0)


def _log_softmax(part: torch.Tensor) -> torch.Tensor:
    return part.to(torch.promote_types(part.dtype, torch.float32)).log_softmax(dim=0)


def _background_classes(merged: torch.Tensor) -> torch.Tensor:
    """Return the classes that count as background, class 0 among them, `(C, 1)`."""
    background = merged.clone()
    background[0] = True
    return background[:, None]
