"""One validation batch before the first epoch, so that a fault there shows now and not after hours."""

from __future__ import annotations

import logging
from typing import Any

from ignite.engine import Engine, Events

from medseg.training.rng import rng_kept

logger = logging.getLogger(__name__)


class SanityValidation:
    """Run the validator over one batch before training starts, then forget what it measured.

    Not MONAI's `ValidationHandler(exec_at_start=...)`: that one runs every volume, and its score of an
    untrained network stays as the best so far.

    While it runs, `validator.state.first_look` is True. The run's chance is the same after it as before.

    Args:
        validator: a MONAI evaluator.
    """

    affects_result = False  # see medseg.bundle.run_identity

    def __init__(self, validator: Any) -> None:
        self.validator = validator

    def attach(self, engine: Engine) -> None:
        """Run when the trainer starts."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Validate one batch, unless the run goes on from a checkpoint."""
        state = self.validator.state
        if not state.epoch_length or engine.state.iteration:
            return
        logger.info("Checking validation with one batch before the first epoch")
        kept = state.epoch_length, state.best_metric, state.best_metric_epoch
        state.epoch_length, state.first_look = 1, True
        try:
            with rng_kept():
                self.validator.run(1)
        finally:
            state.epoch_length, state.best_metric, state.best_metric_epoch = kept
            state.first_look = False
            state.metrics.clear()
            state.metric_details.clear()
