"""What gradients look like before the optimizer takes its step."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from ignite.engine import Events


def before_steps(engine: Any, look: Callable[[torch.optim.Optimizer], None]) -> None:
    """Call `look` before each step of a trainer's optimizer, from the run's start to its end.

    It hangs on the optimizer and not on an event: so gradients are summed over accumulated batches, and no longer
    scaled by AMP (but see `grad_scale`). A trainer without an optimizer of its own is left alone.
    """
    handles: list[Any] = []

    def start() -> None:
        stop()
        optimizer = getattr(engine, "optimizer", None)
        if isinstance(optimizer, torch.optim.Optimizer):
            handles.append(optimizer.register_step_pre_hook(lambda one, *_: look(one)))

    def stop() -> None:
        while handles:
            handles.pop().remove()

    engine.add_event_handler(Events.STARTED, start)
    engine.add_event_handler(Events.COMPLETED, stop)


def grad_scale(optimizer: torch.optim.Optimizer) -> torch.Tensor | None:
    """What the gradients are still multiplied by: fused optimizers take AMP's scale away within their step."""
    return getattr(optimizer, "grad_scale", None)


class GradientNorm:
    """The 2-norm of all gradients together before clipping, of those steps that are asked for.

    Where something has measured it before this step and left it in `engine.state.gradient_norm` (clipping does), that
    is taken; else it is computed and left there.

    Args:
        wanted: whether the step of this iteration is one of them.
    """

    def __init__(self, wanted: Callable[[Any], bool]) -> None:
        self.wanted = wanted
        self._norm: torch.Tensor | float | None = None

    def attach(self, engine: Any) -> None:
        """Follow the trainer's optimizer."""
        seen: list[Any] = [None]

        def look(optimizer: torch.optim.Optimizer) -> None:
            if not self.wanted(engine):
                return
            norm = getattr(engine.state, "gradient_norm", None)
            if norm is None or norm is seen[0]:
                norm = total_norm(parameter for group in optimizer.param_groups for parameter in group["params"])
                scale = grad_scale(optimizer)
                norm = norm if scale is None or norm is None else norm / scale
                engine.state.gradient_norm = norm
            self._norm = norm

        def remember() -> None:
            seen[0] = getattr(engine.state, "gradient_norm", None)

        engine.add_event_handler(Events.ITERATION_STARTED, remember)
        before_steps(engine, look)

    def read(self) -> float | None:
        """The norm of the latest step that was asked for; None before the first."""
        self._norm = None if self._norm is None else float(self._norm)
        return self._norm

    def load(self, norm: float | None) -> None:
        """Go on from there."""
        self._norm = norm


def total_norm(parameters: Iterable[torch.Tensor]) -> torch.Tensor | None:
    """The 2-norm of all their gradients together; None where there are none."""
    gradients = [one.grad for one in parameters if one.grad is not None]
    return torch.nn.utils.get_total_norm(gradients) if gradients else None
