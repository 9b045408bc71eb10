"""How the values of each parameter and of its gradient are spread."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.monitoring.gradients import before_steps, grad_scale
from medseg.monitoring.rows import Rows

BINS = 64


class Histograms:
    """Record histograms of parameters and gradients every so many batches, as `histogram` rows.

    Not `wandb.watch`: that one knows one tracker, and looks during backward, when gradients are still being summed.
    This one looks before a step of the optimizer: gradients are those that it takes, accumulated, unscaled and
    clipped. Where gradients are accumulated, the next step after so many batches is meant.

    Args:
        folder: the run's folder.
        every_n_batches: how often; 0 is never.
    """

    def __init__(self, folder: str | Path, every_n_batches: int = 0) -> None:
        self.rows, self.every = Rows(folder), every_n_batches
        self._begun = False

    def attach(self, engine: Any) -> None:
        """Follow the trainer's optimizer."""
        if engine.state.rank > 0 or self.every < 1:
            return

        def look(optimizer: torch.optim.Optimizer) -> None:
            now = engine.state.iteration
            if now // self.every == _step_before(engine) // self.every:
                return
            if not self._begun:
                self._begun = True
                self.rows.take_up(now)
            scale = grad_scale(optimizer)
            parameters = {_plain(name): one for name, one in engine.network.named_parameters()}
            gradients = {
                name: one.grad if scale is None else one.grad / scale
                for name, one in parameters.items()
                if one.grad is not None
            }
            self.rows.add("histogram", engine, parameters=histograms(parameters), gradients=histograms(gradients))

        before_steps(engine, look)


def _step_before(engine: Any) -> int:
    """The iteration of the step before this one; MONAI steps every so many batches, and at an epoch's end."""
    state = engine.state
    local = (state.iteration - 1) % state.epoch_length if state.epoch_length else state.iteration - 1
    return int(state.iteration - 1 - local % getattr(engine, "accumulation_steps", 1))


@torch.no_grad()
def histograms(tensors: Mapping[str, torch.Tensor], bins: int = BINS) -> dict[str, dict[str, list[float] | list[int]]]:
    """How the finite values of each tensor are spread: `edges`, `(bins + 1,)`, and `counts`, `(bins,)`.

    Counted on the tensors' own device. One without a finite value is left out; where all values are equal, the edges
    stand half a unit off, as NumPy's do, or a thousandth of the value.

    >>> found = histograms({"w": torch.tensor([0.0, 1.0, 1.0, float("nan")])}, bins=2)
    >>> found["w"]["counts"], found["w"]["edges"]
    ([1, 2], [0.0, 0.5, 1.0])
    """
    flat = {name: _finite(one) for name, one in tensors.items()}
    flat = {name: one for name, one in flat.items() if one.numel()}
    if not flat:
        return {}
    ends = torch.stack([torch.stack(torch.aminmax(one)) for one in flat.values()]).tolist()
    ends = [(low, high) if low < high else (low - _margin(low), high + _margin(low)) for low, high in ends]
    pairs = zip(flat.values(), ends, strict=True)
    counts = torch.stack([torch.histc(one, bins, min=low, max=high) for one, (low, high) in pairs]).tolist()
    return {
        name: {"edges": _edges(low, high, bins), "counts": [int(one) for one in row]}
        for name, (low, high), row in zip(flat, ends, counts, strict=True)
    }


def _finite(tensor: torch.Tensor) -> torch.Tensor:
    values = tensor.detach().flatten().float()
    return values[values.isfinite()]


def _margin(value: float) -> float:
    return max(0.5, abs(value) * 1e-3)


def _edges(low: float, high: float, bins: int) -> list[float]:
    return [float(f"{edge:.6g}") for edge in np.linspace(low, high, bins + 1)]


def _plain(name: str) -> str:
    """A parameter's name without what wrappers put before it."""
    return name.replace("_orig_mod.", "").removeprefix("module.")
