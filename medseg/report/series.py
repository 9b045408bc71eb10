"""Every series of a run as CSV, one file a kind: UTF-8, a header, nothing where there is no value."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medseg.atomic import atomic_path, writable_folder
from medseg.report.run_data import Row, RunData

_COMMON = ("row", "time", "epoch", "iteration")
_SCALARS: Mapping[str, tuple[str, ...]] = {
    "batch": ("loss", "dice_loss", "ce_loss", "lr", "grad_norm", "samples_per_second", "data_wait", "seconds_left"),
    "epoch": (
        *("loss", "dice_loss", "ce_loss", "lr", "grad_norm", "samples_per_second"),
        *("train_seconds", "data_wait", "seconds_left"),
    ),
    "validation": ("mean_dice", "mean_f1", "best_dice", "best_epoch", "seconds"),
    "image": ("case", "file", "caption"),
    "system": ("cpu", "ram_used", "ram_free", "ram_process", "disk_free", "shm_free"),
    "warning": ("level", "title", "text"),
    "begin": ("resumed", "max_epochs", "epoch_length", "batch_size", "accumulation_steps", "device"),
    "end": ("state", "reason"),
}
_FILES = {
    "batches": ("batch",),
    "epochs": ("epoch",),
    "validation": ("validation",),
    "system": ("system",),
    "warnings": ("warning",),
    "sessions": ("begin", "end"),
    "images": ("image",),
}
_HISTOGRAMS = ("row", "time", "epoch", "iteration", "of", "name", "from", "to", "count")


def save_series(folder: str | Path, run: RunData) -> list[Path]:
    """Write `batches.csv`, `epochs.csv`, `validation.csv`, `system.csv` and `warnings.csv`.

    Besides them `sessions.csv` (starts and ends), `images.csv` and `histograms.csv` (a line for each bin), where there
    are any. Columns begin with the row's number in `metrics.jsonl`, its time in seconds since 1970, epoch and
    iteration. Of `validation.csv` each structure has a column `dice:NAME`, and `f1:NAME` where F1 was measured; of
    `system.csv` each GPU has `gpu0_load`, `gpu0_memory_used`, `gpu0_memory_total`. Shares are 0 to 1, memory is in
    bytes, times are in seconds. What a row has beyond the known fields comes in columns of its own.

    Returns:
        The files, those five always.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = writable_folder(folder)
    written = []
    for name, kinds in _FILES.items():
        found = [(number, kind, row) for kind in kinds for number, row in run.rows.get(kind, ())]
        rows = [
            (number, {"event": kind, **row} if len(kinds) > 1 else row)
            for number, kind, row in sorted(found, key=lambda one: one[0])
        ]
        if rows or name not in ("sessions", "images"):
            known = (("event",) if len(kinds) > 1 else ()) + tuple(key for kind in kinds for key in _SCALARS[kind])
            flat = [{"row": number, **_flat(row)} for number, row in rows]
            written.append(_write(folder / f"{name}.csv", _columns(known, flat, run), flat))
    if run.rows.get("histogram"):
        bins = [one for number, row in run.rows["histogram"] for one in _bins(number, row)]
        written.append(_write(folder / "histograms.csv", list(_HISTOGRAMS), bins))
    return written


def _flat(row: Row) -> dict[str, Any]:
    """A row with every value in a column of its own."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        if key == "kind":
            continue
        if key in ("dice", "f1") and isinstance(value, dict):
            found.update({f"{key}:{name}": one for name, one in value.items()})
        elif key == "gpu" and isinstance(value, list):
            for index, gpu in enumerate(value):
                found.update({f"gpu{index}_{name}": one for name, one in dict(gpu).items()})
        else:
            found[key] = value
    return found


def _columns(known: tuple[str, ...], rows: list[dict[str, Any]], run: RunData) -> list[str]:
    """The known columns, then structures in the label map's order, then whatever else came."""
    seen = dict.fromkeys(key for row in rows for key in row)
    structures = {name: index for index, name in enumerate(run.structures)}

    def location(column: str) -> tuple[int, int]:
        kind, colon, name = column.partition(":")
        return (("dice", "f1").index(kind), structures.get(name, len(structures))) if colon else (2, 0)

    structural = sorted((key for key in seen if key.startswith(("dice:", "f1:"))), key=location)
    return list(dict.fromkeys([*_COMMON, *known, *structural, *seen]))


def _bins(number: int, row: Row) -> Iterator[dict[str, Any]]:
    common = {"row": number, **{key: row.get(key) for key in _COMMON[1:]}}
    for of in ("parameters", "gradients"):
        for name, one in (row.get(of) or {}).items():
            edges = one["edges"]
            for low, high, count in zip(edges, edges[1:], one["counts"], strict=False):
                yield {**common, "of": of, "name": name, "from": low, "to": high, "count": count}


def _write(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> Path:
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path
