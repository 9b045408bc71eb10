"""Gradients as they are before the optimizer takes its step: their norm, and their histograms with the parameters'."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events

from medseg.monitoring.row_writer import RowWriter

BINS = 64


def before_steps(
    engine: Any, look: Callable[[torch.optim.Optimizer], None], optimizer: torch.optim.Optimizer | None = None
) -> None:
    """Call `look` before each step of a trainer's optimizer, from the run's start to its end.

    The hook is on the optimizer and not on an event: so gradients are summed over accumulated batches, and no longer
    scaled by AMP (but see `grad_scale`).

    Args:
        engine: the trainer.
        look: gets the optimizer.
        optimizer: the optimizer. Default: the trainer's `optimizer`; without one nothing is called.
    """
    handles: list[Any] = []

    def start() -> None:
        stop()
        target = optimizer if optimizer is not None else getattr(engine, "optimizer", None)
        if isinstance(target, torch.optim.Optimizer):
            handles.append(target.register_step_pre_hook(lambda stepping, *_: look(stepping)))

    def stop() -> None:
        while handles:
            handles.pop().remove()

    engine.add_event_handler(Events.STARTED, start)
    engine.add_event_handler(Events.COMPLETED, stop)


def grad_scale(optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
    """Return the factor that is still in the gradients: fused optimizers remove AMP's scale within their step."""
    return getattr(optimizer, "grad_scale", None)


class GradientNorm:
    """Measure the 2-norm of all gradients together before clipping, in the steps that are asked for.

    Where it was measured before this step and is in `engine.state.gradient_norm` (clipping does that), it is taken
    from there; else it is computed and written there.

    Args:
        is_due: returns True if the next step of a trainer is one of them.
        optimizer: see `before_steps`.
    """

    def __init__(self, is_due: Callable[[Any], bool], optimizer: torch.optim.Optimizer | None = None) -> None:
        self.is_due = is_due
        self.optimizer = optimizer
        self._norm: torch.Tensor | float | None = None

    def attach(self, engine: Any) -> None:
        """Follow the trainer's optimizer."""
        previous: list[Any] = [None]  # the norm at the start of the iteration: not of this step

        def look(optimizer: torch.optim.Optimizer) -> None:
            if not self.is_due(engine):
                return
            norm = getattr(engine.state, "gradient_norm", None)
            if norm is None or norm is previous[0]:
                norm = total_norm(parameter for group in optimizer.param_groups for parameter in group["params"])
                scale = grad_scale(optimizer)
                norm = norm if scale is None or norm is None else norm / scale
                engine.state.gradient_norm = norm
            self._norm = norm

        def remember() -> None:
            previous[0] = getattr(engine.state, "gradient_norm", None)

        engine.add_event_handler(Events.ITERATION_STARTED, remember)
        before_steps(engine, look, self.optimizer)

    def read(self) -> float | None:
        """Return the norm of the latest step that was asked for, None before the first."""
        self._norm = None if self._norm is None else float(self._norm)
        return self._norm

    def load(self, norm: float | None) -> None:
        """Resume from this norm."""
        self._norm = norm


def total_norm(parameters: Iterable[torch.Tensor]) -> torch.Tensor | None:
    """Return the 2-norm of all their gradients together, None where there are none."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients) if gradients else None


class Histograms:
    """Record histograms of parameters and gradients every so many batches, as `histogram` rows.

    Not `wandb.watch`, which knows one tracker and looks during backward, when gradients are still being summed. This
    one looks before a step of the optimizer: gradients are those that it takes, accumulated, unscaled and clipped.
    Where gradients are accumulated, the next step after so many batches is recorded.

    Args:
        folder: the run's folder.
        every_n_batches: how often; 0 is never.
        network: Default: the trainer's `network`, which MONAI's have.
        optimizer: Default: the trainer's `optimizer`.
    """

    affects_result = False  # see medseg.bundle.run_identity

    def __init__(
        self,
        folder: str | Path,
        every_n_batches: int = 0,
        network: torch.nn.Module | None = None,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> None:
        self.rows = RowWriter(folder)
        self.every = every_n_batches
        self.network = network
        self.optimizer = optimizer
        self._started = False

    def attach(self, engine: Any) -> None:
        """Follow the trainer's optimizer."""
        if getattr(engine.state, "rank", 0) > 0 or self.every < 1:
            return

        def look(optimizer: torch.optim.Optimizer) -> None:
            iteration = engine.state.iteration
            if iteration // self.every == _step_before(engine) // self.every:
                return
            if not self._started:
                self._started = True
                self.rows.resume(iteration)
            network: torch.nn.Module = self.network or engine.network
            scale = grad_scale(optimizer)
            parameters = {_plain_name(name): parameter for name, parameter in network.named_parameters()}
            gradients = {
                name: parameter.grad if scale is None else parameter.grad / scale
                for name, parameter in parameters.items()
                if parameter.grad is not None
            }
            self.rows.add("histogram", engine, parameters=histograms(parameters), gradients=histograms(gradients))

        before_steps(engine, look, self.optimizer)


def _step_before(engine: Any) -> int:
    """Return the iteration of the step before this one; MONAI steps every so many batches, and at an epoch's end."""
    state = engine.state
    local = (state.iteration - 1) % state.epoch_length if state.epoch_length else state.iteration - 1
    return int(state.iteration - 1 - local % getattr(engine, "accumulation_steps", 1))


@torch.no_grad()
def histograms(tensors: Mapping[str, torch.Tensor], bins: int = BINS) -> dict[str, dict[str, list[float] | list[int]]]:
    """Return `edges` `(bins + 1,)` and `counts` `(bins,)` of the finite values of each tensor.

    Counted on the tensors' own device. A tensor without a finite value is left out; where all values are equal, the
    edges are half a unit off, as NumPy's are, or a thousandth of the value.

    Example:
        >>> counted = histograms({"w": torch.tensor([0.0, 1.0, 1.0, float("nan")])}, bins=2)
        >>> counted["w"]["counts"], counted["w"]["edges"]
        ([1, 2], [0.0, 0.5, 1.0])
    """
    flat = {}
    for name, tensor in tensors.items():
        values = tensor.detach().flatten().float()
        values = values[values.isfinite()]
        if values.numel():
            flat[name] = values
    if not flat:
        return {}
    ends = torch.stack([torch.stack(torch.aminmax(values)) for values in flat.values()]).tolist()
    ends = [(low, high) if low < high else (low - _margin(low), high + _margin(low)) for low, high in ends]
    pairs = zip(flat.values(), ends, strict=True)
    counts = torch.stack([torch.histc(values, bins, min=low, max=high) for values, (low, high) in pairs]).tolist()
    return {
        name: {
            "edges": [float(f"{edge:.6g}") for edge in np.linspace(low, high, bins + 1)],
            "counts": [int(count) for count in row],
        }
        for name, (low, high), row in zip(flat, ends, counts, strict=True)
    }


def _margin(value: float) -> float:
    return max(0.5, abs(value) * 1e-3)


def _plain_name(name: str) -> str:
    """Return a parameter's name without the prefixes of wrappers."""
    return name.replace("_orig_mod.", "").removeprefix("module.")
