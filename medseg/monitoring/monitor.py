"""Show a training run live: the handler starts the process that does it, and never waits for it."""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import logging
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ignite.engine import Events

from medseg.errors import MedsegError, command_line
from medseg.monitoring.control import start, wait_until_sent
from medseg.monitoring.history import History
from medseg.monitoring.settings import FOLDER, LOG, OFF, STATE, WANDB, Settings, is_uploading, read_state
from medseg.runs.record import FAILED, FINISHED, INTERRUPTED, RUNNING, read_record, this_process, write_record

logger = logging.getLogger(__name__)

_LOOK = 2.0  # seconds between two looks at the uploader
_RESTARTS = 3  # how often it is started again
_WAIT = 20.0  # seconds for it at exit
_WAIT_AFTER_STOP = 2.0


class Monitor:
    """Show a run on trackio's dashboard or at W&B.

    Not an Ignite logger: those log from the training process, where a network that hangs holds up the training. Here
    a process of its own (`medseg.monitoring.uploader`) reads the rows from the run's metrics log. Attach it after the
    handlers that write rows.

    Args:
        folder: the run's folder.
        settings: the config's `monitor`, see `medseg.monitoring.settings.Settings`.
        bundle: the name of the bundle, where the folder has no record that names it.

    Raises:
        ConfigError: a setting that means nothing, before anything starts.
    """

    affects_result = False  # see medseg.bundle.run_identity

    def __init__(
        self,
        folder: str | Path,
        settings: Mapping[str, Any] | None = None,
        bundle: str | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.settings = Settings.of(settings)
        self.bundle = bundle
        self._process: subprocess.Popen[bytes] | None = None
        self._last_look = 0.0
        self._restarts = 0
        self._announced = ""
        self._keeps_record = False  # True where the bundle writes no run.json itself

    def attach(self, engine: Any) -> None:
        """Start with the trainer, look now and then, log the link at the end."""
        if getattr(engine.state, "rank", 0) > 0:
            return
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.look)
        engine.add_event_handler(Events.COMPLETED, self._completed)

    def start(self, engine: Any) -> None:
        """Write the settings to the run's folder and start the uploader; training continues whatever happens to it."""
        self._process = None
        self._restarts = 0
        self._announced = ""
        with self._only_warn():
            self._start_record(engine)
            settings = self._current_settings().filled(self.folder)
            settings.save(self.folder)
            if settings.on and settings.backend != OFF:
                if importlib.util.find_spec(settings.backend) is None:
                    fix = "pip install 'medseg[monitor]'"
                    logger.info("The run is not shown live: %s is not installed (%s)", settings.backend, fix)
                    return
                if not is_uploading(self.folder):  # else one works at this run already and continues
                    (self.folder / FOLDER / STATE).unlink(missing_ok=True)
                self._process = start(self.folder)
                atexit.register(self._at_exit)

    @contextlib.contextmanager
    def _only_warn(self) -> Iterator[None]:
        """Turn errors into a warning: what fails in showing a run does not fail the run."""
        try:
            yield
        except (OSError, MedsegError) as error:
            self._process = None
            logger.warning("The run is not shown live: %s", error)

    def look(self, engine: Any = None) -> None:
        """Log the link once it is known, and restart the uploader if it died; costs nothing in between."""
        now = time.monotonic()
        if self._process is None or now - self._last_look < _LOOK:
            return
        self._last_look = now
        with self._only_warn():
            self._restart_if_dead(self._process)

    def _restart_if_dead(self, process: subprocess.Popen[bytes]) -> None:
        self._announce(read_state(self.folder))
        if process.poll() is None or is_uploading(self.folder):
            return
        settings = Settings.load(self.folder)
        log = self.folder / FOLDER / LOG
        if settings is None or not settings.on or settings.backend == OFF:
            self._process = None
        elif self._restarts < _RESTARTS:
            self._restarts += 1
            if self._restarts == 1:
                logger.warning("The process that shows the run ended and was restarted, see %s", log)
            self._process = start(self.folder)
        else:
            self._process = None
            logger.warning("The run is not shown live any more, see %s. %s", log, self._sync_hint())

    def _sync_hint(self) -> str:
        return f"Nothing is lost: {command_line('runs', 'sync', self.folder.name)}"

    def _current_settings(self) -> Settings:
        """Return those of the config with the id of an earlier start; what was switched by hand stays switched."""
        saved = Settings.load(self.folder)
        new = self.settings.changed(configured=self.settings.backend)
        if saved is None:
            return new
        new = new.changed(id=saved.id, name=new.name or saved.name, project=new.project or saved.project)
        if saved.configured == new.configured:
            new = new.changed(on=saved.on, backend=saved.backend)
        return new

    def _start_record(self, engine: Any) -> None:
        """Write a record for a bundle that writes none, so that its run can be listed, watched and synced."""
        record = read_record(self.folder)
        self._keeps_record = not record or bool(record.get("foreign"))
        if not self._keeps_record:
            return
        if not engine.has_event_handler(self._failed, Events.EXCEPTION_RAISED):
            engine.add_event_handler(Events.EXCEPTION_RAISED, self._failed)
        self.folder.mkdir(parents=True, exist_ok=True)
        new = {
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "bundle": self.bundle or self.folder.parent.name,
            "name": self.folder.name,
            "foreign": True,
            **{key: getattr(engine.state, key, None) for key in ("max_epochs", "epoch_length")},
        }
        write_record(self.folder, {**new, **record, **this_process(), "state": RUNNING})

    def _completed(self, engine: Any) -> None:
        with self._only_warn():
            self._end_record(engine, FINISHED)
        state = read_state(self.folder)
        if self._process is not None and (state.get("backend") == WANDB or state.get("mode") == "offline"):
            self._announced = ""  # once more, at the end; trackio's page goes down with the run
            with self._only_warn():
                self._announce(state)

    def _failed(self, engine: Any, error: BaseException) -> None:
        with self._only_warn():
            self._end_record(engine, INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED)
        raise error  # Ignite swallows an exception that has a handler

    def _end_record(self, engine: Any, state: str) -> None:
        if self._keeps_record:
            position = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
            write_record(self.folder, {**read_record(self.folder), **position, "state": state})

    def _announce(self, state: Mapping[str, Any]) -> None:
        """Log where the run can be seen, or why it cannot and what to do; each line once."""
        settings = Settings.load(self.folder)
        if not state or settings is None:
            return
        text = ""
        if state.get("mode") == "offline":
            text = f"Monitoring is offline: {state.get('why')}. {self._sync_hint()}"
        elif state.get("url"):
            text = f"Live at {state['url']} ({state.get('backend')}, run {settings.name})"
        if text and text != self._announced:
            self._announced = text
            logger.log(logging.WARNING if state.get("mode") == "offline" else logging.INFO, text)

    def _at_exit(self) -> None:
        """Wait while the uploader sends what is left and makes progress; then it continues alone."""
        if self._process is None or not is_uploading(self.folder):
            return
        stopped = read_record(self.folder).get("state") in (INTERRUPTED, FAILED)
        if not wait_until_sent(self.folder, _WAIT_AFTER_STOP if stopped else _WAIT):
            logger.info("The remaining rows are sent in the background. If that fails: %s", self._sync_hint())


class Tracking:
    """Attach `History` and `Monitor` for a bundle that has neither, through MONAI's `--tracking`.

    Not MONAI's `MLFlowHandler`: nothing is sent from the training process, and no server is needed. Used by
    `configs/tracking.json` for trainer and validator alike; the run's folder is `<output_dir>/medseg-run-<time>`. The
    tracker is the one of `MEDSEG_MONITOR`, or of `--monitor "{'backend': 'wandb'}"`.

    Args:
        output_dir: the bundle's.
        bundle_root: the bundle's folder; its name is the project's.
        settings: see `medseg.monitoring.settings.Settings`.
        log_every_n_batches: how often a batch is recorded.
    """

    affects_result = False  # see medseg.bundle.run_identity

    def __init__(
        self,
        output_dir: str | Path,
        bundle_root: str | Path = ".",
        settings: Mapping[str, Any] | None = None,
        log_every_n_batches: int = 10,
    ) -> None:
        self.folder = Path(output_dir).resolve() / f"medseg-run-{time.strftime('%Y%m%d-%H%M%S')}"
        self.monitor = Monitor(self.folder, settings, bundle=Path(bundle_root).resolve().name)
        self.every = log_every_n_batches
        self._validator: Any = None

    def attach(self, engine: Any) -> None:
        """Remember the validator, or follow the trainer; a bundle's validator is made first."""
        from monai.engines import Evaluator  # takes seconds to import, and only a bundle's run needs it

        if isinstance(engine, Evaluator):
            self._validator = engine
            return
        if getattr(engine.state, "rank", 0) == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
        self.monitor.attach(engine)  # its record is there before the first row
        History(self.folder, self._validator, self.every).attach(engine)
