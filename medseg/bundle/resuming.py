"""Which settings make a run what it is, and with which changed ones it may go on."""

from __future__ import annotations

import contextlib
import json
import logging
import pydoc
from collections.abc import Callable, Mapping, Sequence
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

# What says where things lie or how this machine computes, not what is computed.
PLACES = (
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
# What a run holds in memory, at the places where MONAI has it; the same is computed.
_MEMORY = (
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
# When a run validates and when it ends; what it has computed so far stays right.
_MAY_CHANGE = ("val_interval", "train#handler_set#early_stopping", "train#handler_set#validation#interval")
_LENGTH = ("max_epochs", "train#trainer#max_epochs")
_SAID = 5  # so many differences are still the same work with something changed


def essence(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config less everything that does not change what is computed.

    Left out are `PLACES`, handlers that say `affects_result = False` (they log, draw or save), what a run holds in
    memory, and keys that nothing but these refers to, or nothing at all. `run_name` stays: another name is how one
    asks for another run.

    Args:
        config: an effective config.
    """
    kept = {key: _without(value, key, _MEMORY) for key, value in config.items() if key not in PLACES}
    for engine in ("train", "validate"):
        part = kept.get(engine)
        if not isinstance(part, Mapping):
            continue
        named = part.get("handler_set", {})
        changes = {name: handler for name, handler in named.items() if _affects_result(name, handler, config)}
        if isinstance(changes.get("more"), Mapping):
            more = changes["more"].items()
            changes["more"] = {name: handler for name, handler in more if _affects_result(name, handler, config)}
        handlers = [handler for handler in part.get("handlers", []) if _affects_result("", handler, config)]
        kept[engine] = {**part, "handler_set": changes, "handlers": handlers}
    while True:
        used, left_used = _roots(config), _roots(kept)
        unused = [key for key in kept if key not in left_used and (key in used or _scalar(kept[key]))]
        if not unused:
            return kept
        kept = {key: value for key, value in kept.items() if key not in unused}


def _without(value: Any, path: str, paths: Sequence[str]) -> Any:
    """Return a config entry without what lies at these paths in it."""
    if not isinstance(value, Mapping):
        return value
    entries = {key: f"{path}#{key}" for key in value}
    return {key: _without(value[key], entry, paths) for key, entry in entries.items() if entry not in paths}


def _affects_result(name: str, handler: Any, config: Mapping[str, Any]) -> bool:
    """Return whether a run computes something else with a handler: the class says so, True where it says nothing.

    Args:
        name: of a default handler, where the config has only its settings.
        handler: its settings, a component, or a string such as `@tracking` that refers to one.
        config: what it refers to.
    """
    references = set[str]()
    while isinstance(handler, str) and handler[:1] in ("@", "%") and handler not in references:
        references.add(handler)
        handler = at(config, key_path(handler[1:]))
    target = handler.get(TARGET) if isinstance(handler, Mapping) else None
    try:
        kind = handler_class(name) if target is None else pydoc.locate(str(target))
    except pydoc.ErrorDuringImport:
        return True
    return getattr(kind, "affects_result", True) is not False


def _scalar(value: Any) -> bool:
    """Whether a value is no list and no dictionary: these may be run by their name, such as `training`."""
    return not isinstance(value, (Mapping, list))


def _roots(config: Mapping[str, Any]) -> set[str]:
    """The top-level keys that something in the config refers to, itself aside."""
    found = set[str]()
    for key, value in config.items():
        found |= {top_key(path) for path in used_paths(value)} - {key}
    return found


Change = Sequence[Any]  # the value before and now


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as it stands in the file of a run: without metadata, and only what JSON knows."""
    content = {key: value for key, value in config.items() if key != monai.bundle.ConfigParser.meta_key}
    return dict(json.loads(json.dumps(content, default=repr)))


@dataclass(frozen=True)
class Comparison:
    """What changed since a run began: all of it, what changes what is computed, and what of that is not safe."""

    changed: dict[str, Change]
    essential: dict[str, Change]
    unsafe: dict[str, Change]


def compare(old: Mapping[str, Any], new: Mapping[str, Any]) -> Comparison:
    """Compare a run's config with the one that it shall go on with.

    Safe are a changed `val_interval` or `early_stopping`, what takes less memory for the same numbers, and
    `max_epochs` raised where nothing else is made from it: a schedule of the learning rate that is would have been
    another one from the start.

    Args:
        old: the effective config that the run began with.
        new: the one that is asked for.
    """
    old, new = plain(old), plain(new)
    essential = differences(essence(old), essence(new))
    safe = {path for path in essential if any(path == one or path.startswith(f"{one}#") for one in _MAY_CHANGE)}
    if not _made_from_length(new) and _longer(_length(old), _length(new)):
        safe |= set(_LENGTH)
    unsafe = {path: pair for path, pair in essential.items() if path not in safe}
    silent = {"bundle_root", "output_dir", "resume", TRACKING}
    changed = {path: pair for path, pair in differences(old, new).items() if path.split("#")[0] not in silent}
    return Comparison(changed, essential, unsafe)


def _length(config: Mapping[str, Any]) -> Any:
    value = config.get("train", {}).get("trainer", {}).get("max_epochs", "@max_epochs")
    return config.get("max_epochs") if value == "@max_epochs" else value


def _longer(old: Any, new: Any) -> bool:
    return isinstance(old, int) and isinstance(new, int) and new > old


def _made_from_length(config: Mapping[str, Any]) -> list[str]:
    """What else than the trainer is made from the number of epochs."""
    return [
        path
        for path, value in walk(essence(config), into_lists=False)
        if path not in _LENGTH and not isinstance(value, Mapping) and any(one in _LENGTH for one in used_paths(value))
    ]


def listed(changes: Mapping[str, Change]) -> str:
    """Changes as people read them.

    >>> listed({"lr": (0.001, 0.002), "clip_norm": (None, 12.0)})
    'lr 0.001 -> 0.002, clip_norm null -> 12.0'
    """

    def short(value: Any) -> str:
        text = value if isinstance(value, str) else json.dumps(value, default=repr)
        return text if len(text) <= 80 else text[:77] + "..."

    return ", ".join(f"{path} {short(old)} -> {short(new)}" for path, (old, new) in changes.items())


def config_of(folder: Path, config: str = "train") -> dict[str, Any]:
    """The effective config in the folder of a run.

    Raises:
        RunError: it cannot be read.
    """
    path = folder / "configs" / f"{config}.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise RunError(path, "must be the config of a run", str(error), "Start a new run with --fresh.") from error


def data_of(dataset: DatasetIndex) -> dict[str, str]:
    """The fingerprints that a record holds: of the whole set as `data`, of what is trained on as `train_data`."""
    others = [case.id for case in dataset.cases if case.id not in dataset.split.train]
    return {"data": dataset.fingerprint(), "train_data": dataset.without(others).fingerprint()}


def chosen_run(
    which: str | Path,
    parent: Path,
    bundle: str,
    new: Mapping[str, Any],
    data: Mapping[str, str],
    config: str = "train",
    newest: Callable[[Path], Path] = Path,
) -> Path:
    """The run that was asked for by name, if it may go on with this config and this data.

    Args:
        which: its folder, or its name or a part of it.
        parent: where runs of this bundle lie.
        bundle: the bundle's name.
        new: the effective config.
        data: see `data_of`. Changed training data is refused, other changes of the data set are said.
        config: which config it is.
        newest: brings a run of this bundle here from where it got further, and gives its folder.

    Raises:
        ConfigError: a changed setting with which it may not go on.
        RunError: no such run, one of another bundle, or nothing left to do.
    """
    folder = find_run(which, parent).resolve()
    record, again = read_record(folder), "Give the settings it began with, or start a new run with --fresh."
    if record.get("bundle") != bundle:
        raise RunError(f"resume={which}", f"must be a run of {bundle}", f"one of {record.get('bundle')}")
    folder = newest(folder)
    record = read_record(folder)
    found = compare(config_of(folder, config), new)
    if found.unsafe:
        because = ""
        if any(path in _LENGTH for path in found.unsafe) and _made_from_length(plain(new)):
            because = f" ({', '.join(_made_from_length(plain(new)))} is made from max_epochs)"
        rule = "may go on only with settings that do not change what it has computed so far"
        raise ConfigError(f"resume={which}", rule, listed(found.unsafe) + because, again)
    if "train_data" in record and record["train_data"] != data["train_data"]:
        raise ConfigError(
            f"resume={which}", "may go on only with the same training data", "changed files or cases", again
        )
    if record.get("data", data["data"]) != data["data"]:
        logger.warning("The data to validate or test on has changed since this run began; its training data has not")
    if record.get("state") == FINISHED and not found.essential:
        rule, done = "must have something left to do", f"a run that finished epoch {record.get('epoch')}"
        raise RunError(f"resume={which}", rule, done, "Raise max_epochs to train it further.")
    return folder


def say_what_changed(folder: Path, new: Mapping[str, Any], config: str = "train") -> None:
    """Log what is not as it was when a run that goes on began; nothing where a kill left it without its config."""
    with contextlib.suppress(RunError):
        found = compare(config_of(folder, config), new).changed
        if found:
            logger.info("Changed since it began: %s", listed(found))


def say_what_is_near(parent: Path, new: Mapping[str, Any], data: Mapping[str, str], config: str = "train") -> None:
    """Log the unfinished run that is most like the one that starts, where few settings differ.

    Args:
        parent: where runs of this bundle lie.
        new: the effective config of the run that starts.
        data: see `data_of`.
        config: which config it is.
    """
    near: list[tuple[int, str, dict[str, Change], str]] = []
    for folder in reversed(find_runs(parent) if parent.is_dir() else []):
        try:
            record = read_record(folder)
            if folder.parent != parent or record.get("state") == FINISHED:
                continue
            changes = compare(config_of(folder, config), new).essential
        except RunError:
            continue
        if record.get("data", data["data"]) != data["data"]:
            changes["data set"] = (record["data"], data["data"])
        if 0 < len(changes) <= _SAID:
            near.append((len(changes), folder.name, changes, state_of(record)))
    if near:
        _, name, changes, state = min(near, key=lambda one: one[0])
        logger.info("%s is %s and differs in: %s; this starts a new run", name, state, listed(changes))


def is_run(root: Path) -> bool:
    """Whether the bundle in this folder is a run's own."""
    return (root / RECORD).is_file()


def unfinished_own(root: Path, identity: str) -> Path | None:
    """The run whose own folder is the bundle, if it has this identity and did not finish."""
    record = read_record(root)
    return root if record.get("identity") == identity and record.get("state") != FINISHED else None
