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

PRECISIONS = ("auto", "fp32", "bf16")


def scaler_of(engine: Any) -> Any | None:
    """Return AMP's scaler; None where the engine has none that is enabled."""
    scaler = getattr(engine, "scaler", None)
    return scaler if scaler is not None and scaler.is_enabled() else None


def accumulating(engine: Any) -> bool:
    """Return whether the trainer is between two batches of one step of the optimizer."""
    steps = getattr(engine, "accumulation_steps", 1)
    length = engine.state.epoch_length
    done = engine.state.iteration % length if length else engine.state.iteration
    return bool(steps > 1 and done % steps)


def unscale(engine: Any, optimizer: torch.optim.Optimizer) -> None:
    """Take AMP's scale out of the gradients of a fused optimizer, once before its step.

    The scaler does so itself for any other optimizer, before it lets it step; a fused one is handed the scale, and
    handlers that look at gradients in between would see scaled ones. For `IterationEvents.BACKWARD_COMPLETED`.
    """
    scaler = scaler_of(engine)
    fused = getattr(optimizer, "_step_supports_amp_scaling", False)
    if scaler is None or not fused or accumulating(engine):
        return
    if getattr(engine.state, "unscaled", None) != engine.state.iteration:
        scaler.unscale_(optimizer)
        engine.state.unscaled = engine.state.iteration


def on_backward(engine: Any, handler: Callable[..., None], *arguments: Any) -> None:
    """Call a handler after each backward pass, where the engine knows that event; a plain Ignite engine does not."""
    if engine.has_registered_events(IterationEvents.BACKWARD_COMPLETED):
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, handler, *arguments)


def output_of(engine: Any) -> Any:
    """Return the output of the engine's step; the first of a list, as MONAI's engines give decollated ones."""
    output = engine.state.output
    return output[0] if isinstance(output, (list, tuple)) and output else output


def loss_of(engine: Any) -> torch.Tensor:
    """Return the loss of the step: `loss` of a mapping, as MONAI's trainer gives it, or the output itself."""
    output = output_of(engine)
    loss = output["loss"] if isinstance(output, Mapping) else output
    return torch.as_tensor(loss).detach()


class PrepareBatch:
    """Return image and label on the device, the label with what a loss may ask about it.

    Not MONAI's `default_prepare_batch`: that one drops which structures were annotated in which case, and the cases'
    ids. A loss that `supports_annotated` (`medseg.losses`) gets a mapping of `label`, `annotated` and `case`; any other
    gets the label alone, which is right only where everything is annotated.

    Args:
        loss: the loss that the trainer uses.
        prepare_batch: brings image and label to the device, and may augment them there.

    Example:
        >>> prepare = PrepareBatch(torch.nn.CrossEntropyLoss())
        >>> image, label = prepare({"image": torch.zeros(2, 1, 4, 4), "label": torch.ones(2, 1, 4, 4)})
        >>> image.shape, label.shape
        (torch.Size([2, 1, 4, 4]), torch.Size([2, 1, 4, 4]))
    """

    def __init__(self, loss: Any, prepare_batch: Callable[..., Any] = default_prepare_batch) -> None:
        self.loss = loss
        self.prepare_batch = prepare_batch

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **options: Any,
    ) -> tuple[torch.Tensor, Any]:
        """Return image and targets of one batch.

        Raises:
            ConfigError: a case is annotated in part, and the loss would take the rest for background.
        """
        image, label, *_ = self.prepare_batch(batchdata, device, non_blocking, **options)
        annotated = batchdata.get("annotated")
        if getattr(self.loss, "supports_annotated", False):
            more = {key: batchdata[key] for key in ("annotated", "case") if batchdata.get(key) is not None}
            return image, {CommonKeys.LABEL: label, **more}
        if annotated is not None and not bool(annotated.all()):
            problem = f"{type(self.loss).__name__} takes what is not annotated in a case for background"
            raise ConfigError("loss", problem, "", "Put it into medseg.losses.MarginalLoss.")
        return image, label


def has_bf16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX)."""
    names = ("avx512_bf16", "amx_tile")
    return any(bool(getattr(torch.cpu, f"_is_{name}_supported", lambda: False)()) for name in names)


class PrecisionInferer(SimpleInferer):  # type: ignore[misc]
    """Run the network on the CPU in bfloat16 where that is faster; weights and loss stay float32.

    Not MONAI's `amp`: that is for CUDA alone and does nothing on a CPU. On a GPU this inferer changes nothing.

    Args:
        precision: `auto` (bfloat16 on a CPU that has it in hardware), `bf16` or `fp32`.

    Raises:
        ConfigError: another precision.
    """

    def __init__(self, precision: str = "auto") -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise ConfigError("precision", f"it must be one of {', '.join(PRECISIONS)}", f"got {precision!r}")
        self.bf16 = precision == "bf16" or (precision == "auto" and has_bf16())

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return the network's output, in the precision it was computed in."""
        lower = self.bf16 and inputs.device.type == "cpu"
        with torch.autocast("cpu", torch.bfloat16) if lower else contextlib.nullcontext():
            return super().__call__(inputs, network, *args, **kwargs)


class ClipGradients:
    """Shorten the gradient of all parameters together to `max_norm` before each step of the optimizer.

    It hooks the optimizer instead of an event of the trainer: so it sees the gradients once they are summed over
    accumulated batches and no longer scaled by AMP, on any Ignite engine. The norm before clipping is in
    `engine.state.gradient_norm`.

    Args:
        optimizer: the optimizer.
        max_norm: the longest gradient, above 0.

    Raises:
        ConfigError: `max_norm` is not above 0.

    Example:
        >>> ClipGradients(optimizer, max_norm=12).attach(trainer)  # doctest: +SKIP
    """

    def __init__(self, optimizer: torch.optim.Optimizer, max_norm: float) -> None:
        if not max_norm > 0:
            raise ConfigError("max_norm", "it must be above 0", f"got {max_norm}")
        self.optimizer = optimizer
        self.max_norm = float(max_norm)

    def attach(self, engine: Any) -> None:
        """Clip from the start of the run to its end."""
        engine.add_event_handler(Events.STARTED, self._start)
        on_backward(engine, unscale, self.optimizer)

    def _start(self, engine: Any) -> None:
        def clip(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            engine.state.gradient_norm = torch.nn.utils.clip_grad_norm_(parameters, self.max_norm)

        handle = self.optimizer.register_step_pre_hook(clip)
        engine.add_event_handler(Events.COMPLETED, lambda: handle.remove())
