"""The last layer of a network apart from the rest, where that changes nothing.

A 1x1 convolution is linear in each voxel: the mean of its outputs over windows is its output for the mean of
their features. So features (32, say) are summed over windows instead of logits (118), and the head runs once for
each voxel instead of once for each window.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn


class Head:
    """A 1x1 convolution on channels last, `(..., features)` to `(..., classes)`, wherever the features lie."""

    def __init__(self, layer: nn.Conv2d | nn.Conv3d) -> None:
        self.weight = layer.weight.detach().flatten(1).float().t().contiguous()
        self.bias = torch.zeros(1) if layer.bias is None else layer.bias.detach().float()

    @property
    def classes(self) -> int:
        """Channels of the logits."""
        return self.weight.shape[1]

    def __call__(self, features: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of features, float32, into `out` where that is given: new memory takes longer than the sums."""
        there = features.device
        self.weight, self.bias = self.weight.to(there), self.bias.to(there)
        shape = (*features.shape[:-1], self.weight.shape[1])
        logits = features.new_empty(shape) if out is None else out
        torch.addmm(self.bias, features.reshape(-1, features.shape[-1]), self.weight, out=logits.view(-1, shape[-1]))
        return logits


@contextlib.contextmanager
def split_head(network: Callable[..., Any], wanted: bool = True) -> Iterator[tuple[Callable[..., Any], Head | None]]:
    """Give the network without its 1x1 head, and the head; or the network as it is, and None.

    The network is put together again on leaving.

    Args:
        network: any callable; only a module whose output is that of a 1x1 convolution is taken apart.
        wanted: whether to try.
    """
    found = _find(network) if wanted and isinstance(network, nn.Module) else None
    if found is None:
        yield network, None
        return
    parent, name, head = found
    setattr(parent, name, nn.Identity())
    try:
        yield network, Head(head)
    finally:
        setattr(parent, name, head)


def _find(network: nn.Module) -> tuple[nn.Module, str, nn.Conv2d | nn.Conv3d] | None:
    """The 1x1 convolution that the network ends in: the one whose output is the network's, seen in a trial."""
    heads = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Conv3d)) and _is_head(module)]
    first = next((module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Conv3d))), None)
    if first is None or not heads:
        return None
    outputs: dict[int, torch.Tensor] = {}
    hooks = [
        head.register_forward_hook(lambda module, _, output: outputs.__setitem__(id(module), output)) for head in heads
    ]
    dims = 2 if isinstance(first, nn.Conv2d) else 3
    try:
        trial = torch.zeros((1, first.in_channels, *[32] * dims), device=first.weight.device, dtype=first.weight.dtype)
        with torch.no_grad():
            result = network(trial)
    except Exception:  # a network that does not take such a trial is left as it is
        return None
    finally:
        for hook in hooks:
            hook.remove()
    for parent in network.modules():
        for name, module in parent.named_children():
            if isinstance(module, (nn.Conv2d, nn.Conv3d)) and outputs.get(id(module)) is result:
                return parent, name, module
    return None


def _is_head(module: nn.Conv2d | nn.Conv3d) -> bool:
    ones = (1,) * len(module.kernel_size)
    return (
        module.kernel_size == ones
        and module.stride == ones
        and module.groups == 1
        and module.padding
        in (
            (0,) * len(module.kernel_size),
            0,
        )
    )
