"""Pictures of what the network predicts, of the same cases at each validation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Events

from medseg.atomic import atomic_path
from medseg.labels import LabelMap


class _Slice(NamedTuple):
    """What is drawn: arrays of one size, and how much the truth holds."""

    case: str
    caption: str
    image: np.ndarray[Any, Any]
    truth: np.ndarray[Any, Any]
    prediction: np.ndarray[Any, Any]
    held: tuple[int, int] = (0, 0)


class Previews:
    """Save a picture of the first validation cases: image, truth in red, prediction in blue.

    The slice is the one in which the truth holds most structures, the same each time: of a volume, or of the first
    scans where a case is a 2D slice itself. Attached to the evaluator; files are `<folder>/epoch_NNNN_<case>.png`, 0000
    for the look before the first epoch, of which a resumed run keeps what is there. What was drawn waits in
    `engine.state.pictures` (`epoch`, `case`, `file`, `caption`) for whoever records it.

    Args:
        folder: where the pictures go.
        labels: what the classes mean.
        draw: makes a picture of one slice, see `medseg.report.panels`, and `image_panels` for 2D slices.
        cases: how many cases are drawn; of 2D slices how many scans.
        every_n_epochs: how often; 0 is never.

    Raises:
        OutputError: a picture cannot be written.
    """

    def __init__(
        self, folder: str | Path, labels: LabelMap, draw: Callable[..., Any], cases: int = 2, every_n_epochs: int = 1
    ) -> None:
        self.folder, self.labels, self.draw = Path(folder), labels, draw
        self.cases, self.every = cases, every_n_epochs
        self._chosen: dict[str, int] = {}
        self._fullest: dict[str, _Slice] = {}  # of each of the first scans, in this epoch so far

    def attach(self, engine: Any) -> None:
        """Draw after each validated case; 2D slices when all have been seen."""
        if engine.state.rank == 0 and self.every:
            engine.add_event_handler(Events.EPOCH_STARTED, lambda: self._fullest.clear())
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._draw_fullest)

    def __call__(self, engine: Any) -> None:
        """Draw the cases of this batch, if they are among the first and it is their epoch."""
        epoch = 0 if getattr(engine.state, "first_look", False) else engine.state.epoch
        if epoch % self.every:
            return
        number = (engine.state.iteration - 1) % (engine.state.epoch_length or 1)
        outputs: Any = engine.state.output
        batch: Any = engine.state.batch
        for offset, (output, item) in enumerate(zip(outputs, batch, strict=True)):
            if output["label"].ndim == 3:
                self._consider(output, item, str(item.get("case", number * len(outputs) + offset)))
                continue
            if number * len(outputs) + offset >= self.cases:
                return
            case = str(item.get("case", number))
            if not epoch and self._path(epoch, case).is_file():
                continue
            image, truth, prediction = (_slices(output[key]) for key in ("image", "label", "pred"))
            k = self._chosen.get(case, -1)
            if not 0 <= k < truth.shape[-1]:
                k = self._chosen[case] = busiest_slice(truth)
            printable = _Slice(case, f"{case}, slice {k}", image[0, ..., k], _flat(truth, k), _flat(prediction, k))
            self._save(engine, epoch, printable)

    def _consider(self, output: Any, item: Any, case: str) -> None:
        """Keep a 2D slice if it is the fullest of its scan so far."""
        scan = str(item.get("scan") or item.get("patient") or case)
        if scan not in self._fullest and len(self._fullest) >= self.cases:
            return
        image, truth, prediction = (_slices(output[key])[..., None] for key in ("image", "label", "pred"))
        printable = _Slice(
            case, case, image[len(image) // 2, ..., 0], _flat(truth, 0), _flat(prediction, 0), _held(truth)
        )
        if scan not in self._fullest or printable.held > self._fullest[scan].held:
            self._fullest[scan] = printable

    def _draw_fullest(self, engine: Any) -> None:
        epoch = 0 if getattr(engine.state, "first_look", False) else engine.state.epoch
        for printable in self._fullest.values():
            if epoch or not self._path(epoch, printable.case).is_file():
                self._save(engine, epoch, printable)
        self._fullest.clear()

    def _path(self, epoch: int, case: str) -> Path:
        safe = "".join(letter if letter.isalnum() or letter in "-_.," else "-" for letter in case)
        return self.folder / f"epoch_{epoch:04d}_{safe}.png"

    def _save(self, engine: Any, epoch: int, printable: _Slice) -> None:
        caption = printable.caption + (f", epoch {epoch}" if epoch else ", before training")
        picture = self.draw(
            printable.image,
            printable.truth,
            printable.prediction,
            self.labels,
            caption,
        )
        path = self._path(epoch, printable.case)
        with atomic_path(path) as partial:
            picture.save(partial, compress_level=3)
        engine.state.pictures = [
            *(getattr(engine.state, "pictures", None) or []),
            {"epoch": epoch, "case": printable.case, "file": str(path), "caption": caption},
        ]


def busiest_slice(truth: np.ndarray[Any, Any]) -> int:
    """The slice along the last axis in which most structures meet; among equals the fullest."""
    counts = []
    for k in range(truth.shape[-1]):
        counts.append(_held(truth[..., k]))
    return max(range(len(counts)), key=counts.__getitem__)


def _held(part: np.ndarray[Any, Any]) -> tuple[int, int]:
    """How many structures a label `(channels, ...)` holds, and how many of its pixels are of any."""
    channels = np.count_nonzero(part.reshape(len(part), -1).any(axis=1))
    structures = channels if len(part) > 1 else np.count_nonzero(np.unique(part))
    return int(structures), int(np.count_nonzero(part))


def _slices(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return np.asarray(torch.as_tensor(tensor).detach().cpu().numpy())


def _flat(label: np.ndarray[Any, Any], k: int) -> np.ndarray[Any, Any]:
    """One slice as class indices: of several channels the last that is set."""
    part = label[..., k]
    if len(part) == 1:
        return np.asarray(part[0])
    numbers = np.arange(1, len(part) + 1).reshape(-1, *(1,) * (part.ndim - 1))
    return np.asarray((part.astype(bool) * numbers).max(axis=0))
