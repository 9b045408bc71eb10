"""Pictures of what the network predicts, of the same cases at each validation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events

from medseg.atomic import atomic_path
from medseg.labels import LabelMap


class Previews:
    """Save a picture of the first validation cases: CT, truth in red, prediction in blue.

    The slice is the one in which the truth holds most structures, the same each time. Attached to the
    evaluator; files are `<folder>/epoch_NNNN_<case>.png`, 0000 for the look before the first epoch, of which a
    resumed run keeps what is there. What was drawn waits in `engine.state.pictures` (`epoch`, `case`, `file`,
    `caption`) for whoever records it.

    Args:
        folder: where the pictures go.
        labels: what the classes mean.
        draw: makes a picture of one slice, see `medseg.report.panels`.
        cases: how many cases are drawn.
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

    def attach(self, engine: Any) -> None:
        """Draw after each validated case."""
        if engine.state.rank == 0 and self.every:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Draw the cases of this batch, if they are among the first and it is their epoch."""
        epoch = 0 if getattr(engine.state, "first_look", False) else engine.state.epoch
        if epoch % self.every:
            return
        number = (engine.state.iteration - 1) % (engine.state.epoch_length or 1)
        outputs: Any = engine.state.output
        batch: Any = engine.state.batch
        for offset, (output, item) in enumerate(zip(outputs, batch, strict=True)):
            if number * len(outputs) + offset >= self.cases:
                return
            case = str(item.get("case", number))
            safe = "".join(letter if letter.isalnum() or letter in "-_.," else "-" for letter in case)
            path = self.folder / f"epoch_{epoch:04d}_{safe}.png"
            if not epoch and path.is_file():
                continue
            image, truth, prediction = (_slices(output[key]) for key in ("image", "label", "pred"))
            k = self._chosen.get(case, -1)
            if not 0 <= k < truth.shape[-1]:
                k = self._chosen[case] = busiest_slice(truth)
            caption = f"{case}, slice {k}" + (f", epoch {epoch}" if epoch else ", before training")
            picture = self.draw(image[0, ..., k], _flat(truth, k), _flat(prediction, k), self.labels, caption)
            with atomic_path(path) as partial:
                picture.save(partial, compress_level=3)
            engine.state.pictures = [
                *(getattr(engine.state, "pictures", None) or []),
                {"epoch": epoch, "case": case, "file": str(path), "caption": caption},
            ]


def busiest_slice(truth: np.ndarray[Any, Any]) -> int:
    """The slice along the last axis in which most structures meet; among equals the fullest."""
    counts = []
    for k in range(truth.shape[-1]):
        part = truth[..., k]
        channels = np.count_nonzero(part.reshape(len(part), -1).any(axis=1))
        structures = channels if len(part) > 1 else np.count_nonzero(np.unique(part))
        counts.append((structures, int(np.count_nonzero(part))))
    return max(range(len(counts)), key=counts.__getitem__)


def _slices(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return np.asarray(torch.as_tensor(tensor).detach().cpu().numpy())


def _flat(label: np.ndarray[Any, Any], k: int) -> np.ndarray[Any, Any]:
    """One slice as class indices: of several channels the last that is set."""
    part = label[..., k]
    if len(part) == 1:
        return np.asarray(part[0])
    numbers = np.arange(1, len(part) + 1).reshape(-1, *(1,) * (part.ndim - 1))
    return np.asarray((part.astype(bool) * numbers).max(axis=0))
