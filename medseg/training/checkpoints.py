"""Checkpoints: last, best, and every few epochs; whole or not at all; and going on from the last."""

from __future__ import annotations

import logging
import pickle
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events

from medseg.atomic import atomic_path
from medseg.errors import WeightsError

logger = logging.getLogger(__name__)

LAST, BEST = "last.pt", "best.pt"


class Checkpoints:
    """Save a trainer at the end of each epoch, and let it go on from there when it starts again.

    Not MONAI's `CheckpointSaver`: it writes in place, so a kill in the middle leaves a broken file, and in a
    config it cannot hold the trainer it is given to (a circular reference). This handler takes the trainer when
    it is attached. It belongs after the validation and the history in the list: what a checkpoint goes on from
    has been recorded by then.

    `last.pt` and `epoch_NNNN.pt` hold network, optimizer, scheduler, AMP's scaler, epoch and the best score;
    `best.pt` and `model_path` hold the weights that validated best, `model_path` as a plain `state_dict`.

    Args:
        folder: where the checkpoints go.
        network: the network.
        optimizer: its optimizer.
        lr_scheduler: its scheduler, if any.
        validator: the evaluator whose key metric says which epoch is best; without one, the last is.
        model_path: where the weights for inference go.
        every: epochs between the checkpoints that stay; 0 keeps none.
        backup: told of each file that was written (`send(path)`), see `medseg.training.Backup`.
    """

    def __init__(
        self,
        folder: str | Path,
        network: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        model_path: str | Path,
        lr_scheduler: Any | None = None,
        validator: Any | None = None,
        every: int = 5,
        backup: Any | None = None,
    ) -> None:
        self.backup = backup
        self.folder, self.model_path, self.every = Path(folder), Path(model_path), every
        self.network, self.validator = network, validator
        self._parts: dict[str, Any] = {"network": network, "optimizer": optimizer}
        if lr_scheduler is not None:
            self._parts["lr_scheduler"] = lr_scheduler

    def attach(self, engine: Any) -> None:
        """Load at the start, save at the end of each epoch."""
        engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def load(self, engine: Any) -> None:
        """Go on from `last.pt` where there is one.

        Raises:
            WeightsError: the file is damaged or belongs to another network.
        """
        path = self.folder / LAST
        if engine.state.rank > 0 or not path.is_file():
            return
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            for name, part in self._parts.items():
                part.load_state_dict(content[name])
            epochs = engine.state.max_epochs
            engine.load_state_dict(content["trainer"])
            engine.state.max_epochs = epochs  # as the config says now
            self._load_scaler(engine, content.get("scaler"))
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
            raise WeightsError(
                path,
                "must be a whole checkpoint of this run",
                str(error).splitlines()[0],
                "Start anew with resume=false.",
            ) from error
        if self.validator is not None:
            self.validator.state.best_metric, self.validator.state.best_metric_epoch = content["best"]
        logger.info("Going on after epoch %d of %d, from %s", engine.state.epoch, engine.state.max_epochs, path)

    def save(self, engine: Any) -> None:
        """Write what this epoch gives.

        Raises:
            OutputError: a file cannot be written; the one before it stays whole.
        """
        if engine.state.rank > 0:
            return
        epoch = engine.state.epoch
        state = self.validator.state if self.validator is not None else None
        best = (float(state.best_metric), int(state.best_metric_epoch)) if state is not None else (-1.0, -1)
        content = {name: part.state_dict() for name, part in self._parts.items()}
        content |= {"trainer": dict(engine.state_dict()), "best": best}
        scaler = getattr(engine, "scaler", None)
        if scaler is not None and scaler.is_enabled():
            content["scaler"] = scaler.state_dict()
        self._write(self.folder / LAST, content)
        if self.every and epoch % self.every == 0:
            self._write(self.folder / f"epoch_{epoch:04d}.pt", content)
        if state is None or best[1] == epoch or not self.model_path.is_file():
            weights = self.network.state_dict()
            self._write(self.folder / BEST, {"network": weights, "best": best})
            self._write(self.model_path, weights)

    @staticmethod
    def _load_scaler(engine: Any, state: dict[str, Any] | None) -> None:
        """Give AMP's scaler, which the trainer makes anew at each start, the scale it had; a CPU has none."""
        scaler = getattr(engine, "scaler", None)
        if state and scaler is not None and scaler.is_enabled():
            scaler.load_state_dict(state)

    def _write(self, path: Path, content: Any) -> None:
        with atomic_path(path) as partial:
            torch.save(content, partial)
        if self.backup is not None:
            self.backup.send(path)
