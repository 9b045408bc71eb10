"""Images of predictions, of the same cases at each validation."""

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
    """One slice: arrays of one size, and how much the truth has in it."""

    case: str
    caption: str
    image: np.ndarray[Any, Any]
    truth: np.ndarray[Any, Any]
    prediction: np.ndarray[Any, Any]
    content: tuple[int, int] = (0, 0)  # see _content


class Previews:
    """Save an image of the first validation cases: scan, truth in red, prediction in blue.

    The slice is the one in which the truth has most structures, the same each time: of a volume, or of the first scans
    where a case is a 2D slice itself. Attached to the evaluator; files are `<folder>/epoch_NNNN_<case>.png`, 0000 for
    the validation before the first epoch, of which a resumed run leaves what exists. The images wait in
    `engine.state.previews` (`epoch`, `case`, `file`, `caption`) for `History` to record them.

    Args:
        folder: where the images go.
        labels: the structures.
        draw: makes an image of one slice: `medseg.report.panels`, or `image_panels` for 2D slices.
        cases: how many cases are drawn; of 2D slices how many scans.
        every_n_epochs: how often; 0 is never.

    Raises:
        OutputError: an image cannot be written.
    """

    affects_result = False  # see medseg.bundle.run_identity

    def __init__(
        self, folder: str | Path, labels: LabelMap, draw: Callable[..., Any], cases: int = 2, every_n_epochs: int = 1
    ) -> None:
        self.folder = Path(folder)
        self.labels = labels
        self.draw = draw
        self.cases = cases
        self.every = every_n_epochs
        self._chosen: dict[str, int] = {}  # the slice of each volume
        self._fullest: dict[str, _Slice] = {}  # of each of the first scans, in this epoch so far

    def attach(self, engine: Any) -> None:
        """Draw after each validated case; 2D slices when all were validated."""
        if getattr(engine.state, "rank", 0) == 0 and self.every:
            engine.add_event_handler(Events.EPOCH_STARTED, lambda: self._fullest.clear())
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._draw_fullest)

    def __call__(self, engine: Any) -> None:
        """Draw the cases of this batch, if they are among the first and it is their epoch."""
        epoch = _epoch(engine)
        if epoch % self.every:
            return
        number = (engine.state.iteration - 1) % (engine.state.epoch_length or 1)
        outputs: Any = engine.state.output
        for offset, (output, item) in enumerate(zip(outputs, engine.state.batch, strict=True)):
            index = number * len(outputs) + offset
            if output["label"].ndim == 3:
                self._consider(output, item, str(item.get("case", index)))
                continue
            if index >= self.cases:
                return
            case = str(item.get("case", number))
            if not epoch and self._path(epoch, case).is_file():
                continue
            image, truth, prediction = (_array(output[key]) for key in ("image", "label", "pred"))
            k = self._chosen.get(case, -1)
            if not 0 <= k < truth.shape[-1]:
                k = self._chosen[case] = busiest_slice(truth)
            caption = f"{case}, slice {k}"
            self._save(engine, epoch, _Slice(case, caption, image[0, ..., k], _flat(truth, k), _flat(prediction, k)))

    def _consider(self, output: Any, item: Any, case: str) -> None:
        """Remember a 2D slice if it is the fullest of its scan so far."""
        scan = str(item.get("scan") or item.get("patient") or case)
        if scan not in self._fullest and len(self._fullest) >= self.cases:
            return
        image, truth, prediction = (_array(output[key])[..., None] for key in ("image", "label", "pred"))
        center = image[len(image) // 2, ..., 0]
        candidate = _Slice(case, case, center, _flat(truth, 0), _flat(prediction, 0), _content(truth))
        if scan not in self._fullest or candidate.content > self._fullest[scan].content:
            self._fullest[scan] = candidate

    def _draw_fullest(self, engine: Any) -> None:
        epoch = _epoch(engine)
        for candidate in self._fullest.values():
            if epoch or not self._path(epoch, candidate.case).is_file():
                self._save(engine, epoch, candidate)
        self._fullest.clear()

    def _path(self, epoch: int, case: str) -> Path:
        safe = "".join(letter if letter.isalnum() or letter in "-_.," else "-" for letter in case)
        return self.folder / f"epoch_{epoch:04d}_{safe}.png"

    def _save(self, engine: Any, epoch: int, slice_: _Slice) -> None:
        caption = slice_.caption + (f", epoch {epoch}" if epoch else ", before training")
        image = self.draw(slice_.image, slice_.truth, slice_.prediction, self.labels, caption)
        path = self._path(epoch, slice_.case)
        with atomic_path(path) as partial:
            image.save(partial, compress_level=3)
        engine.state.previews = [
            *(getattr(engine.state, "previews", None) or []),
            {"epoch": epoch, "case": slice_.case, "file": str(path), "caption": caption},
        ]


def _epoch(engine: Any) -> int:
    """Return the epoch, 0 for the validation before the first."""
    return 0 if getattr(engine.state, "sanity_check", False) else int(engine.state.epoch)


def busiest_slice(truth: np.ndarray[Any, Any]) -> int:
    """Return the slice along the last axis with most structures; among equals the one with most voxels in them.

    Args:
        truth: a label map `(channels, I, J, K)`.
    """
    contents = [_content(truth[..., k]) for k in range(truth.shape[-1])]
    return max(range(len(contents)), key=contents.__getitem__)


def _content(part: np.ndarray[Any, Any]) -> tuple[int, int]:
    """Return the number of structures in a label `(channels, ...)`, and the number of its pixels in any of them."""
    channels = np.count_nonzero(part.reshape(len(part), -1).any(axis=1))
    structures = channels if len(part) > 1 else np.count_nonzero(np.unique(part))
    return int(structures), int(np.count_nonzero(part))


def _array(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return np.asarray(torch.as_tensor(tensor).detach().cpu().numpy())


def _flat(label: np.ndarray[Any, Any], k: int) -> np.ndarray[Any, Any]:
    """Return one slice as class indices: of several channels the last that is set."""
    part = label[..., k]
    if len(part) == 1:
        return np.asarray(part[0])
    numbers = np.arange(1, len(part) + 1).reshape(-1, *(1,) * (part.ndim - 1))
    return np.asarray((part.astype(bool) * numbers).max(axis=0))
