"""How fast a run trains, how much of its time it waits for data, and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

_RECENT = 10  # epochs that the time left is estimated from


class Throughput:
    """Time the epochs and batches of a training.

    Training time is that between an epoch's start and its last batch, without validation. The time left is estimated
    from whole epochs, with validation and saving, and from the latest of them: the first is often slow.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        # Of the epoch so far.
        self.seconds = 0.0
        self.waited = 0.0
        self.samples = 0
        self.batches = 0
        self._durations: list[float] = []  # of the latest epochs
        self._warm = False  # True once the first epoch was dropped from them
        self._epoch_start = clock()
        self._step_end = self._epoch_start
        self._request: float | None = None  # when a batch was asked for that has not come yet
        self._epoch_end: float | None = None
        self._complete = True  # False in an epoch that was resumed in the middle
        # Seconds, seconds waited, samples: at the last recorded batch, and now.
        self._mark = (0.0, 0.0, 0)
        self._total = (0.0, 0.0, 0)

    def epoch_started(self, resumed: bool = False) -> None:
        """Start an epoch, or resume it in the middle."""
        now = self._clock()
        if self._epoch_end is not None and self._complete and self._durations:
            self._durations[-1] += now - self._epoch_end  # what came after its last event, such as saving
        if not resumed:
            self.seconds = self.waited = 0.0
            self.samples = self.batches = 0
        self._epoch_start = self._step_end = self._request = now
        self._epoch_end = None
        self._complete = not resumed

    def batch_requested(self) -> None:
        """Start waiting for a batch."""
        if self._request is None:
            self._request = self._clock()

    def batch_received(self) -> None:
        """End waiting for it."""
        if self._request is not None:
            self._add(waited=self._clock() - self._request)
            self._request = None

    def step_completed(self, samples: int) -> None:
        """End the step of a batch with so many samples."""
        now = self._clock()
        self._add(seconds=now - self._step_end, samples=samples)
        self.batches += 1
        self._step_end = now

    def epoch_completed(self) -> None:
        """End an epoch and its validation."""
        self._epoch_end = self._clock()
        if self._complete:
            if self._durations and not self._warm:
                self._durations = []
                self._warm = True
            self._durations = [*self._durations, self._epoch_end - self._epoch_start][-_RECENT:]

    def since_last(self) -> tuple[float | None, float | None]:
        """Return samples a second and the share of waiting since this was last called."""
        seconds, waited, samples = (now - then for now, then in zip(self._total, self._mark, strict=True))
        self._mark = self._total
        return _ratio(samples, seconds), share(waited, seconds)

    def of_epoch(self) -> tuple[float | None, float | None]:
        """Return samples a second and the share of waiting in this epoch, over all of its parts."""
        return _ratio(self.samples, self.seconds), share(self.waited, self.seconds)

    def seconds_left(self, iteration: int, epoch_length: int | None, max_epochs: int | None) -> float | None:
        """Return the seconds until the last epoch ends, None where that cannot be known.

        Args:
            iteration: batches since the run began.
            epoch_length: batches in an epoch.
            max_epochs: epochs of the run.
        """
        if not epoch_length or not max_epochs:
            return None
        batches = max(0, max_epochs * epoch_length - iteration)
        if self._durations:
            return sum(self._durations) / len(self._durations) * batches / epoch_length
        return self.seconds / self.batches * batches if self.batches else None

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of the epoch so far, and the durations of the latest."""
        return {
            "seconds": self.seconds,
            "waited": self.waited,
            "samples": self.samples,
            "batches": self.batches,
            "epochs": list(self._durations),
            "warm": self._warm,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume from there."""
        self.seconds = float(state["seconds"])
        self.waited = float(state["waited"])
        self.samples = int(state["samples"])
        self.batches = int(state["batches"])
        self._durations = [float(seconds) for seconds in state["epochs"]]
        self._warm = bool(state["warm"])

    def _add(self, seconds: float = 0.0, waited: float = 0.0, samples: int = 0) -> None:
        self.seconds += seconds
        self.waited += waited
        self.samples += samples
        total = self._total
        self._total = (total[0] + seconds, total[1] + waited, total[2] + samples)


def share(part: float, total: float) -> float | None:
    """Return a part as a share from 0 to 1, None of nothing.

    Example:
        >>> share(1, 4), share(1, 0)
        (0.25, None)
    """
    return min(1.0, max(0.0, part / total)) if total > 0 else None


def _ratio(part: float, total: float) -> float | None:
    return part / total if total > 0 else None
