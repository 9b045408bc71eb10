"""The preview images of a run: the same cases over its epochs, as many as a page can carry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from medseg.report.page import data_url
from medseg.runs import Run

_MAX_CASES, _MAX_EPOCHS, _WIDTH = 3, 9, 1280
_MAX_BYTES = 4_500_000  # of all images together
_QUALITY = 80


def previews(run: Run) -> dict[str, Any] | None:
    """Return the images of each case by epoch, and how many were left out; None without any.

    The last, the best and the first epoch come before the others, if not all fit.
    """
    best = run.best.epoch if run.best else None
    cases = list(run.previews.items())[:_MAX_CASES]
    figures = []
    for case, files in cases:
        frames: dict[int, dict[str, Any]] = {}
        bytes_left = _MAX_BYTES / len(cases)
        epochs = select_epochs(sorted(files), best, _MAX_EPOCHS)
        important = [epochs[-1], *(epoch for epoch in epochs if epoch == best), epochs[0]]
        for epoch in dict.fromkeys([*important, *epochs]):
            frame = _frame(files[epoch])
            bytes_left -= len(frame.get("url", ""))
            if bytes_left < 0 and frames:
                break
            frames[epoch] = {**frame, "epoch": epoch, "title": _title(epoch, max(files), best)}
        figures.append({"case": case, "frames": [frames[epoch] for epoch in sorted(frames)]})
    if not figures:
        return None
    shown = sum(len(figure["frames"]) for figure in figures)
    return {"figures": figures, "shown": shown, "total": sum(len(files) for files in run.previews.values())}


def select_epochs(epochs: Sequence[int], best: int | None, count: int) -> list[int]:
    """Return the first, the best and the last epoch, and others evenly between them, in order.

    >>> select_epochs(list(range(0, 101)), 97, 5)
    [0, 33, 66, 97, 100]
    """
    if len(epochs) <= count:
        return list(epochs)
    selected = {epochs[0], epochs[-1], *(epoch for epoch in epochs if epoch == best)}
    slots = count - len(selected) + 1
    selected |= {epochs[(len(epochs) - 1) * index // slots] for index in range(1, slots)}
    return sorted(selected)


def _title(epoch: int, last: int, best: int | None) -> str:
    if epoch == 0:
        return "before training"
    notes = ["best"] * (epoch == best) + ["last"] * (epoch == last)
    return f"epoch {epoch} ({', '.join(notes)})" if notes else f"epoch {epoch}"


def _frame(path: Path) -> dict[str, Any]:
    """Return an image for the page, smaller if it is wide; its error if it cannot be read."""
    try:
        with Image.open(path) as file:
            image = file.convert("RGB")
            image.thumbnail((_WIDTH, _WIDTH), Image.Resampling.BOX, reducing_gap=None)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        return {"error": str(error)}
    return {"url": data_url(image, _QUALITY), "width": image.width, "height": image.height}
