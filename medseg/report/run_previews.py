"""The pictures of a run: the same cases over its epochs, as many as a page can carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from medseg.report.page import data_url
from medseg.report.run_data import RunData

_MOST_CASES, _MOST_EPOCHS, _WIDTH, _BUDGET = 3, 9, 1280, 4_500_000


def previews(run: RunData) -> str:
    """A strip of pictures for each case, one at a time where there is a script; empty where there are none."""
    whole = sum(len(epochs) for epochs in run.pictures.values())
    best = run.best[1] if run.best else None
    cases = list(run.pictures.items())[:_MOST_CASES]
    figures, printable = [], 0
    for case, files in cases:
        frames: dict[int, str] = {}
        left = _BUDGET / len(cases)
        for epoch in _by_weight(chosen(sorted(files), best, _MOST_EPOCHS), best):
            frame = _frame(case, epoch, files[epoch], _said(epoch, files, best))
            left -= len(frame)
            if left < 0 and frames:
                break
            frames[epoch] = frame
        printable += len(frames)
        figures.append(_figure(case, [frames[epoch] for epoch in sorted(frames)]))
    if not figures:
        return ""
    rest = (
        ""
        if printable == whole
        else f" {printable} of {whole} are in this file; all lie in the run's folder previews/."
    )
    return (
        '<p class="lead">The same cases over the epochs: CT, truth in red, prediction in blue; with many structures '
        f"each in its colour.{rest} Pictures are made smaller to keep this file small.</p>{''.join(figures)}"
    )


def chosen(epochs: Sequence[int], best: int | None, most: int) -> list[int]:
    """The first, the best and the last epoch, and others evenly between them, in order.

    >>> chosen(list(range(0, 101)), 97, 5)
    [0, 33, 66, 97, 100]
    """
    if len(epochs) <= most:
        return list(epochs)
    kept = {epochs[0], epochs[-1], *(epoch for epoch in epochs if epoch == best)}
    slots = most - len(kept) + 1
    kept |= {epochs[(len(epochs) - 1) * index // slots] for index in range(1, slots)}
    return sorted(kept)


def _by_weight(epochs: Sequence[int], best: int | None) -> list[int]:
    """What must be shown comes first: the last, the best, the first, then those between."""
    first = [epochs[-1], *(epoch for epoch in epochs if epoch == best), epochs[0]]
    return list(dict.fromkeys([*first, *epochs]))


def _said(epoch: int, files: Mapping[int, Path], best: int | None) -> str:
    if epoch == 0:
        return "before training"
    notes = ["best"] * (epoch == best) + ["last"] * (epoch == max(files))
    return f"epoch {epoch} ({', '.join(notes)})" if notes else f"epoch {epoch}"


def _frame(case: str, epoch: int, path: Path, said: str) -> str:
    """One picture as HTML; one that cannot be read says so."""
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
            picture.thumbnail((_WIDTH, _WIDTH), Image.Resampling.BOX, reducing_gap=None)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        return (
            f'<div class="shot" data-epoch="{epoch}" data-said="{said}"><p class="none">{escape(str(error))}</p></div>'
        )
    return (
        f'<div class="shot" data-epoch="{epoch}" data-said="{said}"><p class="said">{said}</p>'
        f'<div class="frame"><img src="{data_url(picture, 80)}" loading="lazy" width="{picture.width}" '
        f'height="{picture.height}" alt="{escape(case, quote=True)}, {said}"></div></div>'
    )


def _figure(case: str, frames: Sequence[str]) -> str:
    last = len(frames) - 1
    slider = (
        f'<input type="range" min="0" max="{last}" value="{last}" step="1" aria-label="Epoch of {escape(case, True)}">'
        if last
        else ""
    )
    return (
        f'<figure class="shots"><figcaption><b>{escape(case)}</b><span data-script hidden>{slider}<output></output>'
        f"</span></figcaption>{''.join(frames)}</figure>"
    )
