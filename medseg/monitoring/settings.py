"""Where and how a run is shown live: the choices, and the files in which a run's folder keeps them."""

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
from medseg.runs.record import read_record

FOLDER, SETTINGS, STATE, LOCK, LOG = "monitor", "settings.json", "state.json", ".lock", "feed.log"
OFF, TRACKIO, WANDB = "off", "trackio", "wandb"
BACKENDS = (TRACKIO, WANDB, OFF)
MODES = ("auto", "online", "offline")
VARIABLE = "MEDSEG_MONITOR"


def default_backend() -> str:
    """What shows a run where no config says it: `MEDSEG_MONITOR`, or trackio, which stays on this machine."""
    return os.environ.get(VARIABLE) or TRACKIO


def check_settings(chosen: Mapping[str, Any] | None) -> None:
    """See that a config's `monitor` can be meant, before a data set is read for it.

    Raises:
        ConfigError: a key or a value that means nothing.
    """
    Settings.of(chosen)


@dataclass(frozen=True)
class Settings:
    """What somebody chose, and who the run is to its tracker.

    Args:
        backend: `trackio` (a dashboard on this machine), `wandb`, or `off`.
        project: what the runs of a project have in common; by default `medseg-<bundle>`.
        name: what the run is called; by default `<bundle>-bs<batch>-lr<lr>-<MMDD>`.
        notes: a sentence about the run.
        tags: words to find it by.
        entity: the team at W&B.
        images: whether pictures go to the tracker.
        mode: `auto` and `online` use W&B's server where it answers; `offline` never asks it.
        dashboard: whether trackio's page is served while the run goes.
        base_url: a W&B server of one's own.
        id: the run's at its tracker, for good.
        job_type: `train` or `inference`.
        on: whether the run is to be shown now.
        configured: the backend that the config named when the run was last started.
        store: the folder of trackio's files.

    Raises:
        ConfigError: a value that cannot be meant.
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
        _one_of("backend", self.backend, BACKENDS)
        _one_of("mode", self.mode, MODES)
        for name in ("images", "dashboard", "on"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"monitor#{name}", "must be true or false", repr(getattr(self, name)))
        for name in ("project", "name", "notes", "entity", "base_url"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise ConfigError(f"monitor#{name}", "must be text or null", repr(value))
        tags: Any = self.tags
        if not isinstance(tags, (list, tuple)) or not all(isinstance(tag, str) for tag in tags):
            raise ConfigError("monitor#tags", "must be a list of words", repr(tags))
        object.__setattr__(self, "tags", tuple(tags))

    @classmethod
    def of(cls, chosen: Mapping[str, Any] | None) -> Settings:
        """The settings that a config's `monitor` holds.

        Raises:
            ConfigError: a key or a value that means nothing.
        """
        known = [field.name for field in dataclasses.fields(cls)][:10]
        for key in chosen or {}:
            if key not in known:
                fix = did_you_mean(key, known, f"There are: {', '.join(known)}.")
                raise ConfigError(f"monitor#{key}", "must be a setting of the monitoring", "none of that name", fix)
        given = dict(chosen or {})
        return cls(**{"backend": default_backend(), **{k: v for k, v in given.items() if v is not None}})

    @classmethod
    def load(cls, folder: str | Path) -> Settings | None:
        """Those that a run's folder keeps; None where it keeps none.

        Raises:
            RunError: they cannot be read.
        """
        path = Path(folder) / FOLDER / SETTINGS
        if not path.is_file():
            return None
        try:
            content = dict(json.loads(path.read_text(encoding="utf-8")))
            return cls(
                **{field.name: content[field.name] for field in dataclasses.fields(cls) if field.name in content}
            )
        except (OSError, ValueError, TypeError, ConfigError) as error:
            raise RunError(
                path, "must hold the settings of the monitoring", str(error), "Remove it; it is made anew."
            ) from error

    def save(self, folder: str | Path) -> None:
        """Keep them in a run's folder."""
        write_json(Path(folder) / FOLDER / SETTINGS, {**dataclasses.asdict(self), "tags": list(self.tags)})

    def changed(self, **fields: Any) -> Settings:
        """The same with some fields changed."""
        return dataclasses.replace(self, **fields)

    def filled(self, folder: Path, batch_size: Any = None, lr: Any = None) -> Settings:
        """The same with project, name, id and store, where they are not given yet.

        Args:
            folder: the run's folder, whose record says what bundle it is.
            batch_size: for the name.
            lr: for the name.
        """
        record = read_record(folder)
        bundle = str(record.get("bundle") or folder.parent.name)
        told = "" if batch_size is None or lr is None else f"bs{batch_size}-lr{lr:g}"
        day = str(record.get("started", ""))[5:10].replace("-", "")
        name = "-".join(part for part in (bundle, told or str(record.get("name") or folder.name), day) if part)
        return self.changed(
            project=self.project or os.environ.get("WANDB_PROJECT") or f"medseg-{bundle}",
            name=self.name or name,
            id=self.id or secrets.token_hex(6),
            store=self.store if _is_here(self.store) else str(store_of(folder, record)),
        )


def _is_here(store: str | None) -> bool:
    """Whether the place of trackio's files can be meant: a run's folder may have been copied from elsewhere."""
    return store is not None and Path(store).parent.is_dir()


def store_of(folder: Path, record: Mapping[str, Any]) -> Path:
    """Where trackio keeps what it is told, one place for all runs under the same `output_dir`."""
    if os.environ.get("TRACKIO_DIR"):
        return Path(os.environ["TRACKIO_DIR"]).resolve()
    above = folder.resolve().parent
    return (above.parent if above.name == record.get("bundle") else above) / ".trackio"


def read_state(folder: str | Path) -> dict[str, Any]:
    """What the feed last said of itself; empty where it said nothing yet."""
    try:
        return dict(json.loads((Path(folder) / FOLDER / STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _one_of(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        fix = did_you_mean(str(value), known)
        raise ConfigError(f"monitor#{name}", f"must be one of {', '.join(known)}", f"'{value}'", fix)
