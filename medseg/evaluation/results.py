"""What an evaluation leaves on disk: evaluation.json, scores.csv, structures.csv; each whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.atomic import write_json, write_text
from medseg.errors import DataError
from medseg.evaluation.evaluating import FORM

RESULT, SCORES, STRUCTURES = "evaluation.json", "scores.csv", "structures.csv"
_ROW = ("structure", "state", "truth_voxels", "predicted_voxels", "truth_ml", "predicted_ml")
_COUNTS = ("annotated", "present", "missed", "false_positive")


def save(folder: str | Path, content: Mapping[str, Any]) -> list[Path]:
    """Write an evaluation.

    Args:
        folder: where to.
        content: as `Evaluation.to_dict` gives it.

    Raises:
        OutputError: the place cannot be written.
    """
    folder, measures = Path(folder), content["measures"]
    write_json(folder / RESULT, content)
    rows = (
        [case["case"], *(row[key] for key in (*_ROW, *measures))]
        for case in content["cases"]
        for row in sorted(case["structures"], key=lambda row: (row["dice"] is None, row["dice"] or 0.0))
    )
    write_csv(folder / SCORES, ["case", *_ROW, *measures], rows)
    columns = [f"{measure}_{part}" for measure in measures for part in ("mean", "low", "high", "n")]
    of_all = ["(mean)", *[""] * len(_COUNTS), *_spread(content["mean"], measures)]
    means = (
        [one["structure"], *(one[key] for key in _COUNTS), *_spread(one["measures"], measures)]
        for one in content["structures"]
    )
    write_csv(folder / STRUCTURES, ["structure", *_COUNTS, *columns], [of_all, *means])
    return [folder / RESULT, folder / SCORES, folder / STRUCTURES]


def _spread(measured: Mapping[str, Mapping[str, Any]], measures: Sequence[str]) -> list[Any]:
    return [measured[measure][part] for measure in measures for part in ("mean", "low", "high", "n")]


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table; what has no value is an empty field, numbers have six digits.

    Raises:
        OutputError: the place cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in row])
    write_text(path, text.getvalue())


def load(path: str | Path) -> dict[str, Any]:
    """Read an evaluation back.

    Args:
        path: its folder, or its `evaluation.json`.

    Raises:
        DataError: there is none, or it is of another form.
    """
    path = Path(path)
    file = path / RESULT if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(file, "must be what medseg evaluate writes", str(error)) from error
    if not isinstance(content, dict) or content.get("form") != FORM or "cases" not in content:
        raise DataError(file, f"must be what medseg evaluate writes (form {FORM})", "something else", "Evaluate again.")
    return content
