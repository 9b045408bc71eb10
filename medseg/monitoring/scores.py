"""The scores of a validation by name, and an evaluation written as one JSON file."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events

from medseg.atomic import write_json
from medseg.runs.metrics_log import finite

logger = logging.getLogger(__name__)

_OF_TRAINING = ("best_dice", "best_epoch", "seconds")


def validation_scores(state: Any, names: Sequence[str] = ()) -> dict[str, Any]:
    """Return the fields of a `validation` row; empty where nothing was measured.

    The key metric becomes `mean_dice` and `dice`, whatever it is called. Every other metric with values by structure
    becomes `NAME` and `mean_NAME`, without `val_` and `mean_` in front. These values are the metric's details: a
    mapping with `by_structure` (`medseg.metrics`), or MONAI's own table `(cases, channels)`. A plain Ignite evaluator
    has no key metric and no details: the metric with `dice` in its name is taken, its values are those by structure.

    Args:
        state: of a MONAI evaluator, or of a plain Ignite engine with metrics.
        names: of the structures, for metrics that know channels only.
    """
    if not hasattr(state, "key_metric_name"):
        return _plain_scores(state.metrics, names)
    key = state.key_metric_name
    if not key or key not in state.metrics:
        return {}
    details: Mapping[str, Any] = state.metric_details or {}
    scores = {
        "mean_dice": finite(state.metrics[key]),
        "dice": by_structure(details.get(key), names),
        "best_dice": finite(state.best_metric),
        "best_epoch": int(state.best_metric_epoch),
        "seconds": finite((getattr(state, "times", None) or {}).get(Events.COMPLETED.name), 3),
    }
    for metric, value in state.metrics.items():
        values = by_structure(details.get(metric), names) if metric != key else {}
        name = metric.removeprefix("val_").removeprefix("mean_")
        if values and name not in scores:
            scores[name] = values
            scores[f"mean_{name}"] = finite(value)
    return scores


def _plain_scores(metrics: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the same fields of an Ignite engine's metrics; those that are no numbers are left out."""
    scores: dict[str, Any] = {}
    for metric, value in metrics.items():
        try:
            values = torch.as_tensor(value).detach().double().cpu()
        except (TypeError, ValueError, RuntimeError):
            continue
        if values.ndim > 1:
            continue
        name = "dice" if "dice" in metric.lower() else metric.removeprefix("val_").removeprefix("mean_")
        parts = by_structure(values[None], names) if values.ndim else {}
        numbers = [part for part in parts.values() if part is not None] if parts else [values.item()]
        scores.setdefault(f"mean_{name}", finite(sum(numbers) / len(numbers)) if numbers else None)
        if parts or name == "dice":
            scores.setdefault(name, parts)
    return scores


def by_structure(details: Any, names: Sequence[str] = ()) -> dict[str, float | None]:
    """Return the value of each structure, None for one without; empty where the details hold no such values."""
    if isinstance(details, Mapping):
        return {str(name): finite(value) for name, value in (details.get("by_structure") or {}).items()}
    if not isinstance(details, torch.Tensor) or details.ndim != 2 or not len(details):
        return {}
    means = details.double().nanmean(dim=0).tolist()
    if len(means) == len(names) + 1:
        means = means[1:]  # the background is the first channel
    if len(means) != len(names):
        names = [f"class_{number}" for number in range(1, len(means) + 1)]
    return {name: finite(mean) for name, mean in zip(names, means, strict=True)}


class SaveScores:
    """Write mean Dice, Dice by structure, the number of cases and the other scores when an evaluator is done.

    Not MONAI's `MetricsSaver`, which knows classes by number and writes nothing for a name that it does not find.

    Args:
        path: the JSON file.
    """

    affects_result = False  # see medseg.bundle.run_identity

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def attach(self, engine: Engine) -> None:
        """Write at the end; attach this after the metrics."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the file, whole or not at all."""
        state: Any = engine.state
        name = state.key_metric_name
        details = state.metric_details.get(name, {})
        mean = float(state.metrics[name])
        scores = {
            "grid": "network",
            "mean_dice": mean if math.isfinite(mean) else None,
            "dice": details.get("by_structure", {}),
            "cases": details.get("cases"),
        }
        more = validation_scores(state)
        scores |= {key: value for key, value in more.items() if key not in scores and key not in _OF_TRAINING}
        write_json(self.path, scores)
        grid = "on the grid of the network, not of the scans (medseg evaluate takes theirs)"
        logger.info("Mean Dice %.4f over %s cases, %s, written to %s", mean, scores["cases"], grid, self.path)
