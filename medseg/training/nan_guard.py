"""Stop a run before a loss or gradient that is not finite reaches the weights, and warn of a loss that explodes."""

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

from medseg.errors import ConfigError, TrainingError
from medseg.runs.metrics_log import append_row
from medseg.training.handlers import save_with_checkpoints
from medseg.training.step import accumulating, loss_of, on_backward, output_of, scaler_of, unscale

logger = logging.getLogger(__name__)

_WINDOW, _MIN_BATCHES = 100, 20  # batches of the running median, and how many it needs before it counts
_CLIP = "train#handler_set#clip#max_norm=12"


class NanGuard:
    """Stop a run before a loss or a gradient that is not finite is stepped on, and name the cases of the batch.

    Not MONAI's or Ignite's `TerminateOnNan`: that one looks when the weights are NaN already, and names no cases. This
    one hooks the optimizer, as `ClipGradients` does, so that it sees the gradients of all accumulated batches, on any
    Ignite engine. Under AMP a gradient that overflows now and then is how the scaler finds its scale, and the scaler
    skips that step: there, only `patience` overflows in a row stop the run. The last checkpoint is from before, so the
    same command resumes from it. A loss that stays above `factor` times the median of the last 100 batches gets a
    warning, once.

    `engine.state.gradient_norm` is the norm of the gradient before it was clipped. Attach it after `ClipGradients`,
    whose norm it uses, and before whatever records or saves.

    Args:
        optimizer: the optimizer.
        folder: the run's folder, whose `metrics.jsonl` gets the warnings as rows; None for no rows.
        sampler: the sampler of the data (`EpochSampler`), so that the draws can be named; may be None.
        patience: overflows in a row that AMP's scaler may have.
        factor: how far above the median a loss counts as exploding.
        in_a_row: for how many batches in a row.

    Raises:
        ConfigError: a number is out of its range.
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
            problem = "patience and in_a_row must be 1 or more, and factor above 1"
            raise ConfigError("nan_guard", problem, f"got patience {patience}, in_a_row {in_a_row}, factor {factor}")
        self.optimizer = optimizer
        self.folder = Path(folder) if folder is not None else None
        self.sampler = sampler
        self.patience = patience
        self.factor = factor
        self.in_a_row = in_a_row
        self._losses: deque[float] = deque(maxlen=_WINDOW)
        self._high = 0  # batches in a row with an exploding loss
        self._overflows = 0  # steps in a row that AMP's scaler skipped
        self._stepped = False
        self._warned = False
        self._norm: torch.Tensor | None = None

    def attach(self, engine: Any) -> None:
        """Watch from the start of the run to its end."""
        save_with_checkpoints(engine, "nan_guard", self)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._iteration_starts)
        on_backward(engine, unscale, self.optimizer)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration_ends)

    def _start(self, engine: Any) -> None:
        handle = self.optimizer.register_step_pre_hook(lambda *_: self._before_step(engine))
        engine.add_event_handler(Events.COMPLETED, lambda: handle.remove())

    def _iteration_starts(self, engine: Any) -> None:
        self._stepped = False

    def _before_step(self, engine: Any) -> None:
        """Check loss and gradient; under AMP the scaler has done that for every step that it lets through."""
        overflow = getattr(self.optimizer, "found_inf", None)  # a fused optimizer is called all the same, and skips
        self._stepped = overflow is None or not bool(overflow)
        norm = getattr(engine.state, "gradient_norm", None)
        if norm is None or norm is self._norm:
            parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
            norm = engine.state.gradient_norm = torch.nn.utils.get_total_norm(gradients)
        self._norm = norm
        # The output of a plain Ignite engine is there when its whole step is done.
        loss = loss_of(engine) if isinstance(engine.state.output, (Mapping, list)) else 0.0
        if scaler_of(engine) is None and not bool(torch.isfinite(norm + loss)):
            self._stop(engine)

    def _iteration_ends(self, engine: Any) -> None:
        loss = float(loss_of(engine))
        if scaler_of(engine) is None:
            if not math.isfinite(loss):  # of a batch that is only accumulated
                self._stop(engine)
        elif not math.isfinite(loss) or (not accumulating(engine) and not self._stepped):
            self._check_overflow(engine, loss)
        elif self._stepped:
            self._overflows = 0
        if math.isfinite(loss):
            self._watch_loss(engine, loss)

    def _check_overflow(self, engine: Any, loss: float) -> None:
        """Count overflows; an image that is not finite stops the run at once, for no scale can help there."""
        image = _image(engine)
        if image is not None and not bool(torch.isfinite(image).all()):
            self._stop(engine)
        if not math.isfinite(loss) and not self._warned:
            self._warned = True
            text = f"The loss is {loss:.4g} in a batch of {self._samples(engine)}; AMP's scaler skips it."
            self._warn(engine, "The loss is not finite", text)
        self._overflows += 1
        logger.debug("Overflow %d in a row in iteration %d", self._overflows, engine.state.iteration)
        if self._overflows >= self.patience:
            self._stop(engine, f"in each of the last {self._overflows} batches")

    def _watch_loss(self, engine: Any, loss: float) -> None:
        """Warn of a loss that explodes; exploding losses do not enter the median they are compared with."""
        usual = statistics.median(self._losses) if len(self._losses) >= _MIN_BATCHES else math.inf
        if not loss > self.factor * usual > 0:
            self._high = 0
            self._losses.append(loss)
            return
        self._high += 1
        if self._high == self.in_a_row:
            self._high = 0
            self._losses.clear()  # what follows is measured by itself, so that the warning comes once
            text = (
                f"The loss of the last {self.in_a_row} batches was over {self.factor:g} times what it was "
                f"({loss:.4g} now, {usual:.4g} before). Lower lr, or clip gradients with {_CLIP}."
            )
            self._warn(engine, "The loss explodes", text)

    def _stop(self, engine: Any, when: str = "") -> None:
        causes = "; ".join(filter(None, [when, *self._causes(engine)]))
        error = TrainingError(
            f"epoch {engine.state.epoch}, iteration {engine.state.iteration}",
            f"loss or gradient is not finite: {causes}; batch of {self._samples(engine)}",
            "",
            "The weights were not changed, and the last checkpoint is good: the same command resumes from it. "
            f"Check these cases with medseg data check, lower lr, or clip gradients with {_CLIP}.",
        )
        self._row(engine, "error", "Loss or gradient is not finite", str(error))
        raise error

    def _causes(self, engine: Any) -> list[str]:
        """Return what is not finite, as far back as it can be followed: images, loss, gradients of parameters."""
        causes = []
        image = _image(engine)
        if image is not None and not bool(torch.isfinite(image).all()):
            cases = _cases(engine)
            bad = [n for n, sample in enumerate(image) if not bool(torch.isfinite(sample).all())]
            names = {cases[n] if n < len(cases) else f"sample {n}" for n in bad}
            causes.append(f"an image of {', '.join(sorted(names))}")
        if engine.state.output is not None:
            causes.append(f"a loss of {float(loss_of(engine)):.4g}")
        network = getattr(engine, "network", None)
        parameters = (
            list(network.named_parameters())
            if network is not None
            else [(f"parameter {n}", p) for n, p in enumerate(self.optimizer.param_groups[0]["params"])]
        )
        named = [name for name, p in parameters if p.grad is not None and not bool(torch.isfinite(p.grad).all())]
        if named:
            causes.append(f"gradients of {len(named)} parameters ({', '.join(named[:3])})")
        return causes

    def _samples(self, engine: Any) -> str:
        cases = _cases(engine)
        if not cases:
            return "cases without a name"
        draws = self._draws(engine, len(cases))
        if len(draws) == len(cases):
            return ", ".join(f"{case} (draw {draw})" for case, draw in zip(cases, draws, strict=True))
        return ", ".join(cases)

    def _draws(self, engine: Any, count: int) -> list[int]:
        """Return the number of each sample of the batch among the draws of its case, from the order of the epoch."""
        size = getattr(engine.state.dataloader, "batch_size", None)
        if self.sampler is None or size is None:
            return []
        order = copy.copy(self.sampler)
        order.set_position(engine.state.epoch)
        first = (engine.state.iteration - 1) % engine.state.epoch_length * size
        return [key.draw for key in list(order)[first : first + count]]

    def _warn(self, engine: Any, title: str, text: str) -> None:
        logger.warning("Epoch %d, iteration %d: %s", engine.state.epoch, engine.state.iteration, text)
        self._row(engine, "warning", title, text)

    def _row(self, engine: Any, level: str, title: str, text: str) -> None:
        if self.folder is None or getattr(engine.state, "rank", 0) > 0 or not self.folder.is_dir():
            return
        position = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
        row = {"kind": "warning", "time": round(time.time(), 3), **position}
        append_row(self.folder, {**row, "level": level, "title": title, "text": text})

    def state_dict(self) -> dict[str, Any]:
        """Return the losses of the last batches, and what is counted in a row."""
        return {"losses": list(self._losses), "high": self._high, "overflows": self._overflows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume with the same median and the same counts."""
        self._losses = deque(state["losses"], maxlen=_WINDOW)
        self._high = int(state["high"])
        self._overflows = int(state["overflows"])


def _image(engine: Any) -> torch.Tensor | None:
    output = output_of(engine)
    image = output.get("image") if isinstance(output, Mapping) else None
    return image if isinstance(image, torch.Tensor) else None


def _cases(engine: Any) -> list[str]:
    batch = engine.state.batch
    samples = batch if isinstance(batch, (list, tuple)) else []
    ids = (
        batch.get("case")
        if isinstance(batch, Mapping)
        else [sample.get("case") for sample in samples if isinstance(sample, Mapping)]
    )
    return [str(case) for case in ids or [] if case is not None]
