"""The parts that a loss is made of, from the loss itself or from looking on."""

from __future__ import annotations

from typing import Any

import torch

_CHILDREN = {"dice": "dice", "cross_entropy": "ce", "binary_cross_entropy": "ce"}  # of MONAI's DiceCELoss


class LossParts:
    """Dice and cross-entropy of the last batch, without graph, on their device.

    A loss of `medseg.losses` says them itself (`parts`). Of MONAI's `DiceCELoss` they are what comes out of the two
    losses in it, before their weights. Any other loss has none.
    """

    def __init__(self) -> None:
        self._loss: Any = None
        self._seen: dict[str, torch.Tensor] = {}
        self._hooks: list[Any] = []

    def follow(self, loss: Any) -> None:
        """From now on it is this loss."""
        while self._hooks:
            self._hooks.pop().remove()
        self._loss = loss
        if hasattr(loss, "parts"):
            return
        for child, name in _CHILDREN.items():
            module = getattr(loss, child, None)
            if isinstance(module, torch.nn.Module):
                self._hooks.append(module.register_forward_hook(self._note(name)))

    def read(self) -> dict[str, torch.Tensor]:
        """The parts since the last reading."""
        said = getattr(self._loss, "parts", None)
        if said is not None:
            return dict(said)
        found, self._seen = self._seen, {}
        return found

    def _note(self, name: str) -> Any:
        def note(_module: torch.nn.Module, _given: Any, made: Any) -> None:
            if isinstance(made, torch.Tensor):
                self._seen[name] = made.detach().mean()

        return note
