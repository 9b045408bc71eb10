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
from torch.nn import functional


@contextlib.contextmanager
def split_head(
    network: Callable[..., Any], wanted: bool = True
) -> Iterator[tuple[Callable[..., Any], Callable[[torch.Tensor], torch.Tensor] | None]]:
    """Give the network without its 1x1 head, and the head; or the network as it is, and None.

    The head acts on channels last, `(..., features)` to `(..., classes)`. The network is put together again on
    leaving.

    Args:
        network: any callable; only a module whose output is that of a 1x1 convolution is taken apart.
        wanted: whether to try.
    """
    found = _find(network) if wanted and isinstance(network, nn.Module) else None
    if found is None:
        yield network, None
        return
    parent, name, head = found
    weight = head.weight.detach().flatten(1).float()
    bias = head.bias.detach().float() if head.bias is not None else None
    setattr(parent, name, nn.Identity())
    try:
        yield (
            network,
            lambda features: functional.linear(
                features, weight.to(features.device), None if bias is None else bias.to(features.device)
            ),
        )
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
