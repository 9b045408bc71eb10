"""What a trainer takes out of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.utils import CommonKeys

from medseg.errors import ConfigError


class PrepareBatch:
    """Image and label on the device, the label with what is known of it for a loss that asks.

    Not MONAI's `default_prepare_batch`: that one drops which structures were annotated in which case, and the cases'
    ids. A loss that `honours_annotated` (`medseg.losses`) gets a mapping of `label`, `annotated` and `case`; any other
    gets the label alone, which is right only where everything is annotated.

    Args:
        loss: the loss that the trainer uses.
    """

    def __init__(self, loss: Any) -> None:
        self.loss = loss

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
        image, label = (
            batchdata[key].to(device=device, non_blocking=non_blocking, **kwargs)
            for key in (CommonKeys.IMAGE, CommonKeys.LABEL)
        )
        known = batchdata.get("annotated")
        if getattr(self.loss, "honours_annotated", False):
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
