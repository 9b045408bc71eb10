"""Settings that go with one call of the inferer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from medseg.errors import ConfigError


@dataclass(frozen=True)
class InferenceOptions:
    """Settings of one call of a `StreamingInferer`: an inferer that a config built is shared, and never changed.

    Args:
        sw_device: where windows and network run; None for the inferer's own.
        sw_batch_size: windows in a batch; None for the inferer's own.
        structures: labels, or for an inferer with `labels` names, that may come out; all other voxels become
            background. None for all.
        coarse_first: with `structures`, run windows without overlap first (for a 2D network, on a slice every 8 mm),
            then only the windows that touch the box around what they showed. Inside the box the result is the same
            as without; outside it is background.
        confidence: add `meta["confidence"]` to the MetaTensor that is returned: for each image the mean probability
            of each label over the voxels (of the network's grid) that got it, NaN for absent ones.
        progress: whether to show a progress bar.

    Raises:
        ConfigError: the batch is neither a whole number above 0 nor `auto`.

    Example:
        >>> from medseg.inference import StreamingInferer
        >>> inferer, network = StreamingInferer((2, 2)), torch.nn.Conv2d(1, 3, 1)
        >>> labels = inferer(torch.ones(1, 1, 2, 2, 4), network, options=InferenceOptions(structures=[2]))
        >>> labels.shape
        torch.Size([1, 1, 2, 2, 4])
    """

    sw_device: torch.device | str | None = None
    sw_batch_size: int | str | None = None
    structures: Sequence[int | str] | None = None
    coarse_first: bool = False
    confidence: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        if self.sw_batch_size is not None:
            require_batch_size(self.sw_batch_size)


def require(holds: bool, name: str, rule: str, value: object) -> None:
    """Raise an error about an argument of the inferer unless `holds`.

    Raises:
        ConfigError: it does not hold.
    """
    if not holds:
        raise ConfigError(f"StreamingInferer, {name}", rule, f"got {value!r}")


def require_batch_size(value: int | str) -> None:
    """Raise an error unless `value` is a batch size.

    Raises:
        ConfigError: it is neither a whole number above 0 nor `auto`.
    """
    is_size = isinstance(value, int) and value > 0
    require(is_size or value == "auto", "sw_batch_size", "must be a whole number above 0 or auto", value)
