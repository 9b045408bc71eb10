"""The metrics log of a run as CSV, one file a kind: UTF-8, a header, an empty field for a missing value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medseg.atomic import writable_folder, write_csv
from medseg.runs import Run
from medseg.runs.metrics_log import Row

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
SERIES = {
    "batches": ("batch",),
    "epochs": ("epoch",),
    "validation": ("validation",),
    "system": ("system",),
    "warnings": ("warning",),
    "sessions": ("begin", "end"),
    "images": ("image",),
}
_HISTOGRAMS = ("row", "time", "epoch", "iteration", "of", "name", "from", "to", "count")


def save_series(folder: str | Path, run: Run) -> list[Path]:
    """Write `batches.csv`, `epochs.csv`, `validation.csv`, `system.csv` and `warnings.csv`.

    Besides them `sessions.csv` (starts and ends), `images.csv` and `histograms.csv` (a line for each bin), if there are
    any. Columns begin with the row's number in `metrics.jsonl`, its time in seconds since 1970, epoch and iteration. In
    `validation.csv` each structure has a column `dice:NAME`, and `f1:NAME` if F1 was measured; in `system.csv` each GPU
    has `gpu0_load`, `gpu0_memory_used`, `gpu0_memory_total`. Shares are 0 to 1, memory is in bytes, times are in
    seconds. Other fields of a row have columns of their own.

    Returns:
        The files, those five always.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder = writable_folder(folder)
    files = []
    for name, kinds in SERIES.items():
        numbered = [(number, kind, row) for kind in kinds for number, row in run.rows.get(kind, ())]
        numbered.sort(key=lambda entry: entry[0])
        if not numbered and name in ("sessions", "images"):
            continue
        rows = []
        for number, kind, row in numbered:
            event = {"event": kind} if len(kinds) > 1 else {}
            rows.append({"row": number, **event, **_columns_of(row)})
        first = (*(("event",) if len(kinds) > 1 else ()), *(key for kind in kinds for key in _SCALARS[kind]))
        files.append(_write(folder / f"{name}.csv", _header(first, rows, run), rows))
    histograms = run.rows.get("histogram", ())
    if histograms:
        bins = [entry for number, row in histograms for entry in _bins(number, row)]
        files.append(_write(folder / "histograms.csv", list(_HISTOGRAMS), bins))
    return files


def _columns_of(row: Row) -> dict[str, Any]:
    """Return a row with every value in a column of its own."""
    columns: dict[str, Any] = {}
    for key, value in row.items():
        if key == "kind":
            continue
        if key in ("dice", "f1") and isinstance(value, dict):
            columns |= {f"{key}:{name}": score for name, score in value.items()}
        elif key == "gpu" and isinstance(value, list):
            for index, gpu in enumerate(value):
                columns |= {f"gpu{index}_{name}": figure for name, figure in dict(gpu).items()}
        else:
            columns[key] = value
    return columns


def _header(first: tuple[str, ...], rows: list[dict[str, Any]], run: Run) -> list[str]:
    """Return the usual columns, then structures in the label map's order, then all others."""
    present = dict.fromkeys(key for row in rows for key in row)
    structures = {name: index for index, name in enumerate(run.structures)}

    def order(column: str) -> tuple[int, int]:
        measure, _, name = column.partition(":")
        return ("dice", "f1").index(measure), structures.get(name, len(structures))

    scores = sorted((key for key in present if key.startswith(("dice:", "f1:"))), key=order)
    return list(dict.fromkeys([*_COMMON, *first, *scores, *present]))


def _bins(number: int, row: Row) -> Iterator[dict[str, Any]]:
    common = {"row": number, **{key: row.get(key) for key in _COMMON[1:]}}
    for kind in ("parameters", "gradients"):
        for name, bins in (row.get(kind) or {}).items():
            edges = bins["edges"]
            for low, high, count in zip(edges, edges[1:], bins["counts"], strict=False):
                yield {**common, "of": kind, "name": name, "from": low, "to": high, "count": count}


def _write(path: Path, header: list[str], rows: list[dict[str, Any]]) -> Path:
    write_csv(path, header, ([row.get(column) for column in header] for row in rows))
    return path
