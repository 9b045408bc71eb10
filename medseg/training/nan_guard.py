"""Numbers that are none never reach the weights."""

from __future__ import annotations

import copy
import logging
import math
import statistics
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents

from medseg.errors import ConfigError, TrainingError
from medseg.runs.metrics_log import append_row
from medseg.training.step import scaler_of, steps_now, unscale

logger = logging.getLogger(__name__)

_WINDOW, _ENOUGH = 100, 20  # batches that the running median is over, and how few it may be of


class NanGuard:
    """Stop a run before a loss or a gradient that is not finite is stepped on, and say which cases brought it.

    Not MONAI's or Ignite's `TerminateOnNan`: that one looks once the weights are gone, and says nothing of the batch.
    This one hangs on the optimizer, as `ClipGradients` does, so that it sees the gradients of all accumulated batches.
    Where AMP scales the loss, a gradient that overflows now and then is how its scaler finds the scale, and is left
    out by it: there, only `patience` of them in a row stop the run. The last checkpoint is from before, so the same
    command goes on from there.

    A loss that stays above `factor` times the median of the last 100 batches brings a warning, once.

    `engine.state.gradient_norm` is the norm of the gradient before it was clipped. It belongs behind `ClipGradients`,
    whose norm it takes, and before whatever writes down or saves.

    Args:
        optimizer: the optimizer.
        folder: the run's folder, whose `metrics.jsonl` gets the warnings as rows; None leaves that.
        sampler: what drew the samples (`EpochSampler`), so that the draws can be named; may be None.
        patience: overflows in a row that AMP's scaler is given.
        factor: how far above the median a loss is called exploding.
        in_a_row: for how many batches in a row.

    Raises:
        ConfigError: a limit that is none.
    """

    affects_result = False  # see medseg.bundle.run_identity

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        folder: str | Path | None = None,
        sampler: Any | None = None,
        patience: int = 10,
        factor: float = 10.0,
        in_a_row: int = 5,
    ) -> None:
        if patience < 1 or in_a_row < 1 or not factor > 1:
            found = f"patience={patience}, in_a_row={in_a_row}, factor={factor}"
            raise ConfigError("NanGuard", "needs patience and in_a_row of 1 or more, and a factor above 1", found)
        self.optimizer, self.folder, self.sampler = optimizer, Path(folder) if folder is not None else None, sampler
        self.patience, self.factor, self.in_a_row = patience, factor, in_a_row
        self._losses: deque[float] = deque(maxlen=_WINDOW)
        self._high = self._overflows = 0
        self._stepped = self._said = False
        self._norm: torch.Tensor | None = None

    def attach(self, engine: Any) -> None:
        """Watch from the start of the run to its end."""
        kept = getattr(engine.state, "kept", None)
        if kept is None:
            kept = engine.state.kept = {}
        kept["nan_guard"] = self
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._began)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, unscale, self.optimizer)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._ended)

    def _start(self, engine: Any) -> None:
        handle = self.optimizer.register_step_pre_hook(lambda *_: self._before_step(engine))
        engine.add_event_handler(Events.COMPLETED, lambda: handle.remove())

    def _began(self, engine: Any) -> None:
        self._stepped = False

    def _before_step(self, engine: Any) -> None:
        """See that loss and gradient are finite; AMP's scaler has seen to that where it lets a step through."""
        overflow = getattr(self.optimizer, "found_inf", None)  # a fused one is called in any case, and does nothing
        self._stepped = overflow is None or not bool(overflow)
        norm = getattr(engine.state, "gradient_norm", None)
        if norm is None or norm is self._norm:
            gradients = [
                one.grad for group in self.optimizer.param_groups for one in group["params"] if one.grad is not None
            ]
            norm = engine.state.gradient_norm = torch.nn.utils.get_total_norm(gradients)
        self._norm = norm
        if scaler_of(engine) is None and not bool(torch.isfinite(norm + _loss(engine).detach())):
            self._stop(engine)

    def _ended(self, engine: Any) -> None:
        loss = float(_loss(engine).detach())
        if scaler_of(engine) is None:
            if not math.isfinite(loss):  # of a batch that is only accumulated
                self._stop(engine)
        elif not math.isfinite(loss) or (steps_now(engine) and not self._stepped):
            self._look_at_loss(engine, loss)
            self._overflows += 1
            logger.debug("Overflow %d in a row in iteration %d", self._overflows, engine.state.iteration)
            if self._overflows >= self.patience:
                self._stop(engine, f"in each of the last {self._overflows} batches")
        elif self._stepped:
            self._overflows = 0
        if math.isfinite(loss):
            self._watch(engine, loss)

    def _look_at_loss(self, engine: Any, loss: float) -> None:
        """No scale mends an image that is not finite; and a loss that is none is said once, for whoever looks later."""
        image = _output(engine).get("image")
        if isinstance(image, torch.Tensor) and not bool(torch.isfinite(image).all()):
            self._stop(engine)
        if not math.isfinite(loss) and not self._said:
            self._said = True
            text = f"The loss is {loss:.4g} in a batch of {self._samples(engine)}; AMP's scaler leaves it out."
            logger.warning("Epoch %d, iteration %d: %s", engine.state.epoch, engine.state.iteration, text)
            self._row(engine, "warning", "The loss is not finite", text)

    def _watch(self, engine: Any, loss: float) -> None:
        """Warn of a loss that explodes; what was taken for high is no part of the median it is compared with."""
        usual = statistics.median(self._losses) if len(self._losses) >= _ENOUGH else math.inf
        if not loss > self.factor * usual > 0:
            self._high = 0
            self._losses.append(loss)
            return
        self._high += 1
        if self._high == self.in_a_row:
            self._high = 0
            self._losses.clear()  # what comes now is measured by itself: it is said once
            text = (
                f"The loss of the last {self.in_a_row} batches was over {self.factor:g} times what it was "
                f"({loss:.4g} now, {usual:.4g} before). A lower lr or clip_norm=12 keeps it down."
            )
            logger.warning("Epoch %d, iteration %d: %s", engine.state.epoch, engine.state.iteration, text)
            self._row(engine, "warning", "The loss explodes", text)

    def _stop(self, engine: Any, when: str = "") -> None:
        state = engine.state
        thing = f"epoch {state.epoch}, iteration {state.iteration}"
        found = "; ".join(filter(None, [when, *self._causes(engine)]))
        error = TrainingError(
            thing,
            "loss and gradient must be finite",
            f"{found}; batch of {self._samples(engine)}",
            "The weights were not touched, and the last checkpoint is whole: the same command goes on from there. "
            "Look at these cases (medseg data check), or take a lower lr or clip_norm=12.",
        )
        self._row(engine, "error", "Loss or gradient is not finite", str(error))
        raise error

    def _causes(self, engine: Any) -> list[str]:
        """What is not finite, as far back as it can be followed: images, loss, gradients of parameters."""
        output, causes = _output(engine), []
        image = output.get("image")
        if isinstance(image, torch.Tensor) and not bool(torch.isfinite(image).all()):
            bad = [n for n, one in enumerate(image) if not bool(torch.isfinite(one).all())]
            names = _cases(engine)
            causes.append(
                f"an image of {', '.join(sorted({names[n] if n < len(names) else f'sample {n}' for n in bad}))}"
            )
        loss = float(output["loss"].detach())
        causes.append(f"a loss of {loss:.4g}")
        named = [
            name
            for name, one in engine.network.named_parameters()
            if one.grad is not None and not bool(torch.isfinite(one.grad).all())
        ]
        if named:
            causes.append(f"gradients that are not, in {len(named)} parameters ({', '.join(named[:3])})")
        return causes

    def _samples(self, engine: Any) -> str:
        names = _cases(engine)
        if not names:
            return "cases that have no name"
        draws = self._draws(engine, len(names))
        if len(draws) == len(names):
            return ", ".join(f"{name} (draw {draw})" for name, draw in zip(names, draws, strict=True))
        return ", ".join(names)

    def _draws(self, engine: Any, count: int) -> list[int]:
        """The how-manieth draws from their cases this batch's samples are, from the order of the epoch."""
        size = getattr(engine.data_loader, "batch_size", None)
        if self.sampler is None or size is None:
            return []
        order = copy.copy(self.sampler)
        order.set_position(engine.state.epoch)
        first = (engine.state.iteration - 1) % engine.state.epoch_length * size
        return [key.draw for key in list(order)[first : first + count]]

    def _row(self, engine: Any, level: str, title: str, text: str) -> None:
        if self.folder is None or getattr(engine.state, "rank", 0) > 0 or not self.folder.is_dir():
            return
        where = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
        row = {"kind": "warning", "time": round(time.time(), 3), **where, "level": level, "title": title, "text": text}
        append_row(self.folder, row)

    def state_dict(self) -> dict[str, Any]:
        """The losses of the last batches, and what is counted in a row."""
        return {"losses": list(self._losses), "high": self._high, "overflows": self._overflows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the same median and the same counts."""
        self._losses = deque(state["losses"], maxlen=_WINDOW)
        self._high, self._overflows = int(state["high"]), int(state["overflows"])


def _output(engine: Any) -> Any:
    output = engine.state.output
    return output[0] if isinstance(output, list) else output


def _loss(engine: Any) -> torch.Tensor:
    loss: torch.Tensor = _output(engine)["loss"]
    return loss


def _cases(engine: Any) -> list[str]:
    batch = engine.state.batch
    said = batch.get("case") if isinstance(batch, Mapping) else [one.get("case") for one in batch or []]
    return [str(one) for one in said or [] if one is not None]
