"""The settings that decide what a run computes, and those that may change when it is resumed."""

from __future__ import annotations

import contextlib
import json
import logging
import pydoc
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import monai.bundle

from medseg.bundle.handlers import handler_class
from medseg.cases import DatasetIndex
from medseg.config.check import TRACKING
from medseg.config.diff import differences
from medseg.config.paths import at, walk
from medseg.config.references import TARGET, key_path, top_key, used_paths
from medseg.errors import ConfigError, RunError
from medseg.runs.find import find_run, find_runs
from medseg.runs.record import FINISHED, RECORD, read_record, state_of

logger = logging.getLogger(__name__)

# Keys that say where files are or how this machine computes, not what is computed. A bundle with keys of its own of
# this kind lists them in its metadata, as `harmless_keys`.
HARMLESS_KEYS = (
    "bundle_root",
    "output_dir",
    "dataset_dir",
    "device",
    "num_workers",
    "resume",
    "backup",
    "monitor",
    TRACKING,
    monai.bundle.ConfigParser.meta_key,
)
# What a run holds in memory, by the paths that MONAI's bundles have for it; the same is computed.
_MEMORY_PATHS = (
    "train#dataset#cache_rate",
    "train#dataset#num_workers",
    "train#dataloader#num_workers",
    "validate#dataset#cache_rate",
    "validate#dataset#num_workers",
    "validate#dataloader#num_workers",
    "inferer#sw_batch_size",
    "inferer#sw_device",
    "inferer#device",
)
# When a run validates and when it ends: what it has computed so far stays right.
_CHANGEABLE_PATHS = ("val_interval", "train#handler_set#early_stopping", "train#handler_set#validation#interval")
_LENGTH_PATHS = ("max_epochs", "train#trainer#max_epochs")
# Files and folders that a user names; a name that no file has, such as that of a bundle, stays as it is.
_PATH_KEYS = ("dataset_dir", "exclude", "init_weights")
_SIMILAR = 5  # a run with so many differences at most is the same work with something changed
_RECENT = 86400.0  # seconds since the last sign of life of a run that is worth a word
_LONGEST_VALUE = 80
_FIX = "Use the settings it was started with, or start a new run with --fresh."


def result_config(config: Mapping[str, Any], harmless: Collection[str] = ()) -> dict[str, Any]:
    """Return the part of a config that decides what is computed; two runs with the same part are the same run.

    Left out are `HARMLESS_KEYS`, handlers whose class has `affects_result = False` (they log, draw or save), what a run
    holds in memory, and keys to which only these refer, or nothing does. `run_name` stays: with another name one asks
    for another run.

    Args:
        config: an effective config.
        harmless: further top-level keys to leave out.
    """
    ignored = {*HARMLESS_KEYS, *harmless}
    result = {key: _without(value, key, _MEMORY_PATHS) for key, value in config.items() if key not in ignored}
    for engine in ("train", "validate"):
        part = result.get(engine)
        if not isinstance(part, Mapping):
            continue
        handler_set = part.get("handler_set", {})
        named = {name: handler for name, handler in handler_set.items() if _affects_result(name, handler, config)}
        if isinstance(named.get("more"), Mapping):
            more = named["more"].items()
            named["more"] = {name: handler for name, handler in more if _affects_result(name, handler, config)}
        handlers = [handler for handler in part.get("handlers", []) if _affects_result("", handler, config)]
        result[engine] = {**part, "handler_set": named, "handlers": handlers}
    # A key that only left out parts refer to goes too, and then perhaps those that it refers to.
    referred = _referred_keys(config)
    while True:
        still_referred = _referred_keys(result)
        unused = {key for key in result if key not in still_referred and (key in referred or _is_scalar(result[key]))}
        if not unused:
            return result
        result = {key: value for key, value in result.items() if key not in unused}


def _without(value: Any, path: str, paths: Sequence[str]) -> Any:
    """Return a config entry without what is at these paths in it."""
    if not isinstance(value, Mapping):
        return value
    entries = {key: f"{path}#{key}" for key in value}
    return {key: _without(value[key], entry, paths) for key, entry in entries.items() if entry not in paths}


def _affects_result(name: str, handler: Any, config: Mapping[str, Any]) -> bool:
    """Return True if a run computes something else with a handler: its class says so, or says nothing.

    Args:
        name: of a default handler, where the config has only its settings.
        handler: its settings, a component, or a string such as `@tracking` that refers to one.
        config: the config that it refers to.
    """
    references = set[str]()
    while isinstance(handler, str) and handler[:1] in ("@", "%") and handler not in references:
        references.add(handler)
        handler = at(config, key_path(handler[1:]))
    target = handler.get(TARGET) if isinstance(handler, Mapping) else None
    try:
        handler_type = handler_class(name) if target is None else pydoc.locate(str(target))
    except pydoc.ErrorDuringImport:
        return True
    return getattr(handler_type, "affects_result", True) is not False


def _is_scalar(value: Any) -> bool:
    """Return True for a value that is no list and no dictionary: those may be run by their name, such as `training`."""
    return not isinstance(value, (Mapping, list))


def _referred_keys(config: Mapping[str, Any]) -> set[str]:
    """Return the top-level keys to which another part of the config refers."""
    keys = set[str]()
    for key, value in config.items():
        keys |= {top_key(path) for path in used_paths(value)} - {key}
    return keys


Changes = dict[str, list[Any]]  # the value before and now, by path


def json_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config as it is in the file of a run: without metadata, only what JSON has, with whole paths.

    So a run can be resumed from any folder, and the same file under a relative path is no change.
    """
    content = {key: value for key, value in config.items() if key != monai.bundle.ConfigParser.meta_key}
    for key in _PATH_KEYS:
        value = content.get(key)
        if isinstance(value, str) and value[:1] not in ("$", "@", "%") and Path(value).expanduser().exists():
            content[key] = str(Path(value).expanduser().resolve())
    backup = content.get("backup")
    if isinstance(backup, str) and backup[:1] not in ("$", "@", "%") and "://" not in backup and "::" not in backup:
        content["backup"] = str(Path(backup).expanduser().resolve())
    return dict(json.loads(json.dumps(content, default=repr)))


@dataclass(frozen=True)
class ConfigChanges:
    """What changed since a run began.

    Args:
        changed: all changes but those of locations.
        essential: those that change what is computed.
        unsafe: those of them with which the run cannot be resumed.
    """

    changed: Changes
    essential: Changes
    unsafe: Changes


def compare_configs(old: Mapping[str, Any], new: Mapping[str, Any], harmless: Collection[str] = ()) -> ConfigChanges:
    """Compare a run's config with the one with which it is to be resumed.

    Safe are another `val_interval` or early stopping, what takes less memory for the same numbers, and a larger
    `max_epochs` where nothing else is made from it: a schedule of the learning rate that is would have been another one
    from the start.

    Args:
        old: the effective config with which the run began.
        new: the one that is asked for.
        harmless: see `result_config`.
    """
    old = json_config(old)
    new = json_config(new)
    essential = differences(result_config(old, harmless), result_config(new, harmless))
    safe = {
        path
        for path in essential
        if any(path == allowed or path.startswith(f"{allowed}#") for allowed in _CHANGEABLE_PATHS)
    }
    lengths = (_max_epochs(old), _max_epochs(new))
    if not _made_from_length(new) and all(isinstance(length, int) for length in lengths) and lengths[1] > lengths[0]:
        safe |= set(_LENGTH_PATHS)
    unsafe = {path: values for path, values in essential.items() if path not in safe}
    changed = differences(old, new, ignore=("bundle_root", "output_dir", "resume", TRACKING))
    return ConfigChanges(changed, essential, unsafe)


def _max_epochs(config: Mapping[str, Any]) -> Any:
    value = config.get("train", {}).get("trainer", {}).get("max_epochs", "@max_epochs")
    return config.get("max_epochs") if value == "@max_epochs" else value


def _made_from_length(config: Mapping[str, Any]) -> list[str]:
    """Return the paths of what is made from the number of epochs, but for the trainer."""
    paths = []
    for path, value in walk(result_config(config), into_lists=False):
        if path in _LENGTH_PATHS or isinstance(value, Mapping):
            continue
        if any(used in _LENGTH_PATHS for used in used_paths(value)):
            paths.append(path)
    return paths


def describe_changes(changes: Mapping[str, Sequence[Any]]) -> str:
    """Return changes as people read them.

    Example:
        >>> describe_changes({"lr": (0.001, 0.002), "clip_norm": (None, 12.0)})
        'lr 0.001 -> 0.002, clip_norm null -> 12.0'
    """

    def short(value: Any) -> str:
        text = value if isinstance(value, str) else json.dumps(value, default=repr)
        return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."

    return ", ".join(f"{path} {short(old)} -> {short(new)}" for path, (old, new) in changes.items())


def read_run_config(folder: Path, config: str = "train") -> dict[str, Any]:
    """Return the effective config in the folder of a run.

    Raises:
        RunError: it cannot be read.
    """
    path = folder / "configs" / f"{config}.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise RunError(
            path, "the config of the run cannot be read", str(error), "Use --fresh for a new run."
        ) from error


def data_fingerprints(dataset: DatasetIndex) -> dict[str, str]:
    """Return the fingerprints that a record has: `data` of the whole data set, `train_data` of the training cases."""
    others = [case.id for case in dataset.cases if case.id not in dataset.split.train]
    return {"data": dataset.fingerprint(), "train_data": dataset.without(others).fingerprint()}


def resumable_run(
    name: str | Path,
    parent: Path,
    bundle: str,
    new: Mapping[str, Any],
    data: Mapping[str, str],
    config: str = "train",
    newest: Callable[[Path], Path] = Path,
    harmless: Collection[str] = (),
) -> Path:
    """Return the run that was asked for by name, if it can be resumed with this config and this data.

    Args:
        name: its folder, its name, or a part of its name.
        parent: the folder of the runs of this bundle.
        bundle: the bundle's name.
        new: the effective config.
        data: see `data_fingerprints`. Changed training data is refused, another change of the data set is logged.
        config: the config's name.
        newest: brings a run here from a backup that got further, and returns its folder.
        harmless: see `result_config`.

    Raises:
        ConfigError: a changed setting, or changed data, with which it cannot be resumed.
        RunError: there is no such run, it is one of another bundle, or nothing is left to do.
    """
    label = f"resume={name}"
    folder = find_run(name, parent).resolve()
    record = read_record(folder)
    if record.get("bundle") != bundle:
        raise RunError(label, f"this is a run of {record.get('bundle')}, not of {bundle}")
    folder = newest(folder)
    record = read_record(folder)
    changes = compare_configs(read_run_config(folder, config), new, harmless)
    if changes.unsafe:
        problem = f"these settings change what it has computed so far: {describe_changes(changes.unsafe)}"
        made_from_length = _made_from_length(json_config(new))
        if made_from_length and any(path in _LENGTH_PATHS for path in changes.unsafe):
            problem += f" ({', '.join(made_from_length)} is made from max_epochs)"
        raise ConfigError(label, problem, fix=_FIX)
    if "train_data" in record and record["train_data"] != data["train_data"]:
        raise ConfigError(label, "files or cases of the training data have changed since it began", fix=_FIX)
    if record.get("data", data["data"]) != data["data"]:
        logger.warning("The validation or test data has changed since this run began; its training data has not")
    if record.get("state") == FINISHED and not changes.essential:
        problem = f"it finished epoch {record.get('epoch')}, so nothing is left to do"
        raise RunError(label, problem, fix="Raise max_epochs to train it further.")
    return folder


def log_changes(folder: Path, new: Mapping[str, Any], config: str = "train") -> None:
    """Log what changed since a run that is resumed began; nothing where a kill left it without its config."""
    with contextlib.suppress(RunError):
        changed = compare_configs(read_run_config(folder, config), new).changed
        if changed:
            logger.info("Changed since it began: %s", describe_changes(changed))


def log_similar_runs(
    parent: Path, new: Mapping[str, Any], data: Mapping[str, str], config: str = "train", harmless: Collection[str] = ()
) -> None:
    """Log that the latest run did not finish and differs in few settings from the one that starts.

    An older run, or one before the latest, is no news.

    Args:
        parent: the folder of the runs of this bundle.
        new: the effective config of the run that starts.
        data: see `data_fingerprints`.
        config: the config's name.
        harmless: see `result_config`.
    """
    with contextlib.suppress(RunError, IndexError):
        folder = [folder for folder in find_runs(parent) if folder.parent == parent][-1]
        record = read_record(folder)
        age = time.time() - (folder / RECORD).stat().st_mtime
        if record.get("state") == FINISHED or age > _RECENT:
            return
        changes = compare_configs(read_run_config(folder, config), new, harmless).essential
        if record.get("data", data["data"]) != data["data"]:
            changes["data set"] = [record["data"], data["data"]]
        if 0 < len(changes) <= _SIMILAR:
            text = "%s is %s and differs in: %s; this starts a new run"
            logger.info(text, folder.name, state_of(record), describe_changes(changes))


def is_run(root: Path) -> bool:
    """Return True if the folder of a bundle is that of a run."""
    return (root / RECORD).is_file()


def is_unfinished(root: Path, identity: str) -> bool:
    """Return True if the run in this folder has this identity and has not finished."""
    record = read_record(root)
    return record.get("identity") == identity and record.get("state") != FINISHED
