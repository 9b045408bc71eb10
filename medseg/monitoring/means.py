"""Means over an epoch of what lies on the device, read from there as rarely as can be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


class Means:
    """Sums of named scalars, batch after batch.

    Reading a number from a GPU waits for all that it was told before. So tensors are kept as they are, and read
    together when a value is wanted. They are added up one by one and in order: a sum that was saved in the middle
    and gone on with is the same to the last bit.
    """

    def __init__(self) -> None:
        self._waiting: list[dict[str, torch.Tensor]] = []
        self._sums: dict[str, tuple[float, int]] = {}
        self._last: dict[str, float] = {}

    def add(self, values: Mapping[str, torch.Tensor]) -> None:
        """Take in the scalars of a batch."""
        self._waiting.append({name: value.detach() for name, value in values.items()})

    def count(self, name: str, value: float) -> None:
        """Take in a number that has been read."""
        total, number = self._sums.get(name, (0.0, 0))
        self._sums[name] = total + value, number + 1

    def last(self) -> dict[str, float]:
        """The values of the latest batch."""
        self._read()
        return dict(self._last)

    def mean(self, name: str) -> float | None:
        """The mean of a value; None where there was none."""
        self._read()
        total, number = self._sums.get(name, (0.0, 0))
        return total / number if number else None

    def clear(self) -> None:
        """Begin anew."""
        self._waiting, self._sums, self._last = [], {}, {}

    def state_dict(self) -> dict[str, Any]:
        """The sums so far."""
        self._read()
        return {name: list(one) for name, one in self._sums.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.clear()
        self._sums = {name: (float(total), int(number)) for name, (total, number) in state.items()}

    def _read(self) -> None:
        waiting, self._waiting = self._waiting, []
        flat = [value.reshape(()).float() for batch in waiting for value in batch.values()]
        if not flat:
            return
        numbers = iter(torch.stack(flat).tolist())
        for batch in waiting:
            self._last = {name: next(numbers) for name in batch}
            for name, value in self._last.items():
                self.count(name, value)
