"""Loss and its parts over an epoch, read from the device as rarely as possible."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

_CHILDREN = {"dice": "dice", "cross_entropy": "ce", "binary_cross_entropy": "ce"}  # of MONAI's DiceCELoss


class RunningMean:
    """Sum named scalars, batch after batch.

    Reading a number from a GPU waits for all work that was queued before. So tensors are kept as they are, and read
    together when a value is asked for. They are added one by one and in order: a sum that was saved in the middle and
    resumed is the same to the last bit.
    """

    def __init__(self) -> None:
        self._waiting: list[dict[str, torch.Tensor]] = []
        self._sums: dict[str, tuple[float, int]] = {}
        self._last: dict[str, float] = {}

    def add(self, values: Mapping[str, torch.Tensor]) -> None:
        """Take in the scalars of a batch."""
        self._waiting.append({name: value.detach() for name, value in values.items()})

    def count(self, name: str, value: float) -> None:
        """Take in a number that has been read already."""
        total, number = self._sums.get(name, (0.0, 0))
        self._sums[name] = (total + value, number + 1)

    def last(self) -> dict[str, float]:
        """Return the values of the latest batch."""
        self._read()
        return dict(self._last)

    def mean(self, name: str) -> float | None:
        """Return the mean of a value, None where there was none."""
        self._read()
        total, number = self._sums.get(name, (0.0, 0))
        return total / number if number else None

    def clear(self) -> None:
        """Start again from zero."""
        self._waiting = []
        self._sums = {}
        self._last = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the sums so far."""
        self._read()
        return {name: list(entry) for name, entry in self._sums.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from these sums."""
        self.clear()
        self._sums = {name: (float(total), int(number)) for name, (total, number) in state.items()}

    def _read(self) -> None:
        waiting = self._waiting
        self._waiting = []
        flat = [value.reshape(()).float() for batch in waiting for value in batch.values()]
        if not flat:
            return
        numbers = iter(torch.stack(flat).tolist())
        for batch in waiting:
            self._last = {name: next(numbers) for name in batch}
            for name, value in self._last.items():
                self.count(name, value)


class LossParts:
    """Read Dice and cross-entropy of the last batch, without graph, on their device.

    A loss of `medseg.losses` has them as `parts`. For MONAI's `DiceCELoss` they are the outputs of the two losses in
    it, before their weights. Other losses have none.
    """

    def __init__(self) -> None:
        self._loss: Any = None
        self._parts: dict[str, torch.Tensor] = {}
        self._hooks: list[Any] = []

    def follow(self, loss: Any) -> None:
        """Read the parts of this loss from now on."""
        while self._hooks:
            self._hooks.pop().remove()
        self._loss = loss
        if hasattr(loss, "parts"):
            return
        for child, name in _CHILDREN.items():
            module = getattr(loss, child, None)
            if isinstance(module, torch.nn.Module):
                self._hooks.append(module.register_forward_hook(self._hook(name)))

    def read(self) -> dict[str, torch.Tensor]:
        """Return the parts since the last call."""
        parts = getattr(self._loss, "parts", None)
        if parts is not None:
            return dict(parts)
        parts = self._parts
        self._parts = {}
        return parts

    def _hook(self, name: str) -> Callable[..., None]:
        def store(module: torch.nn.Module, arguments: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                self._parts[name] = output.detach().mean()

        return store
