"""Gradients that are never longer than a limit."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents

from medseg.errors import ConfigError
from medseg.training.amp import unscale


class ClipGradients:
    """Shorten the gradient of all parameters together to `max_norm` before each step of the optimizer.

    It hangs on the optimizer, not on an event of the trainer: so it sees the gradients once they are summed over
    accumulated batches and no longer scaled by AMP, and nothing in between. The norm before clipping is in
    `engine.state.gradient_norm`.

    Args:
        optimizer: the optimizer.
        max_norm: the limit, above 0.

    Raises:
        ConfigError: a limit that is none.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, max_norm: float) -> None:
        if not max_norm > 0:
            raise ConfigError("max_norm", "must be above 0", str(max_norm))
        self.optimizer, self.max_norm = optimizer, float(max_norm)

    def attach(self, engine: Any) -> None:
        """Clip from the start of the run to its end."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, unscale, self.optimizer)

    def _start(self, engine: Any) -> None:
        def clip(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            parameters = [one for group in optimizer.param_groups for one in group["params"]]
            engine.state.gradient_norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_norm)

        handle = self.optimizer.register_step_pre_hook(clip)
        engine.add_event_handler(Events.COMPLETED, lambda: handle.remove())
