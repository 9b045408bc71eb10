"""The settings with which a run is shown live, and the files in which the run's folder holds them."""

from __future__ import annotations

import dataclasses
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.atomic import write_json
from medseg.errors import ConfigError, RunError, did_you_mean
from medseg.runs.record import is_alive, read_json, read_record

# In the run's folder.
FOLDER = "monitor"
SETTINGS = "settings.json"
STATE = "state.json"
LOCK = ".lock"
LOG = "uploader.log"

OFF = "off"
TRACKIO = "trackio"
WANDB = "wandb"
BACKENDS = (TRACKIO, WANDB, OFF)
MODES = ("auto", "online", "offline")
VARIABLE = "MEDSEG_MONITOR"
# What W&B refuses, which one would learn of only when the run has begun.
_LONGEST, _LONGEST_TAG = 128, 64
_REFUSED = {"project": set("/\\#?%:"), "name": set[str](), "entity": set("/\\#?%: ")}


def default_backend() -> str:
    """Return the tracker of runs whose config names none: `MEDSEG_MONITOR`, else trackio, which sends nothing away."""
    return os.environ.get(VARIABLE) or TRACKIO


def check_settings(chosen: Mapping[str, Any] | None) -> None:
    """Check a config's `monitor` before a data set is read for it.

    Raises:
        ConfigError: a key or a value that means nothing.
    """
    Settings.of(chosen).with_project("")


@dataclass(frozen=True)
class Settings:
    """The settings of a config's `monitor`, and the name of the run at its tracker.

    Args:
        backend: `trackio` (a dashboard on this machine), `wandb`, or `off`.
        project: groups runs. Default: `medseg-<bundle>`.
        name: of the run. Default: that of its folder, which no other run has.
        notes: a sentence about the run.
        tags: words to find it by.
        entity: the team at W&B.
        images: False to send no images.
        mode: `auto` and `online` use W&B's server where it answers; `offline` never asks it.
        dashboard: False to serve no page of trackio while the run trains.
        base_url: a W&B server of one's own.
        id: of the run at its tracker, for good.
        job_type: `train` or `inference`.
        on: False while the run is not to be shown.
        configured: the backend that the config named when the run was last started.
        store: the folder of trackio's files.

    Raises:
        ConfigError: a value that means nothing.
    """

    backend: str = TRACKIO
    project: str | None = None
    name: str | None = None
    notes: str | None = None
    tags: tuple[str, ...] = ()
    entity: str | None = None
    images: bool = True
    mode: str = "auto"
    dashboard: bool = True
    base_url: str | None = None
    id: str = ""
    job_type: str = "train"
    on: bool = True
    configured: str | None = None
    store: str | None = None

    def __post_init__(self) -> None:
        for name, values in (("backend", BACKENDS), ("mode", MODES)):
            value = getattr(self, name)
            if value not in values:
                fix = did_you_mean(str(value), values)
                raise ConfigError(f"monitor#{name}", f"use one of {', '.join(values)}", f"got '{value}'", fix)
        for name in ("images", "dashboard", "on"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"monitor#{name}", "use true or false", f"got {getattr(self, name)!r}")
        for name in ("project", "name", "notes", "entity", "base_url"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"monitor#{name}", "use a text or null", f"got {value!r}")
        for name in ("project", "name", "entity"):
            value = getattr(self, name)
            if value is not None and (not 0 < len(value.strip()) <= _LONGEST or set(value) & _REFUSED[name]):
                refused = f" without {' '.join(sorted(_REFUSED[name]))}" if _REFUSED[name] else ""
                problem = f"W&B takes 1 to {_LONGEST} letters{refused}"
                shown = value if len(value) <= 40 else f"{value[:37]}... with {len(value)} letters"
                raise ConfigError(f"monitor#{name}", problem, f"got '{shown}'", "Choose another.")
        tags: Any = self.tags
        if not isinstance(tags, (list, tuple)) or not all(isinstance(tag, str) for tag in tags):
            raise ConfigError("monitor#tags", "use a list of words", f"got {tags!r}")
        for tag in tags:
            if not 0 < len(tag.strip()) <= _LONGEST_TAG:
                problem = f"a tag has 1 to {_LONGEST_TAG} letters"
                raise ConfigError("monitor#tags", problem, f"got '{tag[:37]}' with {len(tag)}", "Shorten it.")
        object.__setattr__(self, "tags", tuple(tags))

    @classmethod
    def of(cls, chosen: Mapping[str, Any] | None) -> Settings:
        """Return the settings of a config's `monitor`.

        Raises:
            ConfigError: a key or a value that means nothing.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        names = names[: names.index("id")]  # what follows is not for a config
        for key in chosen or {}:
            if key not in names:
                fix = did_you_mean(key, names, f"There are: {', '.join(names)}.")
                raise ConfigError(f"monitor#{key}", "the monitor has no such setting", fix=fix)
        options = {key: value for key, value in (chosen or {}).items() if value is not None}
        return cls(**{"backend": default_backend(), **options})

    @classmethod
    def load(cls, folder: str | Path) -> Settings | None:
        """Return the settings in a run's folder, None where there are none.

        Raises:
            RunError: they cannot be read.
        """
        path = Path(folder) / FOLDER / SETTINGS
        if not path.is_file():
            return None
        try:
            content = dict(json.loads(path.read_text(encoding="utf-8")))
            names = [field.name for field in dataclasses.fields(cls) if field.name in content]
            return cls(**{name: content[name] for name in names})
        except (OSError, ValueError, TypeError, ConfigError) as error:
            fix = "Remove the file; it will be made again."
            raise RunError(path, "the settings of the monitor cannot be read", str(error), fix) from error

    def save(self, folder: str | Path) -> None:
        """Write them to a run's folder."""
        write_json(Path(folder) / FOLDER / SETTINGS, {**dataclasses.asdict(self), "tags": list(self.tags)})

    def changed(self, **fields: Any) -> Settings:
        """Return the same settings with some fields changed."""
        return dataclasses.replace(self, **fields)

    def with_project(self, bundle: str) -> Settings:
        """Return the same settings with a project: theirs, that of `WANDB_PROJECT`, or the bundle's.

        Raises:
            ConfigError: `WANDB_PROJECT` is no name of a project.
        """
        own = "".join("-" if letter in _REFUSED["project"] else letter for letter in f"medseg-{bundle}")[:_LONGEST]
        return self.changed(project=self.project or os.environ.get("WANDB_PROJECT") or own)

    def filled(self, folder: Path) -> Settings:
        """Return the same settings with project, name, id and store, where they are not set yet.

        Args:
            folder: the run's folder, whose record names the bundle.
        """
        record = read_record(folder)
        bundle = str(record.get("bundle") or folder.parent.name)
        # A run's folder may have been copied from a machine with other folders.
        store_exists = self.store is not None and Path(self.store).parent.is_dir()
        return self.with_project(bundle).changed(
            name=self.name or folder.resolve().name,
            id=self.id or secrets.token_hex(6),
            store=self.store if store_exists else str(store_of(folder, record)),
        )


def store_of(folder: Path, record: Mapping[str, Any]) -> Path:
    """Return the folder of trackio's files, one for all runs under the same `output_dir`."""
    if os.environ.get("TRACKIO_DIR"):
        return Path(os.environ["TRACKIO_DIR"]).resolve()
    parent = folder.resolve().parent
    return (parent.parent if parent.name == record.get("bundle") else parent) / ".trackio"


def read_state(folder: str | Path) -> dict[str, Any]:
    """Return the state that the uploader last wrote, empty where it wrote none yet."""
    return read_json(Path(folder) / FOLDER / STATE)


def is_uploading(folder: str | Path) -> bool:
    """Return True while a process brings the run's rows to a tracker."""
    state = read_state(folder)
    return bool(state) and not state.get("done") and is_alive(state)
