"""The parts of one training step: batch, precision, and gradients as they are under AMP."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import default_prepare_batch
from monai.engines.utils import IterationEvents
from monai.inferers import SimpleInferer
from monai.utils import CommonKeys

from medseg.errors import ConfigError


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


class PrepareBatch:
    """Image and label on the device, the label with what is known of it for a loss that asks.

    Not MONAI's `default_prepare_batch`: that one drops which structures were annotated in which case, and the cases'
    ids. A loss that `supports_annotated` (`medseg.losses`) gets a mapping of `label`, `annotated` and `case`; any other
    gets the label alone, which is right only where everything is annotated.

    Args:
        loss: the loss that the trainer uses.
        prepare_batch: what brings image and label to the device, and may augment them there.
    """

    def __init__(self, loss: Any, prepare_batch: Callable[..., Any] = default_prepare_batch) -> None:
        self.loss, self.prepare_batch = loss, prepare_batch

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, Any]:
        """Image and targets of one batch.

        Raises:
            ConfigError: a case that is annotated in part, and a loss that would take the rest for background.
        """
        image, label, *_ = self.prepare_batch(batchdata, device, non_blocking, **kwargs)
        known = batchdata.get("annotated")
        if getattr(self.loss, "supports_annotated", False):
            said = {key: batchdata[key] for key in ("annotated", "case") if batchdata.get(key) is not None}
            return image, {CommonKeys.LABEL: label, **said}
        if known is not None and not bool(known.all()):
            name = type(self.loss).__name__
            raise ConfigError(
                "loss",
                "must leave out what is not annotated in a case",
                f"{name}, and cases annotated in part",
                "Put it into medseg.losses.MarginalLoss: it would take the rest for background.",
            )
        return image, label


PRECISIONS = ("auto", "fp32", "bf16")


def has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX)."""
    return any(
        bool(getattr(torch.cpu, f"_is_{name}_supported", lambda: False)()) for name in ("avx512_bf16", "amx_tile")
    )


class PrecisionInferer(SimpleInferer):  # type: ignore[misc]
    """Run the network on the CPU in bfloat16 where that is faster, weights and loss staying float32.

    Not MONAI's `amp`: that is for CUDA alone and does nothing on a CPU. On a GPU this one changes nothing.

    Args:
        precision: `auto` (bfloat16 on a CPU that has it in hardware), `bf16` or `fp32`.

    Raises:
        ConfigError: another precision.
    """

    def __init__(self, precision: str = "auto") -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise ConfigError("precision", f"must be one of {', '.join(PRECISIONS)}", f"'{precision}'")
        self.bf16 = precision == "bf16" or (precision == "auto" and has_bf16())

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the network says, in the precision it was computed in."""
        lower = self.bf16 and inputs.device.type == "cpu"
        with torch.autocast("cpu", torch.bfloat16) if lower else contextlib.nullcontext():
            return super().__call__(inputs, network, *args, **kwargs)


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
