"""Start the uploader of a run, switch it on and off, wait for it, and bring to a tracker what is missing there."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.errors import ConfigError, RunError, command_line
from medseg.monitoring.backends.wandb_run import server_address
from medseg.monitoring.settings import FOLDER, LOG, OFF, TRACKIO, WANDB, Settings, is_uploading, read_state
from medseg.runs.origin import was_started_here
from medseg.runs.record import METRICS_LOG, RUNNING, read_record, state_of

BUSY = 3  # exit code of the uploader: another one works at this run
_WAIT = 20.0  # seconds for an uploader to send what there is and end
_STALLED = 6.0  # seconds without any progress after which it is not waited for
# Variables of a W&B run of the process that starts the uploader.
_FOREIGN = (
    *("WANDB_SERVICE", "WANDB_RUN_ID", "WANDB_RESUME", "WANDB_NAME", "WANDB_NOTES", "WANDB_RUN_GROUP", "WANDB_DIR"),
)
_started: list[subprocess.Popen[bytes]] = []


@atexit.register
def _reap() -> None:
    # Python warns of a child that nothing waited for; these are meant to outlive this process.
    for process in _started:
        process.poll()


def command(folder: str | Path, *options: str) -> list[str]:
    """Return the command of a run's uploader."""
    return [sys.executable, "-m", "medseg.monitoring.uploader", str(Path(folder).resolve()), *options]


def environment() -> dict[str, str]:
    """Return this process's environment, changed so that the uploader finds medseg and no other W&B run."""
    variables = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    location = str(Path(__file__).resolve().parents[2])
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, [location, variables.get("PYTHONPATH", "")]))
    variables["OMP_NUM_THREADS"] = "1"
    return variables


def start(folder: str | Path) -> subprocess.Popen[bytes]:
    """Start the uploader as a process that outlives this one; it prints to `monitor/uploader.log`.

    Raises:
        OSError: it cannot be started.
    """
    folder = Path(folder)
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        options = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    with (folder / FOLDER / LOG).open("ab") as log:
        process = subprocess.Popen(
            command(folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(),
            cwd=folder,
            close_fds=True,
            **options,
        )
    _started.append(process)
    return process


def settings_of(folder: Path) -> Settings:
    """Return the settings in a run's folder, or those of a run that was never monitored."""
    return (Settings.load(folder) or Settings()).filled(folder)


def _with_backend(settings: Settings, backend: str | None) -> Settings:
    """Return the settings with this tracker, else with their own, else with trackio."""
    if backend == OFF:
        raise ConfigError("backend", "'off' is no tracker", fix="Use trackio or wandb.")
    return settings.changed(backend=backend or (settings.backend if settings.backend != OFF else TRACKIO))


def switch_on(folder: str | Path, backend: str | None = None) -> Settings:
    """Show a running run live; what it recorded before is sent, too. Returns at once.

    Args:
        folder: the run's folder.
        backend: `trackio` or `wandb`. Default: the one it had, else trackio.

    Raises:
        RunError: it is not running.
        ConfigError: there is no such tracker.
    """
    folder = Path(folder)
    settings = _with_backend(settings_of(folder), backend).changed(on=True)
    state = state_of(read_record(folder))
    if state != RUNNING:
        fix = f"To bring its rows to a tracker: {command_line('runs', 'sync', folder.name)}"
        raise RunError(f"run '{folder.name}'", f"only a running run is shown live, and this one is {state}", fix=fix)
    settings.save(folder)
    start(folder)
    return settings


def switch_off(folder: str | Path, wait: float = _WAIT) -> bool:
    """Stop showing a run live; it stays off until it is switched on, also when the run is resumed.

    Args:
        folder: the run's folder.
        wait: seconds for the uploader to send what is recorded.

    Returns:
        True if the uploader has ended; else it ends by itself.
    """
    folder = Path(folder)
    settings_of(folder).changed(on=False).save(folder)
    deadline = time.monotonic() + wait
    while is_uploading(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not is_uploading(folder)


def wait_until_sent(folder: str | Path, seconds: float) -> bool:
    """Wait for the uploader of a run that has ended, as long as it makes progress; return True if it is done."""
    deadline = time.monotonic() + seconds
    last_update = -1.0
    last_change = time.monotonic()
    while is_uploading(folder):
        now = time.monotonic()
        update = float(read_state(folder).get("updated", 0))
        if update != last_update:
            last_update = update
            last_change = now
        if now > deadline or now - last_change > _STALLED:
            return False
        time.sleep(0.1)
    return True


@dataclass(frozen=True)
class Synced:
    """The result of a sync.

    Args:
        backend: the tracker.
        rows: how many rows the run has.
        sent: how many of them were missing.
        images: how many images were sent.
        id: of the run at the tracker.
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
    """Send every row of a run that its tracker lacks: after a crash, an offline time, or a run without monitoring.

    Afterwards each row is there once, under one id.

    Args:
        folder: the run's folder.
        backend: `trackio` or `wandb`. Default: the run's own, else trackio.
        offline: make W&B's offline file again instead of asking its server.

    Raises:
        RunError: nothing was recorded, another uploader works at it, or the tracker cannot be reached.
        ConfigError: there is no such tracker; or only the run's own settings name the server, to which the key of
            `WANDB_API_KEY` is not sent, or, of a run from elsewhere, the team.
    """
    folder = Path(folder)
    if not (folder / METRICS_LOG).is_file():
        raise RunError(folder, f"there is no {METRICS_LOG} to sync")
    settings = _with_backend(settings_of(folder), backend)
    online = settings.backend == WANDB and not offline
    if online:
        _require_own_server(settings.base_url)
        _require_own_team(folder, settings.entity)
    if Settings.load(folder) is None:
        settings.changed(backend=OFF).save(folder)  # the id is the run's for good
    options = ["--once", "--backend", settings.backend, *(["--need-server"] if online else [])]
    done = subprocess.run(
        command(folder, *options), stdin=subprocess.DEVNULL, capture_output=True, env=environment(), check=False
    )
    state = read_state(folder)
    if done.returncode == BUSY:
        fix = f"Switch it off first: {command_line('runs', 'monitor', folder.name, 'off')}"
        raise RunError(f"run '{folder.name}'", "another process brings its rows to a tracker", fix=fix)
    if done.returncode or state.get("error"):
        message = str(state.get("error") or done.stderr.decode(errors="replace").strip()[-300:])
        raise RunError(f"Syncing {folder.name} with {settings.backend} failed. {message}")
    local = settings.store if settings.backend == TRACKIO else str(folder / FOLDER / "wandb")
    return Synced(
        backend=settings.backend,
        rows=int(state["rows"]),
        sent=int(state["sent"]),
        images=int(state["images"]),
        id=str(state["id"]),
        where=str(state.get("url") or local),
        mode=str(state["mode"]),
    )


def _require_own_server(address: str | None) -> None:
    """Refuse to send the key in the environment to a server that came with a run, perhaps a stranger's."""
    if address and os.environ.get("WANDB_API_KEY") and server_address() != address.rstrip("/"):
        raise ConfigError(
            "base_url",
            f"only the run's own settings name the server {address}, and the key of WANDB_API_KEY would go there",
            fix="Set WANDB_BASE_URL to this address if you trust it.",
        )


def _require_own_team(folder: Path, entity: str | None) -> None:
    """Refuse to send rows and images to a team that only a run from elsewhere names."""
    if entity and os.environ.get("WANDB_ENTITY") != entity and not was_started_here(folder):
        raise ConfigError(
            "entity",
            f"the run was not begun on this machine, and only its own settings name the team {entity}",
            fix="Set WANDB_ENTITY to this name if it is your team.",
        )
