"""Switching the monitoring of a run on and off, while it goes."""

from __future__ import annotations

import time
from pathlib import Path

from medseg.errors import ConfigError, RunError
from medseg.monitoring.settings import OFF, TRACKIO, Settings, read_state
from medseg.monitoring.starting import start
from medseg.runs.record import RUNNING, is_alive, read_record, state_of

_WAIT, _STILL = 20.0, 6.0  # seconds for a feed to send what it has and end; without any progress


def switch_on(folder: str | Path, backend: str | None = None) -> Settings:
    """Show a run that goes; what it recorded before is sent, too. Back at once, the tracker starts by itself.

    Args:
        folder: the run's folder.
        backend: `trackio` or `wandb`; by default the one it had, or trackio.

    Raises:
        RunError: it does not go; ConfigError: no such backend.
    """
    folder = Path(folder)
    if backend == OFF:
        raise ConfigError("backend", "must be a tracker to switch on", "'off'", "Choose trackio or wandb.")
    state = state_of(read_record(folder))
    if state != RUNNING:
        raise RunError(folder, "must be going to be shown live", f"a run that is {state}", "Use medseg runs sync.")
    settings = settings_of(folder)
    chosen = backend or (settings.backend if settings.backend != OFF else TRACKIO)
    settings = settings.changed(backend=chosen, on=True)
    settings.save(folder)
    start(folder)
    return settings


def switch_off(folder: str | Path, wait: float = _WAIT) -> bool:
    """Stop showing a run, which goes on; it stays off until it is switched on, also when the run is resumed.

    Args:
        folder: the run's folder.
        wait: seconds that the tracker has to send what is recorded.

    Returns:
        Whether its process has ended; it does so by itself otherwise.
    """
    folder = Path(folder)
    settings_of(folder).changed(on=False).save(folder)
    until = time.monotonic() + wait
    while is_fed(folder) and time.monotonic() < until:
        time.sleep(0.1)
    return not is_fed(folder)


def is_fed(folder: str | Path) -> bool:
    """Whether a process brings the run's rows to a tracker now."""
    state = read_state(folder)
    return bool(state) and not state.get("done") and is_alive(state)


def wait_until_sent(folder: str | Path, seconds: float) -> bool:
    """Let the feed of a run that has ended send what is left, as long as it gets on; whether it is done."""
    until = time.monotonic() + seconds
    seen, since = -1.0, time.monotonic()
    while is_fed(folder):
        now = time.monotonic()
        told = float(read_state(folder).get("updated", 0))
        if told != seen:
            seen, since = told, now
        if now > until or now - since > _STILL:
            return False
        time.sleep(0.1)
    return True


def settings_of(folder: Path) -> Settings:
    """The settings that the run's folder keeps, or those of a run that was never monitored."""
    return (Settings.load(folder) or Settings()).filled(folder)
