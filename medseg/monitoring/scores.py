"""The scores of an evaluation as one JSON file."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events

from medseg.atomic import write_json
from medseg.monitoring.validation import validation_scores

logger = logging.getLogger(__name__)


class SaveScores:
    """Write mean Dice, Dice by structure and the number of cases when an evaluator is done, and what else was scored.

    Every other metric that says what it is by structure becomes `NAME` and `mean_NAME`, see `validation_scores`.

    Not MONAI's `MetricsSaver`: that one knows classes by number, and writes nothing for a name it does not find.

    Args:
        path: the JSON file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def attach(self, engine: Engine) -> None:
        """Write at the end; attached after the metrics."""
        engine.add_event_handler(Events.COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the file, whole or not at all."""
        state: Any = engine.state
        name = state.key_metric_name
        details = state.metric_details.get(name, {})
        mean = float(state.metrics[name])
        scores = {
            "mean_dice": mean if math.isfinite(mean) else None,
            "dice": details.get("by_structure", {}),
            "cases": details.get("cases"),
        }
        beside = ("best_dice", "best_epoch", "seconds")  # of a training
        found = validation_scores(state).items()
        scores |= {key: value for key, value in found if key not in scores and key not in beside}
        write_json(self.path, scores)
        logger.info("Mean Dice %.4f over %s cases, written to %s", mean, scores["cases"], self.path)
