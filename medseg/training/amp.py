"""Gradients as they are, where AMP scales the loss."""

from __future__ import annotations

from typing import Any

import torch


def scaler_of(engine: Any) -> Any | None:
    """AMP's scaler, where one is at work."""
    scaler = getattr(engine, "scaler", None)
    return scaler if scaler is not None and scaler.is_enabled() else None


def steps_now(engine: Any) -> bool:
    """Whether MONAI's trainer steps after this batch: the last of `accumulation_steps`, or of the epoch."""
    every, length = getattr(engine, "accumulation_steps", 1), engine.state.epoch_length
    done = (engine.state.iteration - 1) % length + 1 if length else engine.state.iteration
    return bool(done % every == 0 or done == length)


def unscale(engine: Any, optimizer: torch.optim.Optimizer) -> None:
    """Take AMP's scale out of the gradients of a fused optimizer, once before its step.

    Of any other optimizer the scaler does so by itself, before it lets the optimizer step; a fused one is handed the
    scale, and whoever looks at gradients in between sees scaled ones. For `IterationEvents.BACKWARD_COMPLETED`.
    """
    scaler = scaler_of(engine)
    fused = getattr(optimizer, "_step_supports_amp_scaling", False)
    if scaler is None or not fused or not steps_now(engine):
        return
    if getattr(engine.state, "unscaled", None) != engine.state.iteration:
        scaler.unscale_(optimizer)
        engine.state.unscaled = engine.state.iteration
