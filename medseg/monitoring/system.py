"""How the machine is doing while a run goes: a row every so many seconds, and a word before something runs out."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from ignite.engine import Events

from medseg.monitoring.alarms import ERROR, Alarms
from medseg.monitoring.probes import Probe, Sample
from medseg.monitoring.rows import Rows

logger = logging.getLogger(__name__)


class System:
    """Record GPU load and memory, CPU, RAM, disk and /dev/shm as `system` rows, and warn before they run out.

    It looks after a batch, of training or validation, when it is time; there is no thread. What is running out is
    said in the log and in a `warning` row, once, and again when it gets worse; its state is in `engine.state.kept`.
    The share of waiting for data is what `History` left in `engine.state.data_wait`.

    Args:
        folder: the run's folder.
        every_n_seconds: how often; 0 is never.
        validator: an evaluator during which it looks, too.
        probe: gives a sample; by default a look at this machine.
        clock: gives seconds.
    """

    def __init__(
        self,
        folder: str | Path,
        every_n_seconds: float = 30,
        validator: Any | None = None,
        probe: Callable[[], Sample] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.every, self.validator = Path(folder), every_n_seconds, validator
        self.rows, self.alarms, self._clock = Rows(folder), Alarms(), clock
        self._probe = probe
        self._due: float | None = None

    def attach(self, engine: Any) -> None:
        """Look after batches of the trainer, and of the validator once training has begun."""
        if engine.state.rank > 0 or self.every <= 0:
            return
        if getattr(engine.state, "kept", None) is None:
            engine.state.kept = {}
        engine.state.kept["system"] = self
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._look, True)
        if self.validator is not None:
            self.validator.add_event_handler(Events.ITERATION_COMPLETED, lambda: self._look(engine, False))

    def state_dict(self) -> dict[str, Any]:
        """What has been said."""
        return {"said": dict(self.alarms.said)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Not to be said again."""
        self.alarms.load(state["said"])

    def _start(self, engine: Any) -> None:
        if self._probe is None:
            self._probe = Probe(self.folder, gpu=_device(engine).type == "cuda")

    def _look(self, engine: Any, training: bool) -> None:
        now = self._clock()
        if self._probe is None or (self._due is None and not training) or now < (self._due or 0):
            return
        self._due = now + self.every
        try:
            sample = self._probe()
        except (OSError, RuntimeError, psutil.Error) as error:
            logger.debug("No look at the machine: %s", error)
            return
        self.rows.add("system", engine, **sample.row())
        device = _device(engine).index or 0
        waiting = getattr(engine.state, "data_wait", None)
        for alarm in self.alarms(sample, self._checkpoint(engine), device, waiting):
            self.rows.add("warning", engine, level=alarm.level, title=alarm.title, text=alarm.text)
            logger.log(logging.ERROR if alarm.level == ERROR else logging.WARNING, "%s: %s", alarm.title, alarm.text)

    def _checkpoint(self, engine: Any) -> int:
        """Bytes of a checkpoint: of the largest there is, else of the weights with two moments each."""
        written = [0]
        for path in self.folder.glob("checkpoints/*.pt"):
            with contextlib.suppress(OSError):  # it may be gone by now
                written.append(path.stat().st_size)
        if max(written):
            return max(written)
        network = getattr(engine, "network", None)
        parameters = network.parameters() if isinstance(network, torch.nn.Module) else ()
        return 3 * sum(one.numel() * one.element_size() for one in parameters)


def _device(engine: Any) -> torch.device:
    return torch.device(engine.state.device or "cpu")
