"""The machine while a run trains: a row every so many seconds, and a warning before something runs out."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from ignite.engine import Events

from medseg import resources
from medseg.monitoring.row_writer import RowWriter
from medseg.resources import format_bytes

logger = logging.getLogger(__name__)

WARNING = "warning"
ERROR = "error"
_LEVELS = ("", WARNING, ERROR)
_STARVING_LOOKS = 3  # in a row, before a GPU that waits for data is a warning
_QUIET_LOOKS = 20  # without a problem, before it is announced again
Sample = dict[str, Any]


@dataclass(frozen=True)
class Alarm:
    """A warning about the machine.

    Args:
        kind: `disk`, `ram`, `shm`, `gpu_memory` or `data`.
        level: `warning` or `error`.
        title: a few words.
        text: figures, and what to do.
    """

    kind: str
    level: str
    title: str
    text: str


class System:
    """Record GPU load and memory, CPU, RAM, disk and /dev/shm as `system` rows, and warn before they run out.

    It looks after a batch of training or validation, when it is time; there is no thread. A warning goes to the log
    and to a `warning` row, once, and again when it gets worse; its state is in `engine.state.stateful`. The share of
    waiting for data is the one that `History` writes to `engine.state.data_wait`.

    Args:
        folder: the run's folder.
        every_n_seconds: how often; 0 is never.
        validator: an evaluator during which it looks, too.
        probe: returns a sample. Default: `sample` of this machine.
        clock: returns seconds.
    """

    affects_result = False  # see medseg.bundle.run_identity

    def __init__(
        self,
        folder: str | Path,
        every_n_seconds: float = 30,
        validator: Any | None = None,
        probe: Callable[[], Sample] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = Path(folder)
        self.every = every_n_seconds
        self.validator = validator
        self.rows = RowWriter(folder)
        self.alarms = Alarms()
        self._probe = probe
        self._clock = clock
        self._due: float | None = None

    def attach(self, engine: Any) -> None:
        """Look after batches of the trainer, and of the validator once training has begun."""
        if getattr(engine.state, "rank", 0) > 0 or self.every <= 0:
            return
        if getattr(engine.state, "stateful", None) is None:
            engine.state.stateful = {}
        engine.state.stateful["system"] = self
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._look, True)
        if self.validator is not None:
            self.validator.add_event_handler(Events.ITERATION_COMPLETED, lambda: self._look(engine, False))

    def state_dict(self) -> dict[str, Any]:
        """Return the warnings that were announced."""
        return {"announced": dict(self.alarms.announced)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take these warnings for announced."""
        self.alarms.announced = {str(kind): str(level) for kind, level in state["announced"].items()}

    def _start(self, engine: Any) -> None:
        if self._probe is None:
            psutil.cpu_percent(None)  # the load is that since the last call
            uses_gpu = _device(engine).type == "cuda"
            self._probe = lambda: sample(self.folder, uses_gpu)

    def _look(self, engine: Any, training: bool) -> None:
        now = self._clock()
        if self._probe is None or (self._due is None and not training) or now < (self._due or 0):
            return
        self._due = now + self.every
        try:
            fields = self._probe()
        except (OSError, RuntimeError, psutil.Error) as error:
            logger.debug("The machine could not be looked at: %s", error)
            return
        self.rows.add("system", engine, **fields)
        device = _device(engine).index or 0
        waiting = getattr(engine.state, "data_wait", None)
        for alarm in self.alarms(fields, self._checkpoint_bytes(engine), device, waiting):
            self.rows.add("warning", engine, level=alarm.level, title=alarm.title, text=alarm.text)
            logger.log(logging.ERROR if alarm.level == ERROR else logging.WARNING, "%s: %s", alarm.title, alarm.text)

    def _checkpoint_bytes(self, engine: Any) -> int:
        """Return the bytes of the largest checkpoint; before the first, of the weights with two moments each."""
        sizes = [0]
        for path in self.folder.glob("checkpoints/*.pt"):
            with contextlib.suppress(OSError):  # it may have been removed by now
                sizes.append(path.stat().st_size)
        if max(sizes):
            return max(sizes)
        network = getattr(engine, "network", None)
        parameters = network.parameters() if isinstance(network, torch.nn.Module) else ()
        return 3 * sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def sample(folder: Path, gpu: bool) -> Sample:
    """Return the fields of a `system` row: bytes, and shares from 0 to 1; what the machine does not have is left out.

    Args:
        folder: the folder whose disk counts.
        gpu: True to look at the GPUs too, which wakes their driver.
    """
    ram = resources.ram()
    shm = resources.shared_memory()
    fields: Sample = {
        "cpu": round(psutil.cpu_percent(None) / 100, 4),
        "ram_used": ram.used,
        "ram_free": ram.free,
        "ram_process": resources.process_ram(children=True),
        "disk_free": resources.disk(folder).free,
    }
    if shm is not None:
        fields |= {"shm_free": shm.free, "shm_total": shm.total}
    gpus = resources.gpus() if gpu else ()
    return {"gpu": [asdict(entry) for entry in gpus], **fields} if gpus else fields


class Alarms:
    """Announce each problem in the samples once, and again if it gets worse or comes back."""

    def __init__(self) -> None:
        self.announced: dict[str, str] = {}  # level by kind
        self._starving = 0
        self._quiet: dict[str, int] = {}

    def __call__(self, fields: Sample, checkpoint: int, device: int = 0, waiting: float | None = None) -> list[Alarm]:
        """Return the alarms to announce.

        Args:
            fields: see `sample`.
            checkpoint: bytes of a checkpoint.
            device: the index of the GPU that this run computes on.
            waiting: share of the time that it waited for data lately, 0 to 1.
        """
        gpus = fields.get("gpu") or []
        gpu = gpus[device] if device < len(gpus) else None
        load = None if gpu is None else gpu["load"]
        starving = load is not None and load < 0.5 and (waiting or 0) > 0.3
        self._starving = self._starving + 1 if starving else 0
        alarms = _memory_alarms(fields, checkpoint, gpu)
        if self._starving >= _STARVING_LOOKS:
            text = (
                f"The GPU was busy {load:.0%} of the time, and {waiting:.0%} of it went into waiting for batches. "
                "Raise num_workers, cache more of the cases in RAM (train#dataset#cache_rate), make a slice store "
                "(medseg data prepare --store), or augment less."
            )
            alarms.append(Alarm("data", WARNING, "The GPU waits for data", text))
        active = {alarm.kind: alarm for alarm in alarms}
        for kind in list(self.announced):
            self._quiet[kind] = 0 if kind in active else self._quiet.get(kind, 0) + 1
            if self._quiet[kind] >= _QUIET_LOOKS:
                del self.announced[kind]
        news = [
            alarm
            for kind, alarm in active.items()
            if _LEVELS.index(alarm.level) > _LEVELS.index(self.announced.get(kind, ""))
        ]
        self.announced |= {alarm.kind: alarm.level for alarm in news}
        return news


def _memory_alarms(fields: Sample, checkpoint: int, gpu: Mapping[str, Any] | None) -> list[Alarm]:
    """Return an alarm for each kind of memory of which little is free: a warning, or below a second limit an error."""
    disk, ram, used = fields["disk_free"], fields["ram_free"], fields["ram_process"]
    shm, shm_total = fields.get("shm_free") or 0, fields.get("shm_total") or 0
    # Kind, name, what is free, the limits of warning and error, and what to do.
    limits: list[tuple[str, str, float, float, float, str]] = [
        (
            *("disk", "The disk", disk, 2 * checkpoint, checkpoint),
            f"{format_bytes(disk)} are free where the run's folder is, and a checkpoint takes "
            f"{format_bytes(checkpoint)}. Free space now: a checkpoint that cannot be written ends the run.",
        ),
        (
            *("ram", "RAM", ram / max(1, fields["ram_used"] + ram), 0.05, 0.02),
            f"{format_bytes(ram)} of RAM are free, and this run uses {format_bytes(used)}. "
            "The system may kill it: lower num_workers or train#dataset#cache_rate, or use the slice store.",
        ),
        (
            *("shm", "Shared memory", shm / shm_total if shm_total else 1.0, 0.1, 0.03),
            f"{format_bytes(shm)} of {format_bytes(shm_total)} are free in /dev/shm, through which workers hand over "
            "batches. They die without it: lower num_workers or batch_size, or start the container with a larger "
            "--shm-size.",
        ),
    ]
    if gpu is not None:
        memory, total = gpu["memory_used"], gpu["memory_total"]
        text = (
            f"{format_bytes(memory)} of {format_bytes(total)} are in use. This counts the memory that torch keeps for "
            "later, so it may go well; if it does not, lower batch_size or patch_size."
        )
        limits.append(("gpu_memory", "GPU memory", 1 - memory / max(1, total), 0.05, 0.0, text))
    return [
        Alarm(kind, WARNING if free >= error else ERROR, f"{name} is nearly full", text)
        for kind, name, free, warning, error, text in limits
        if free < warning
    ]


def _device(engine: Any) -> torch.device:
    return torch.device(getattr(engine.state, "device", None) or "cpu")
