"""A learning rate that changes with every epoch, or with every step of the optimizer."""

from __future__ import annotations

from typing import Any

from ignite.engine import Events

from medseg.training.checkpoints import accumulating


class LrSchedule:
    """Step a schedule of the learning rate after each epoch, or after each step of the optimizer.

    Not MONAI's `LrScheduleHandler`, which steps after each batch where it does not step by the epoch: where gradients
    of several batches are added up, that one is through its schedule too early, and steps before the optimizer did.

    Args:
        lr_scheduler: torch's scheduler; one that goes by steps is made for `steps_per_epoch` of them in each epoch.
        epoch_level: whether it goes by epochs.
    """

    def __init__(self, lr_scheduler: Any, epoch_level: bool = True) -> None:
        self.lr_scheduler, self.epoch_level = lr_scheduler, epoch_level

    def attach(self, engine: Any) -> None:
        """Step after epochs, or after those iterations that end a step of the optimizer."""
        engine.add_event_handler(Events.EPOCH_COMPLETED if self.epoch_level else Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Step, if the optimizer did."""
        if self.epoch_level or not accumulating(engine):
            self.lr_scheduler.step()


def steps_per_epoch(batches: int, accumulation_steps: int = 1) -> int:
    """How often the optimizer steps in an epoch; the last batches count, however few they are.

    >>> steps_per_epoch(13, 2)
    7
    """
    return -(-batches // accumulation_steps)
