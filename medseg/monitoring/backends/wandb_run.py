"""W&B: in the cloud or on a server of one's own; an offline file that can be sent later where that does not answer."""

from __future__ import annotations

import base64
import configparser
import json
import netrc
import os
import platform
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from medseg.errors import RunError
from medseg.monitoring.backends import LiveRun
from medseg.monitoring.settings import FOLDER, Settings
from medseg.monitoring.tracker_row import TrackerRow, tracker_config
from medseg.optional import require

CLOUD = "https://api.wandb.ai"
PATIENCE = 600.0  # seconds for the rest to be sent at the end
_INIT = 20.0  # seconds for the server to take a run, once it has answered
_VIEWER = {"query": "query Viewer { viewer { id } }"}
_STEPS = {"iteration": ("train", "system", "parameters", "gradients", "warnings"), "epoch": ("epoch", "val")}


class WandbRun(LiveRun):
    """A run at W&B.

    An offline file that a kill cut short may lack rows, and one that is resumed starts at step 0 again: so offline,
    every start makes a new file with all rows from the first, and removes the earlier ones once it is complete.
    Online, the server says how far it has come.

    Args:
        settings: see `Settings`.
        folder: the run's folder.
        need_server: True if being offline is an error.

    Raises:
        MissingExtraError: W&B is not installed.
        RunError: there is no server, and it is needed.
    """

    def __init__(self, settings: Settings, folder: Path, need_server: bool = False) -> None:
        wandb: Any = require("wandb", extra="monitor")
        self._files = folder / FOLDER / "wandb"
        self._address = server_address(settings.base_url)
        run = None
        self.why = self._why_offline(settings, need_server)
        if self.why is None:
            try:
                run = self._start(wandb, settings, folder, "online")
                self.mode = "online"
                self.url = run.url
            except Exception as error:  # of any kind that W&B raises: the offline file needs none of it
                self.why = f"{self._address} did not take the run ({str(error).splitlines()[0]})"
        if run is None and need_server:
            raise RunError(f"run '{folder.name}'", f"W&B cannot be reached: {self.why}", fix="Repair that, sync again.")
        if run is None:
            self._set_aside()
            run = self._start(wandb, settings, folder, "offline")
            self.mode = "offline"
        run.define_metric("iteration")
        run.define_metric("epoch")
        for step, prefixes in _STEPS.items():
            for prefix in prefixes:
                run.define_metric(f"{prefix}/*", step_metric=step)
        super().__init__(folder, settings.images, wandb, run)
        self._first = int(run.starting_step) if self.mode == "online" else 0

    def _why_offline(self, settings: Settings, need_server: bool) -> str | None:
        offline = settings.mode == "offline" or os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled")
        if offline and not need_server:
            return "offline was chosen"
        return connection_problem(self._address, api_key(self._address))

    def _set_aside(self) -> None:
        """Rename the files of earlier starts: two within one second would share a name."""
        for number, earlier in enumerate(sorted(self._files.glob("offline-run-*"))):
            earlier.rename(earlier.with_name(f"replaced-{number}-{time.time_ns()}"))

    def _start(self, wandb: Any, settings: Settings, folder: Path, mode: str) -> Any:
        """Call `wandb.init` so that it collects nothing of this machine."""
        private = wandb.Settings(
            base_url=self._address,
            console="off",
            disable_code=True,
            disable_git=True,
            disable_job_creation=True,
            host="",
            init_timeout=_INIT,
            program="medseg",
            program_relpath="medseg",
            root_dir=str(folder / FOLDER),
            save_code=False,
            silent=True,
            x_disable_machine_info=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_save_requirements=False,
        )
        return wandb.init(
            project=settings.project,
            entity=settings.entity,
            id=settings.id,
            name=settings.name,
            notes=settings.notes,
            tags=list(settings.tags) or None,
            job_type=settings.job_type,
            config=tracker_config(folder),
            mode=mode,
            resume="allow" if mode == "online" else None,
            settings=private,
        )

    def has(self, number: int) -> bool:
        """Return True if the server has the row; an offline file is made again and has none."""
        return number < self._first

    def log(self, number: int, row: Mapping[str, Any], values: dict[str, Any]) -> None:
        """Hand it to W&B's own process, with the time at which it was measured."""
        if isinstance(row.get("time"), (int, float)):
            values["_timestamp"] = row["time"]
        self.run.log(values, step=number, commit=True)

    def annotate(self, number: int, content: TrackerRow) -> None:
        """Send its alerts as messages, and the best Dice as the run's summary."""
        for level, title, text in content.alerts:
            kind = self.tracker.AlertLevel.ERROR if level == "error" else self.tracker.AlertLevel.WARN
            self.run.alert(title, text, level=kind)
        self.run.summary.update(content.summary)

    def finish(self) -> None:
        """Wait until W&B has written or sent everything, then remove the offline files of earlier starts.

        Raises:
            OSError: the server does not take the rest; W&B itself would try for days.
        """
        ending = threading.Thread(target=self.run.finish, daemon=True)
        ending.start()
        ending.join(PATIENCE)
        if ending.is_alive():
            raise OSError(f"{self._address} did not take the rest within {PATIENCE:g} s; medseg runs sync sends it")
        patterns = ["replaced-*", *(["offline-run-*"] if self.mode == "online" else [])]
        for earlier in (path for pattern in patterns for path in self._files.glob(pattern)):
            shutil.rmtree(earlier, ignore_errors=True)


def server_address(configured: str | None = None) -> str:
    """Return the address of W&B's server: as configured, of `WANDB_BASE_URL`, of W&B's settings file, or the cloud."""
    folder = os.environ.get("WANDB_CONFIG_DIR")
    path = (Path(folder) if folder else Path("~/.config/wandb").expanduser()) / "settings"
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    try:
        parser.read(path, encoding="utf-8")
        stored = parser.get("default", "base_url", fallback=None)
    except (configparser.Error, OSError, UnicodeDecodeError):
        stored = None
    return (configured or os.environ.get("WANDB_BASE_URL") or stored or CLOUD).rstrip("/")


def api_key(address: str) -> str | None:
    """Return the key of `WANDB_API_KEY`, or the one that `wandb login` wrote to the netrc file for this server."""
    key = os.environ.get("WANDB_API_KEY")
    if key:
        return key
    name = "_netrc" if platform.system() == "Windows" else ".netrc"
    path = os.environ.get("NETRC") or str(Path("~").expanduser() / name)
    try:
        login = netrc.netrc(path).authenticators(urlsplit(address).netloc)
    except (OSError, netrc.NetrcParseError):
        return None
    return login[2] if login else None


def connection_problem(address: str, key: str | None, seconds: float = 4.0) -> str | None:
    """Return why W&B cannot be used now, None where the server takes the key; nothing is ever asked of the user.

    Args:
        address: of the server.
        key: for it.
        seconds: how long the answer may take in all, whatever the server does.
    """
    if not key:
        return f"there is no key for {address} (wandb login, or WANDB_API_KEY, gives one)"
    answer = [f"{address} does not answer within {seconds:g} s"]
    # A timeout of the socket starts again with each byte, so a thread bounds the whole.
    thread = threading.Thread(target=_ask, args=(address, key, seconds, answer), daemon=True)
    thread.start()
    thread.join(seconds)
    return answer[0] or None


def _ask(address: str, key: str, seconds: float, answer: list[str]) -> None:
    login = base64.b64encode(f"api:{key}".encode()).decode()
    headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
    try:
        request = urllib.request.Request(f"{address}/graphql", json.dumps(_VIEWER).encode(), headers)
        with urllib.request.urlopen(request, timeout=seconds) as response:
            content = json.loads(response.read(100_000))
        answer[0] = "" if (content.get("data") or {}).get("viewer") else f"{address} does not know the key"
    except urllib.error.HTTPError as error:
        refused = error.code in (401, 403)
        answer[0] = f"{address} refuses the key" if refused else f"{address} answers with error {error.code}"
        error.close()
    except TimeoutError:
        return
    except (OSError, ValueError) as error:
        answer[0] = f"{address} cannot be reached ({str(error) or type(error).__name__})"
