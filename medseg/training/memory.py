"""Estimate how much memory a training step takes, without taking it."""

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
    """Hold what a training step takes at its peak, in bytes.

    Args:
        parameters: the network's weights and buffers.
        gradients: of the weights.
        optimizer: the state of the optimizer.
        batch: image and label.
        activations: what the forward pass keeps for the backward pass.
        logits: the network's output, and the buffers of the loss.
        working: what the backward pass adds at its peak.
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
        """Return the sum."""
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
    """Estimate the memory of a training step, by running the network on tensors that have a shape and no content.

    Args:
        network: the network, on whatever device.
        input_shape: `(B, C, I, J[, K])` of a batch.
        optimizer: the optimizer; None for one without a state.
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
            name: torch.empty(tensor.shape, dtype=tensor.dtype, requires_grad=tensor.requires_grad)
            for name, tensor in [*network.named_parameters(), *network.named_buffers()]
        }
        weights_of_network = {tensor.untyped_storage()._cdata for tensor in state.values()}
        image = torch.empty(tuple(input_shape))

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in weights_of_network:
                saved[storage._cdata] = (storage, tensor.shape)
            return tensor

        try:
            network.train()
            with torch.autocast("cpu", torch.bfloat16, enabled=lower), saved_tensors_hooks(keep, lambda tensor: tensor):
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
    sizes_of_weights = {name: w.nbytes * _share(w.shape[:2], outer, width) for name, w in state.items()}
    weights = sum(sizes_of_weights.values())
    trained = sum(size for name, size in sizes_of_weights.items() if state[name].requires_grad)
    pixels = math.prod(input_shape) // inner_in
    return Memory(
        parameters=int(weights),
        gradients=int(trained),
        optimizer=int(trained * _state_size(optimizer)),
        batch=image.nbytes + 4 * pixels,
        activations=int(sum(sizes)),
        logits=int(result.nbytes + 4 * result.numel() * loss_buffers),
        working=int(2 * max(sizes, default=0)),
    )


def _share(channels: Sequence[int], outer: set[int], width: float) -> float:
    """Return the share of a tensor that remains when its channels, but those of input and output, shrink."""
    return math.prod(width if size > 1 and size not in outer else 1.0 for size in channels)


def _state_size(optimizer: torch.optim.Optimizer | None) -> float:
    """Return the size of an optimizer's state in multiples of its parameters, measured or by its kind."""
    if optimizer is None:
        return 0.0
    parameters = sum(parameter.nbytes for group in optimizer.param_groups for parameter in group["params"])
    entries = [entry for state in optimizer.state.values() for entry in state.values()]
    size = sum(entry.nbytes for entry in entries if isinstance(entry, torch.Tensor))
    if size and parameters:
        return float(size / parameters)
    if "betas" in optimizer.defaults:
        return 2.0
    return 1.0 if optimizer.defaults.get("momentum") else 0.0
