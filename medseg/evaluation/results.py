"""The result of an evaluation, as a table, and on disk: evaluation.json, scores.csv, structures.csv."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from medseg.atomic import write_csv, write_json
from medseg.errors import DataError
from medseg.evaluation.bootstrap import (
    COUNTS,
    LEVEL,
    SAMPLES,
    case_means,
    count_states,
    draw_cases,
    intervals,
    row_means,
    score_table,
)
from medseg.evaluation.pairs import Pairs
from medseg.metrics import GITractScores, StructureScores, gi_tract_score

PARTS = ("dice", "hausdorff")  # of the score of the GI tract competition
FORM = 1  # of evaluation.json
FILES = RESULT, SCORES, STRUCTURES = "evaluation.json", "scores.csv", "structures.csv"
_ROW = ("structure", "state", "truth_voxels", "predicted_voxels", "truth_ml", "predicted_ml")


@dataclass(frozen=True)
class Evaluation:
    """The scores of predictions against the truth.

    Args:
        pairs: what was compared.
        measures: their names, in order.
        scores: by case, one row a structure.
        notes: by case, remarks on it.
        failed: by case, why it has no scores.
        prediction: where the predictions came from.
        truth: where the truths came from.
        samples: bootstrap samples.
        seed: of the bootstrap.
        gi_tract: of slices of the GI tract: what each scan gives to the competition's score.
    """

    pairs: Pairs
    measures: tuple[str, ...]
    scores: Mapping[str, Sequence[StructureScores]]
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    prediction: str = ""
    truth: str = ""
    samples: int = SAMPLES
    seed: int = 0
    gi_tract: tuple[GITractScores, ...] = ()

    def __repr__(self) -> str:
        cases, structures = len(self.scores), len(self.pairs.labels) - 1
        dice = f", mean Dice {self.mean('dice'):.4f}" if cases and "dice" in self.measures else ""
        return f"Evaluation({cases} cases, {structures} structures{dice})"

    def rows(self) -> list[dict[str, Any]]:
        """Return one row for each case and structure, as a table takes them; None where there is no value.

        Example:
            pandas.DataFrame(evaluation.rows()).groupby("structure")["dice"].mean()
        """
        table: list[dict[str, Any]] = json_safe(
            [{"case": case, **_row(row)} for case, rows in self.scores.items() for row in rows]
        )
        return table

    def mean(self, measure: str = "dice") -> float:
        """Return the mean of a measure over structures, of each structure over its cases; NaN without any value."""
        means = row_means(score_table(self.scores, measure).T)
        return float(row_means(means[None])[0])

    def f1(self) -> dict[str, float]:
        """Return the F1 of each structure over the voxels of all cases together; NaN where it is in none."""
        table = score_table(self.scores, "dice")
        sizes = np.array([[row.truth_voxels + row.predicted_voxels for row in rows] for rows in self.scores.values()])
        sizes = np.where(np.isnan(table), 0, sizes)
        total = sizes.sum(axis=0)
        f1 = np.divide((np.nan_to_num(table) * sizes).sum(axis=0), total, np.full(len(total), np.nan), where=total > 0)
        return dict(zip(self.pairs.labels, f1.tolist(), strict=True))

    def gi_tract_score(self) -> dict[str, float] | None:
        """Return the score of the UW-Madison GI tract competition and its two parts; None for other structures."""
        if not self.gi_tract:
            return None
        dice, hausdorff = (np.concatenate([getattr(scan, name).ravel() for scan in self.gi_tract]) for name in PARTS)
        means = {name: float(row_means(part[None])[0]) for name, part in zip(PARTS, (dice, hausdorff), strict=True)}
        return {"score": gi_tract_score(self.gi_tract), **means}

    def to_dict(self) -> dict[str, Any]:
        """Return what `evaluation.json` holds: means, structures and cases, the worst first; None without a value."""
        names = list(self.pairs.labels)
        drawn = draw_cases(len(self.scores), self.samples, self.seed)
        by_measure = {measure: intervals(score_table(self.scores, measure), drawn) for measure in self.measures}
        counts = count_states(self.scores)
        means = case_means(self.scores, self.measures)
        f1 = self.f1()
        structures = [
            {
                "structure": name,
                **counts[name],
                "f1": f1[name],
                "measures": {measure: by_measure[measure][0][index]._asdict() for measure in self.measures},
            }
            for index, name in enumerate(names)
        ]
        cases = [
            {
                "case": case,
                "truth": self.pairs.cases[case][0].location,
                "prediction": self.pairs.cases[case][1].location,
                "notes": list(self.notes.get(case, ())),
                "mean": means[case],
                "structures": [_row(row) for row in rows],
            }
            for case, rows in self.scores.items()
        ]
        content: dict[str, Any] = json_safe(
            {
                "form": FORM,
                "prediction": self.prediction,
                "truth": self.truth,
                "grid": "truth",
                "measures": list(self.measures),
                "slices": sum(len(truth.slices) for truth, _ in self.pairs.cases.values()),
                "bootstrap": {"samples": self.samples, "seed": self.seed, "level": LEVEL, "drawn": "cases"},
                "mean": {measure: by_measure[measure][1]._asdict() for measure in self.measures},
                "f1": float(row_means(np.array([list(f1.values())]))[0]),
                "gi_tract": self.gi_tract_score(),
                "structures": sorted(structures, key=lambda row: _worst_first(row["measures"]["dice"]["mean"])),
                "cases": sorted(cases, key=lambda row: _worst_first(row["mean"]["dice"])),
                "failed": dict(self.failed),
                "not_predicted": list(self.pairs.not_predicted),
                "not_in_truth": list(self.pairs.not_in_truth),
                "without_prediction": list(self.pairs.without_prediction),
                "without_truth": list(self.pairs.without_truth),
            }
        )
        return content


def json_safe(value: Any) -> Any:
    """Return the same for JSON: NaN and infinity as None, in dictionaries and lists, too."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: json_safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe(item) for item in value]
    return value


def _worst_first(value: float) -> tuple[bool, float]:
    """Return a sort key that puts small values first and NaN last."""
    return bool(np.isnan(value)), value


def _row(row: StructureScores) -> dict[str, Any]:
    columns = {key: value for key, value in vars(row).items() if key != "measures"}
    return {**columns, **row.measures}


def save(folder: str | Path, content: Mapping[str, Any]) -> list[Path]:
    """Write an evaluation as JSON and CSV; each file whole or not at all.

    Args:
        folder: the folder to write to.
        content: as `Evaluation.to_dict` gives it.

    Returns:
        The files.

    Raises:
        OutputError: the folder cannot be written.
    """
    folder, measures = Path(folder), content["measures"]
    write_json(folder / RESULT, content)
    rows = (
        [case["case"], *(row[key] for key in (*_ROW, *measures))]
        for case in content["cases"]
        for row in sorted(case["structures"], key=lambda row: (row["dice"] is None, row["dice"] or 0.0))
    )
    write_table(folder / SCORES, ["case", *_ROW, *measures], rows)
    columns = [f"{measure}_{part}" for measure in measures for part in ("mean", "low", "high", "n")]
    overall = ["(mean)", *[""] * len(COUNTS), *_spread(content["mean"], measures)]
    means = (
        [row["structure"], *(row[key] for key in COUNTS), *_spread(row["measures"], measures)]
        for row in content["structures"]
    )
    write_table(folder / STRUCTURES, ["structure", *COUNTS, *columns], [overall, *means])
    return [folder / RESULT, folder / SCORES, folder / STRUCTURES]


def _spread(measured: Mapping[str, Mapping[str, Any]], measures: Sequence[str]) -> list[Any]:
    return [measured[measure][part] for measure in measures for part in ("mean", "low", "high", "n")]


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table whose numbers have six digits.

    Raises:
        OutputError: the file cannot be written.
    """
    write_csv(path, header, ([f"{x:.6g}" if isinstance(x, float) else x for x in row] for row in rows))


def load(path: str | Path) -> dict[str, Any]:
    """Read an evaluation that `save` wrote.

    Args:
        path: its folder, or its `evaluation.json`.

    Raises:
        DataError: there is no such file, or it has another form.
    """
    path = Path(path)
    file = path / RESULT if path.is_dir() else path
    if not file.is_file():
        came = "" if path.exists() else "no such file or folder"
        raise DataError(path, "there is no evaluation here", came, "Give the folder that medseg evaluate wrote.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fix = "Give the folder that medseg evaluate wrote."
        raise DataError(file, "the evaluation cannot be read", str(error), fix) from error
    if not isinstance(content, dict) or content.get("form") != FORM or "cases" not in content:
        raise DataError(file, f"the file is not an evaluation of form {FORM}", fix="Run medseg evaluate again.")
    return content
