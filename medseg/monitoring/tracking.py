"""Recording and showing the runs of any bundle, through MONAI's `--tracking` (`configs/tracking.json`)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.engines import Evaluator

from medseg.monitoring.history import History
from medseg.monitoring.monitor import Monitor


class Tracking:
    """`History` and `Monitor` for a bundle that has neither; for its trainer and its validator alike.

    Not MONAI's `MLFlowHandler`: nothing is sent from the training process, and no server is needed.

    The run's folder is `<output_dir>/medseg-run-<time>`. Which tracker shows it, `MEDSEG_MONITOR` says, or
    `--monitor "{'backend': 'wandb'}"`.

    Args:
        output_dir: the bundle's.
        bundle_root: the bundle's folder; its name is the project's.
        settings: see `medseg.monitoring.settings.Settings`.
        log_every_n_batches: how often a batch is recorded.
    """

    def __init__(
        self,
        output_dir: str | Path,
        bundle_root: str | Path = ".",
        settings: Mapping[str, Any] | None = None,
        log_every_n_batches: int = 10,
    ) -> None:
        self.folder = Path(output_dir).resolve() / f"medseg-run-{time.strftime('%Y%m%d-%H%M%S')}"
        self.monitor = Monitor(self.folder, settings, bundle=Path(bundle_root).resolve().name)
        self.every, self._validator = log_every_n_batches, None

    def attach(self, engine: Any) -> None:
        """Take note of the validator, or follow the trainer; a bundle's validator is made first."""
        if isinstance(engine, Evaluator):
            self._validator = engine
            return
        if getattr(engine.state, "rank", 0) == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
        self.monitor.attach(engine)  # its record is there before the first row
        History(self.folder, self._validator, self.every).attach(engine)
