"""Bringing to a tracker what is not there yet: after a crash, an offline stretch, or a run without monitoring."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import ConfigError, RunError
from medseg.monitoring import credentials
from medseg.monitoring.settings import OFF, TRACKIO, WANDB, Settings, read_state
from medseg.monitoring.starting import command, environment
from medseg.monitoring.switching import settings_of
from medseg.monitoring.uploader import BUSY
from medseg.runs.record import METRICS_LOG


@dataclass(frozen=True)
class Synced:
    """What a sync did.

    Args:
        backend: where it went.
        rows: how many rows the run has.
        sent: how many of them were not there.
        images: how many pictures went along.
        id: the run's at the tracker.
        where: its link, or the folder that holds it.
        mode: `online`, `offline` or `local`.
    """

    backend: str
    rows: int
    sent: int
    images: int
    id: str
    where: str
    mode: str


def sync(folder: str | Path, backend: str | None = None, offline: bool = False) -> Synced:
    """Send every row of a run that its tracker does not have; each is there once afterwards, under one id.

    Args:
        folder: the run's folder.
        backend: `trackio` or `wandb`; by default the run's own, or trackio where that was off.
        offline: make W&B's offline file anew instead of asking its server.

    Raises:
        RunError: nothing was recorded, a tracker is at it now, or it cannot be reached.
        ConfigError: no such backend, or a server that only the run's own settings name: the key of `WANDB_API_KEY` is
            not sent to it.
    """
    folder = Path(folder)
    if not (folder / METRICS_LOG).is_file():
        raise RunError(folder, f"must hold {METRICS_LOG} to be synced", "no such file")
    settings = settings_of(folder)
    if backend == OFF:
        raise ConfigError("backend", "must be a tracker to sync with", "'off'", "Choose trackio or wandb.")
    chosen = backend or (settings.backend if settings.backend != OFF else TRACKIO)
    settings = settings.changed(backend=chosen)
    if chosen == WANDB and not offline:
        _require_own_server(settings.base_url)
    if Settings.load(folder) is None:
        settings.changed(backend=OFF).save(folder)  # the id is the run's for good
    options = ["--once", "--backend", chosen]
    if chosen == WANDB and not offline:
        options.append("--need-server")
    done = subprocess.run(
        command(folder, *options), stdin=subprocess.DEVNULL, capture_output=True, env=environment(), check=False
    )
    state = read_state(folder)
    if done.returncode == BUSY:
        raise RunError(folder, "must not be fed by another process", "one that is at it", "Switch it off first.")
    if done.returncode or state.get("error"):
        said = str(state.get("error") or done.stderr.decode(errors="replace").strip()[-300:])
        raise RunError(f"Syncing {folder.name} with {chosen} failed. {said}")  # which is a sentence or more already
    where = state.get("url") or (settings.store if chosen == TRACKIO else str(folder / "monitor" / "wandb"))
    counts = (int(state["rows"]), int(state["sent"]), int(state["images"]))
    return Synced(chosen, *counts, str(state["id"]), str(where), str(state["mode"]))


def _require_own_server(address: str | None) -> None:
    """See that the key in the environment goes to no server that came with a run, perhaps from somebody else."""
    if address and os.environ.get("WANDB_API_KEY") and credentials.server() != address.rstrip("/"):
        raise ConfigError(
            "base_url",
            "must be a server that you named yourself, for the key of WANDB_API_KEY goes there",
            f"{address}, which the run's own settings name",
            "Set WANDB_BASE_URL to it, if you mean it.",
        )
