"""How fast a run goes, how much of its time it waits for data, and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

_RECENT = 10


class Pace:
    """A clock over the epochs and batches of a training.

    Training time is that between an epoch's start and its last batch, so validation is not in it; the time left goes
    by whole epochs, with validation and saving, and by the latest of them: the first is often slow.

    Args:
        clock: gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self.seconds = self.waited = 0.0
        self.samples = self.batches = 0
        self._epochs: list[float] = []
        self._warm = False
        self._began = self._last = clock()
        self._asked: float | None = None
        self._ended: float | None = None
        self._whole = True
        self._mark = (0.0, 0.0, 0)
        self._total = (0.0, 0.0, 0)

    def epoch_started(self, goes_on: bool = False) -> None:
        """An epoch begins, or goes on where it was left."""
        now = self._clock()
        if self._ended is not None and self._whole and self._epochs:
            self._epochs[-1] += now - self._ended  # what came after the epoch was counted, such as saving
        if not goes_on:
            self.seconds = self.waited = 0.0
            self.samples = self.batches = 0
        self._began = self._last = self._asked = now
        self._ended, self._whole = None, not goes_on

    def asked(self) -> None:
        """A batch is asked for."""
        if self._asked is None:
            self._asked = self._clock()

    def got(self) -> None:
        """The batch is there."""
        if self._asked is not None:
            self._add(waited=self._clock() - self._asked)
            self._asked = None

    def stepped(self, samples: int) -> None:
        """A batch of so many samples is done."""
        now = self._clock()
        self._add(seconds=now - self._last, samples=samples)
        self.batches += 1
        self._last = now

    def epoch_completed(self) -> None:
        """All batches of the epoch are done, and its validation."""
        self._ended = self._clock()
        if self._whole:
            if self._epochs and not self._warm:
                self._epochs, self._warm = [], True
            self._epochs = [*self._epochs, self._ended - self._began][-_RECENT:]

    def since_last(self) -> tuple[float | None, float | None]:
        """Samples a second and the share of waiting since this was last asked."""
        then, self._mark = self._mark, self._total
        seconds, waited, samples = (now - before for now, before in zip(self._total, then, strict=True))
        return _ratio(samples, seconds), share(waited, seconds)

    def of_epoch(self) -> tuple[float | None, float | None]:
        """Samples a second and the share of waiting in this epoch, all of its parts."""
        return _ratio(self.samples, self.seconds), share(self.waited, self.seconds)

    def left(self, done: int, epoch_length: int | None, max_epochs: int | None) -> float | None:
        """Seconds until the last epoch ends; None where nobody can know.

        Args:
            done: batches done since the run began.
            epoch_length: batches an epoch.
            max_epochs: epochs of the run.
        """
        if not epoch_length or not max_epochs:
            return None
        batches = max(0, max_epochs * epoch_length - done)
        if self._epochs:
            return sum(self._epochs) / len(self._epochs) * batches / epoch_length
        return self.seconds / self.batches * batches if self.batches else None

    def state_dict(self) -> dict[str, Any]:
        """The parts of the epoch so far, and how long the latest took."""
        return {
            "seconds": self.seconds,
            "waited": self.waited,
            "samples": self.samples,
            "batches": self.batches,
            "epochs": list(self._epochs),
            "warm": self._warm,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        self.seconds, self.waited = float(state["seconds"]), float(state["waited"])
        self.samples, self.batches = int(state["samples"]), int(state["batches"])
        self._epochs, self._warm = [float(one) for one in state["epochs"]], bool(state["warm"])

    def _add(self, seconds: float = 0.0, waited: float = 0.0, samples: int = 0) -> None:
        self.seconds, self.waited, self.samples = self.seconds + seconds, self.waited + waited, self.samples + samples
        total = self._total
        self._total = total[0] + seconds, total[1] + waited, total[2] + samples


def share(part: float, whole: float) -> float | None:
    """From 0 to 1; None of nothing.

    >>> share(1, 4), share(1, 0)
    (0.25, None)
    """
    return min(1.0, max(0.0, part / whole)) if whole > 0 else None


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None
