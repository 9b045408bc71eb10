"""What an evaluator's state says of a validation, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Events

from medseg.runs.metrics_log import finite


def validation_scores(state: Any, names: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of a `validation` row; empty where nothing was measured.

    The key metric is `mean_dice` and `dice`, whatever it is called. Every other metric that says what it is by
    structure gets `NAME` and `mean_NAME`, less `val_` and `mean_`. What a metric says is its details: a mapping with
    `by_structure` (`medseg.metrics`), or MONAI's own table `(cases, channels)`.

    Args:
        state: of a MONAI evaluator.
        names: of the structures, for metrics that know channels alone.
    """
    key = state.key_metric_name
    if not key or key not in state.metrics:
        return {}
    details: Mapping[str, Any] = state.metric_details or {}
    times: Mapping[str, Any] = getattr(state, "times", None) or {}
    found = {
        "mean_dice": finite(state.metrics[key]),
        "dice": by_structure(details.get(key), names),
        "best_dice": finite(state.best_metric),
        "best_epoch": int(state.best_metric_epoch),
        "seconds": finite(times.get(Events.COMPLETED.name), 3),
    }
    for metric, value in state.metrics.items():
        scores = by_structure(details.get(metric), names) if metric != key else {}
        name = metric.removeprefix("val_").removeprefix("mean_")
        if scores and name not in found:
            found[name], found[f"mean_{name}"] = scores, finite(value)
    return found


def by_structure(details: Any, names: Sequence[str] = ()) -> dict[str, float | None]:
    """Value by structure, None for one that has none; empty where nothing is said of structures."""
    if isinstance(details, Mapping):
        return {str(name): finite(value) for name, value in (details.get("by_structure") or {}).items()}
    if not isinstance(details, torch.Tensor) or details.ndim != 2 or not len(details):
        return {}
    means = details.double().nanmean(dim=0).tolist()
    if len(means) == len(names) + 1:
        means = means[1:]  # the background is among them
    known = names if len(means) == len(names) else [f"class_{number}" for number in range(1, len(means) + 1)]
    return {name: finite(mean) for name, mean in zip(known, means, strict=True)}
