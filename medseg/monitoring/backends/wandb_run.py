"""W&B: in the cloud or on a server of one's own; a file that can be sent later where that does not answer."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.errors import RunError
from medseg.monitoring import credentials
from medseg.monitoring.about import about
from medseg.monitoring.backends.live_run import LiveRun
from medseg.monitoring.payload import Payload
from medseg.monitoring.settings import FOLDER, Settings

_STEPS = {"iteration": ("train", "system", "parameters", "gradients", "warnings"), "epoch": ("epoch", "val")}
PATIENCE = 600.0  # seconds for what is left at the end to be sent
_INIT = 20.0  # seconds for the server to take a run, once it has answered


class WandbRun(LiveRun):
    """A run at W&B.

    An offline file that a kill cut short may lack rows, and one that goes on starts at step 0 again: so
    offline, every start makes a new file with all rows from the first, and takes away those before it once it
    is whole. Online, the server says how far it has come.

    Args:
        settings: whose.
        folder: the run's folder.
        need_server: whether being offline is an error.

    Raises:
        RunError: no server, where it is needed.
    """

    def __init__(self, settings: Settings, folder: Path, need_server: bool = False) -> None:
        import wandb

        self._files = folder / FOLDER / "wandb"
        self._address = credentials.server(settings.base_url)
        run = None
        self.why = self._trouble(settings, need_server)
        if self.why is None:
            try:
                run = self._start(wandb, settings, folder, "online")
                self.mode, self.url = "online", run.url
            except Exception as error:  # whatever W&B raises: a run that trains needs none of it
                self.why = f"{self._address} did not take the run ({str(error).splitlines()[0]})"
        if run is None and need_server:
            raise RunError(
                f"W&B run of {folder.name}", "must reach its server", str(self.why), "Mend that and sync again."
            )
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

    def _trouble(self, settings: Settings, need_server: bool) -> str | None:
        offline = settings.mode == "offline" or os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled")
        if offline and not need_server:
            return "offline was chosen"
        return credentials.trouble(self._address, credentials.key(self._address))

    def _set_aside(self) -> None:
        """Rename the files of earlier starts: two within one second would share a name."""
        for number, earlier in enumerate(sorted(self._files.glob("offline-run-*"))):
            earlier.rename(earlier.with_name(f"replaced-{number}-{time.time_ns()}"))

    def _start(self, wandb: Any, settings: Settings, folder: Path, mode: str) -> Any:
        """`wandb.init`, told to look at nothing of this machine."""
        quiet = wandb.Settings(
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
            config=about(folder),
            mode=mode,
            resume="allow" if mode == "online" else None,
            settings=quiet,
        )

    def has(self, number: int) -> bool:
        """Whether the server has the row; an offline file is made anew and has none."""
        return number < self._first

    def log(self, number: int, row: Mapping[str, Any], values: dict[str, Any]) -> None:
        """Hand it to W&B's own process, at the time when it was measured."""
        if isinstance(row.get("time"), (int, float)):
            values["_timestamp"] = row["time"]
        self.run.log(values, step=number, commit=True)

    def tell(self, number: int, told: Payload) -> None:
        """Alerts become messages; the best Dice stands above the run."""
        for level, title, text in told.alerts:
            kind = self.kinds.AlertLevel.ERROR if level == "error" else self.kinds.AlertLevel.WARN
            self.run.alert(title, text, level=kind)
        self.run.summary.update(told.summary)

    def finish(self) -> None:
        """Wait until W&B has written or sent everything; then the offline files of earlier starts go.

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
