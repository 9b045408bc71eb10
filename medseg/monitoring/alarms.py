"""What is running out, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medseg.monitoring.probes import Sample

WARNING, ERROR = "warning", "error"
_LEVELS = ("", WARNING, ERROR)
_IN_A_ROW = 3
_PEACE = 20  # looks without a thing after which it is news again


@dataclass(frozen=True)
class Alarm:
    """One thing to be said.

    Args:
        kind: what it is about: `disk`, `ram`, `shm`, `gpu_memory` or `data`.
        level: `warning` or `error`.
        title: a few words.
        text: figures, and what to do.
    """

    kind: str
    level: str
    title: str
    text: str


class Alarms:
    """Look at each sample for what is about to run out; say each thing once, again if it gets worse or comes back."""

    def __init__(self) -> None:
        self.said: dict[str, str] = {}
        self._hungry = 0
        self._quiet: dict[str, int] = {}

    def __call__(self, sample: Sample, checkpoint: int, device: int = 0, waiting: float | None = None) -> list[Alarm]:
        """What has to be said of a sample.

        Args:
            sample: the look at the machine.
            checkpoint: bytes of a checkpoint.
            device: which of the GPUs this run computes on.
            waiting: share of the time that it waited for data lately, 0 to 1.
        """
        gpu = sample.gpu[device] if device < len(sample.gpu) else None
        starving = gpu is not None and gpu.load is not None and gpu.load < 0.5 and (waiting or 0) > 0.3
        self._hungry = self._hungry + 1 if starving else 0
        found = [_disk(sample, checkpoint), _ram(sample), _shm(sample)]
        if gpu is not None:
            found.append(_gpu_memory(gpu.memory_used, gpu.memory_total))
            if self._hungry >= _IN_A_ROW:
                found.append(_data(gpu.load or 0, waiting or 0))
        there = {one.kind for one in found if one}
        for kind in list(self.said):
            self._quiet[kind] = 0 if kind in there else self._quiet.get(kind, 0) + 1
            if self._quiet[kind] >= _PEACE:
                del self.said[kind]
        news = [one for one in found if one and _worse(one.level, self.said.get(one.kind, ""))]
        self.said |= {one.kind: one.level for one in news}
        return news

    def load(self, said: Mapping[str, str]) -> None:
        """Take up what was said before."""
        self.said = {str(kind): str(level) for kind, level in said.items()}


def _worse(level: str, before: str) -> bool:
    return _LEVELS.index(level) > _LEVELS.index(before)


def _disk(sample: Sample, checkpoint: int) -> Alarm | None:
    if sample.disk_free >= 2 * checkpoint:
        return None
    text = f"{size(sample.disk_free)} are left where the run's folder lies, and a checkpoint takes {size(checkpoint)}. "
    text += "Free space now: a checkpoint that cannot be written ends the run."
    return Alarm("disk", WARNING if sample.disk_free >= checkpoint else ERROR, "The disk is nearly full", text)


def _ram(sample: Sample) -> Alarm | None:
    share = sample.ram_free / max(1, sample.ram_used + sample.ram_free)
    if share >= 0.05:
        return None
    text = f"{size(sample.ram_free)} of RAM are left, and this run holds {size(sample.ram_process)}. "
    text += "The system may kill it: lower num_workers or cache_rate, or use the slice store."
    return Alarm("ram", WARNING if share >= 0.02 else ERROR, "RAM is nearly full", text)


def _shm(sample: Sample) -> Alarm | None:
    if sample.shm_free is None or not sample.shm_total or sample.shm_free >= 0.1 * sample.shm_total:
        return None
    text = (
        f"{size(sample.shm_free)} of {size(sample.shm_total)} are left in /dev/shm, where workers hand over batches. "
    )
    text += "They die without it: lower num_workers or batch_size, or start the container with a larger --shm-size."
    level = WARNING if sample.shm_free >= 0.03 * sample.shm_total else ERROR
    return Alarm("shm", level, "Shared memory is nearly full", text)


def _gpu_memory(used: int, total: int) -> Alarm | None:
    if used <= 0.95 * total:
        return None
    text = f"{size(used)} of {size(total)} are taken. What torch keeps for later counts, so this may go well; if it "
    text += "does not, lower batch_size or patch_size."
    return Alarm("gpu_memory", WARNING, "GPU memory is nearly full", text)


def _data(load: float, waiting: float) -> Alarm:
    text = f"The GPU was busy {load:.0%} of the time, and {waiting:.0%} of the time went into waiting for batches. "
    text += "Raise num_workers, keep more of the cases in RAM (cache_rate), make a slice store (medseg data prepare "
    text += "--store), or augment less."
    return Alarm("data", WARNING, "The GPU waits for data", text)


def size(count: float) -> str:
    """Bytes for people.

    >>> size(2_500_000_000), size(12_000_000)
    ('2.5 GB', '12 MB')
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
