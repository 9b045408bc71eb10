"""Run a network's final 1x1 convolution once a voxel instead of once a window.

A 1x1 convolution is linear in each voxel: the mean of its outputs over windows is its output for the mean of
their features. So features (32, say) are summed over windows instead of logits (118).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

_Conv = nn.Conv2d | nn.Conv3d


class FinalConv:
    """Apply a 1x1 convolution to channels last, `(..., features)` to `(..., classes)`, on the features' device."""

    def __init__(self, layer: _Conv) -> None:
        self.weight = layer.weight.detach().flatten(1).float().t().contiguous()
        self.bias = torch.zeros(1) if layer.bias is None else layer.bias.detach().float()

    @property
    def classes(self) -> int:
        """Channels of the logits."""
        return self.weight.shape[1]

    def __call__(self, features: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return the logits, float32, in `out` where it is given: new memory takes longer than the product."""
        self.weight = self.weight.to(features.device)
        self.bias = self.bias.to(features.device)
        shape = (*features.shape[:-1], self.weight.shape[1])
        logits = features.new_empty(shape) if out is None else out
        torch.addmm(self.bias, features.reshape(-1, features.shape[-1]), self.weight, out=logits.view(-1, shape[-1]))
        return logits


@contextlib.contextmanager
def split_final_conv(
    network: Callable[..., Any], enabled: bool = True
) -> Iterator[tuple[Callable[..., Any], FinalConv | None]]:
    """Yield the network without its final 1x1 convolution, and the convolution; or the network as it is, and None.

    The network is put together again on leaving.

    Args:
        network: any callable; only a module whose output is that of a 1x1 convolution is split.
        enabled: whether to try.
    """
    position = _find(network) if enabled and isinstance(network, nn.Module) else None
    if position is None:
        yield network, None
        return
    parent, name, layer = position
    setattr(parent, name, nn.Identity())
    try:
        yield network, FinalConv(layer)
    finally:
        setattr(parent, name, layer)


def _find(network: nn.Module) -> tuple[nn.Module, str, _Conv] | None:
    """Find the 1x1 convolution whose output is the network's output, by running the network on a small input.

    Returns its parent module, its name there, and the convolution.
    """
    convolutions = [module for module in network.modules() if isinstance(module, _Conv)]
    candidates = [module for module in convolutions if _is_pointwise(module)]
    if not candidates:
        return None
    outputs: dict[int, torch.Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda layer, _, output: outputs.__setitem__(id(layer), output))
        for module in candidates
    ]
    first = convolutions[0]
    dims = 2 if isinstance(first, nn.Conv2d) else 3
    try:
        trial = torch.zeros((1, first.in_channels, *[32] * dims), device=first.weight.device, dtype=first.weight.dtype)
        with torch.no_grad():
            result = network(trial)
    except Exception:  # a network that does not take such an input is not split
        return None
    finally:
        for hook in hooks:
            hook.remove()
    for parent in network.modules():
        for name, module in parent.named_children():
            # The same tensor, not an equal one: nothing may come after the convolution.
            if isinstance(module, _Conv) and outputs.get(id(module)) is result:
                return parent, name, module
    return None


def _is_pointwise(module: _Conv) -> bool:
    dims = len(module.kernel_size)
    no_padding = module.padding in ((0,) * dims, 0)
    return module.kernel_size == module.stride == (1,) * dims and module.groups == 1 and no_padding
