"""Showing a training run live: this handler starts the process that does it, and never waits for it."""

from __future__ import annotations

import atexit
import contextlib
import logging
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Events

from medseg.atomic import write_json
from medseg.errors import MedsegError
from medseg.monitoring.settings import FOLDER, LOG, OFF, STATE, Settings, read_state
from medseg.monitoring.starting import start
from medseg.monitoring.switching import is_fed, wait_until_sent
from medseg.runs.record import FAILED, FINISHED, INTERRUPTED, RECORD, RUNNING, read_record, this_process

logger = logging.getLogger(__name__)

_LOOK, _RESTARTS = 2.0, 3  # seconds between looks at the feed; how often it is started again
_WAIT, _SHORT = 20.0, 2.0  # seconds at exit at most; after an interruption


class Monitor:
    """Show a run on trackio's dashboard or at W&B.

    Not an Ignite logger: those log from the training process, where a network that hangs holds the training up.
    Here rows are read from the run's `metrics.jsonl` by a process of its own (`medseg.monitoring.uploader`).

    It belongs behind the handlers that write rows.

    Args:
        folder: the run's folder.
        settings: the config's `monitor`, see `medseg.monitoring.settings.Settings`.
        batch_size: for the run's name.
        lr: for the run's name.
        bundle: whose run it is, where the folder has no record that says so.

    Raises:
        ConfigError: a setting that means nothing, before anything starts.
    """

    def __init__(
        self,
        folder: str | Path,
        settings: Mapping[str, Any] | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        bundle: str | None = None,
    ) -> None:
        self.folder, self.chosen = Path(folder), Settings.of(settings)
        self.batch_size, self.lr, self.bundle = batch_size, lr, bundle
        self._process: subprocess.Popen[bytes] | None = None
        self._looked, self._restarts, self._said, self._own = 0.0, 0, "", False

    def attach(self, engine: Any) -> None:
        """Start with the trainer, look now and then, say the link at the end."""
        if getattr(engine.state, "rank", 0) > 0:
            return
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.look)
        engine.add_event_handler(Events.COMPLETED, self._completed)

    def start(self, engine: Any) -> None:
        """Keep the settings in the run's folder and start the feed; training goes on whatever comes of it."""
        self._process, self._restarts, self._said = None, 0, ""
        with self._apart():
            self._record(engine)
            settings = self._settings().filled(self.folder, self.batch_size, self.lr)
            settings.save(self.folder)
            if settings.on and settings.backend != OFF:
                if not is_fed(self.folder):  # else it is at this run already, and goes on
                    (self.folder / FOLDER / STATE).unlink(missing_ok=True)
                self._process = start(self.folder)
                atexit.register(self._at_exit)

    @contextlib.contextmanager
    def _apart(self) -> Iterator[None]:
        """What fails in showing a run does not fail the run."""
        try:
            yield
        except (OSError, MedsegError) as error:
            self._process = None
            logger.warning("The run is not shown live: %s", error)

    def look(self, engine: Any = None) -> None:
        """Say the link once it is known, and start the feed again if it died; costs nothing in between."""
        now = time.monotonic()
        if self._process is None or now - self._looked < _LOOK:
            return
        self._looked = now
        with self._apart():
            self._tend(self._process)

    def _tend(self, process: subprocess.Popen[bytes]) -> None:
        self._say(read_state(self.folder))
        if process.poll() is None or is_fed(self.folder):
            return
        settings = Settings.load(self.folder)
        if settings is None or not settings.on or settings.backend == OFF:
            self._process = None
        elif self._restarts < _RESTARTS:
            self._restarts += 1
            if self._restarts == 1:
                logger.warning("The process that shows the run ended, started again (%s says why)", self._log)
            self._process = start(self.folder)
        else:
            self._process = None
            logger.warning("The run is not shown live any more (%s says why). %s", self._log, self._remedy())

    @property
    def _log(self) -> Path:
        return self.folder / FOLDER / LOG

    def _remedy(self) -> str:
        return f"Nothing is lost: medseg runs sync {self.folder.name}"

    def _settings(self) -> Settings:
        """Those of the config, with the id of an earlier start; what was switched by hand stays as it was switched."""
        kept, new = Settings.load(self.folder), self.chosen.changed(configured=self.chosen.backend)
        if kept is None:
            return new
        new = new.changed(id=kept.id, name=new.name or kept.name, project=new.project or kept.project)
        if kept.configured == new.configured:
            new = new.changed(on=kept.on, backend=kept.backend)
        return new

    def _record(self, engine: Any) -> None:
        """A record for a bundle that keeps none, so that it can be followed, listed and synced."""
        record = read_record(self.folder)
        self._own = not record or bool(record.get("foreign"))
        if self._own and not engine.has_event_handler(self._failed, Events.EXCEPTION_RAISED):
            engine.add_event_handler(Events.EXCEPTION_RAISED, self._failed)
        if self._own:
            self.folder.mkdir(parents=True, exist_ok=True)
            name = {"bundle": self.bundle or self.folder.parent.name, "name": self.folder.name, "foreign": True}
            began = {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
            length = {key: getattr(engine.state, key, None) for key in ("max_epochs", "epoch_length")}
            self._write({**began, **name, **length, **record, **this_process(), "state": RUNNING})

    def _write(self, record: Mapping[str, Any]) -> None:
        write_json(self.folder / RECORD, {**record, "updated": time.strftime("%Y-%m-%dT%H:%M:%S%z")})

    def _completed(self, engine: Any) -> None:
        with self._apart():
            self._end(engine, FINISHED)
        if self._process is not None:
            self._said = ""
            with self._apart():
                self._say(read_state(self.folder))

    def _failed(self, engine: Any, error: BaseException) -> None:
        with self._apart():
            self._end(engine, INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED)
        raise error

    def _end(self, engine: Any, state: str) -> None:
        if self._own:
            done = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
            self._write({**read_record(self.folder), **done, "state": state})

    def _say(self, state: Mapping[str, Any]) -> None:
        """One line: where the run can be seen, or why it cannot and what to do."""
        settings = Settings.load(self.folder)
        if not state or settings is None:
            return
        text = ""
        if state.get("mode") == "offline":
            text = f"Monitoring is offline: {state.get('why')}. {self._remedy()}"
        elif state.get("url"):
            text = f"Live at {state['url']} ({state.get('backend')}, run {settings.name})"
        if text and text != self._said:
            self._said = text
            logger.log(logging.WARNING if state.get("mode") == "offline" else logging.INFO, text)

    def _at_exit(self) -> None:
        """Let the feed send what is left, as long as it gets on; then it goes on alone."""
        if self._process is None or not is_fed(self.folder):
            return
        cut = read_record(self.folder).get("state") in (INTERRUPTED, FAILED)
        if not wait_until_sent(self.folder, _SHORT if cut else _WAIT):
            logger.info("The rest of the run is sent in the background. If that fails: %s", self._remedy())
