"""How much memory a training step takes, counted without taking it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.func import functional_call


@dataclass(frozen=True)
class Memory:
    """What a training step holds at its fullest, in bytes.

    Args:
        parameters: the network's weights and buffers.
        gradients: of the weights.
        optimizer: what the optimizer keeps for each weight.
        batch: image and label.
        activations: what the forward pass keeps for the backward pass.
        logits: what the network says, and what the loss makes of it.
        working: what the backward pass adds where it is widest.
    """

    parameters: int
    gradients: int
    optimizer: int
    batch: int
    activations: int
    logits: int
    working: int

    @property
    def total(self) -> int:
        """All of it."""
        fixed = self.parameters + self.gradients + self.optimizer
        return fixed + self.batch + self.activations + self.logits + self.working


def estimate(
    network: torch.nn.Module,
    input_shape: Sequence[int],
    optimizer: torch.optim.Optimizer | None = None,
    lower: bool = False,
    loss_buffers: float = 2.0,
    width: float = 1.0,
) -> Memory:
    """The memory of a training step, from a run of the network on tensors that have a shape and no content.

    Args:
        network: the network, on whatever device.
        input_shape: `(B, C, I, J[, K])` of a batch.
        optimizer: what steps; None for one that keeps nothing.
        lower: whether it computes in 16 bit (`amp`, or bfloat16 on a CPU).
        loss_buffers: how many buffers of the size of the logits, in 32 bit, the loss makes.
        width: all channels but those of input and output times this: 0.5 for a network half as wide.

    Raises:
        RuntimeError: the network does not take this shape.
    """
    inner_in = int(input_shape[1])
    was_training = network.training
    saved: dict[int, tuple[Any, torch.Size]] = {}
    with FakeTensorMode():
        state = {
            name: torch.empty(one.shape, dtype=one.dtype, requires_grad=one.requires_grad)
            for name, one in [*network.named_parameters(), *network.named_buffers()]
        }
        own = {one.untyped_storage()._cdata for one in state.values()}
        image = torch.empty(tuple(input_shape))

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                saved[storage._cdata] = (storage, tensor.shape)
            return tensor

        try:
            network.train()
            with torch.autocast("cpu", torch.bfloat16, enabled=lower), saved_tensors_hooks(keep, lambda one: one):
                output = functional_call(network, state, (image,))
        finally:
            network.train(was_training)
        result = output[0] if isinstance(output, (list, tuple)) else output
        outer = {inner_in, int(result.shape[1])}
        sizes = [
            storage.nbytes() * _share(shape[1:2], outer, width)
            for number, (storage, shape) in saved.items()
            if number != image.untyped_storage()._cdata
        ]
    weights = sum(one.nbytes * _share(one.shape[:2], outer, width) for one in state.values())
    trained = sum(one.nbytes * _share(one.shape[:2], outer, width) for one in state.values() if one.requires_grad)
    pixels = math.prod(input_shape) // inner_in
    return Memory(
        parameters=int(weights),
        gradients=int(trained),
        optimizer=int(trained * _kept_by(optimizer)),
        batch=image.nbytes + 4 * pixels,
        activations=int(sum(sizes)),
        logits=int(result.nbytes + 4 * result.numel() * loss_buffers),
        working=int(2 * max(sizes, default=0)),
    )


def _share(channels: Sequence[int], outer: set[int], width: float) -> float:
    """What is left of a tensor when the channels along these of its axes, but those of input and output, shrink."""
    return math.prod(width if size > 1 and size not in outer else 1.0 for size in channels)


def _kept_by(optimizer: torch.optim.Optimizer | None) -> float:
    """How many tensors of the size of its parameters an optimizer keeps, by what it holds or by its kind."""
    if optimizer is None:
        return 0.0
    parameters = sum(one.nbytes for group in optimizer.param_groups for one in group["params"])
    held = [one for state in optimizer.state.values() for one in state.values() if isinstance(one, torch.Tensor)]
    if held and parameters:
        return float(sum(one.nbytes for one in held) / parameters)
    if "betas" in optimizer.defaults:
        return 2.0
    return 1.0 if optimizer.defaults.get("momentum") else 0.0
