"""What a trainer takes out of a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from monai.engines import default_prepare_batch
from monai.utils import CommonKeys

from medseg.errors import ConfigError


class PrepareBatch:
    """Image and label on the device, the label with what is known of it for a loss that asks.

    Not MONAI's `default_prepare_batch`: that one drops which structures were annotated in which case, and the cases'
    ids. A loss that `supports_annotated` (`medseg.losses`) gets a mapping of `label`, `annotated` and `case`; any other
    gets the label alone, which is right only where everything is annotated.

    Args:
        loss: the loss that the trainer uses.
        prepare_batch: what brings image and label to the device, and may augment them there.
    """

    def __init__(self, loss: Any, prepare_batch: Callable[..., Any] = default_prepare_batch) -> None:
        self.loss, self.prepare_batch = loss, prepare_batch

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, Any]:
        """Image and targets of one batch.

        Raises:
            ConfigError: a case that is annotated in part, and a loss that would take the rest for background.
        """
        image, label, *_ = self.prepare_batch(batchdata, device, non_blocking, **kwargs)
        known = batchdata.get("annotated")
        if getattr(self.loss, "supports_annotated", False):
            said = {key: batchdata[key] for key in ("annotated", "case") if batchdata.get(key) is not None}
            return image, {CommonKeys.LABEL: label, **said}
        if known is not None and not bool(known.all()):
            name = type(self.loss).__name__
            raise ConfigError(
                "loss",
                "must leave out what is not annotated in a case",
                f"{name}, and cases annotated in part",
                "Put it into medseg.losses.MarginalLoss: it would take the rest for background.",
            )
        return image, label
