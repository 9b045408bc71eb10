"""The typo guard: what an overlay or an override adds to a config must mean something to somebody.

MONAI takes any key: `--lrr 0.5` runs with the old learning rate. Here a key that the recipe does not have is
accepted only if something refers to it, or the component it is given to takes an argument of that name.
"""

from __future__ import annotations

import inspect
import json
import pydoc
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ComponentLocator, ConfigComponent, ConfigParser

from medseg.errors import ConfigError, nearest

# MONAI puts this one in when it is asked to track a run.
TRACKING = "save_execute_config"
SPECIAL = {"_target_", "_disabled_", "_requires_", "_desc_", "_mode_"}
_REFERENCE = re.compile(r"[@%]((?:\w|#|::)+)")  # a reference, or a macro that copies


def key_path(key: str) -> str:
    """A config key with `#` between its parts, as people write it.

    >>> key_path("train::trainer::max_epochs")
    'train#trainer#max_epochs'
    """
    return key.replace("::", "#")


def paths(config: Any, prefix: str = "") -> Iterator[str]:
    """The path of every entry of nested dictionaries; lists are not entered, nothing is addressed by position."""
    if isinstance(config, Mapping):
        for key, value in config.items():
            path = f"{prefix}#{key}" if prefix else str(key)
            yield path
            yield from paths(value, path)


def references(config: Any) -> set[str]:
    """Every path that some string of the config refers to with `@`, or copies with `%`."""
    if isinstance(config, str):
        return {key_path(found) for found in _REFERENCE.findall(config)}
    values = config.values() if isinstance(config, Mapping) else config if isinstance(config, (list, tuple)) else ()
    return set().union(*(references(value) for value in values))


def _arguments(component: Mapping[str, Any]) -> set[str] | None:
    """The names a component's `_target_` takes; None where it takes any, or cannot be looked up."""
    try:
        target = pydoc.locate(str(ConfigComponent(config=component, id="", locator=_LOCATOR).resolve_module_name()))
        parameters = inspect.signature(target).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError, pydoc.ErrorDuringImport):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name for parameter in parameters}


_LOCATOR = ComponentLocator()


def check(recipe: Mapping[str, Any], config: Mapping[str, Any], keys: Sequence[str] = ()) -> None:
    """See that everything in `config` that `recipe` does not have means something.

    Args:
        recipe: the config as it stands in the bundle.
        config: the same with overlays and overrides.
        keys: keys that were overridden; each is checked for its place first.

    Raises:
        ConfigError: a key that nothing uses; names the nearest that exists.
    """
    known, used = set(paths(recipe)), references(config)
    for key in keys:
        if key_path(key) not in set(paths(config)):
            raise _unknown(key_path(key), known)
    accepted: set[str] = set()
    for path in paths(config):
        parent, _, leaf = path.rpartition("#")
        if path in known or path == TRACKING or leaf in SPECIAL or path.split("#")[0] == ConfigParser.meta_key:
            continue
        if any(path.startswith(f"{above}#") for above in accepted):
            continue  # the contents of something that was accepted as a whole
        if parent in known and not isinstance(_at(recipe, parent), Mapping):
            accepted.add(parent)  # a value of another kind, such as a mapping where a name may stand
            continue
        holder = _at(config, parent)
        if isinstance(holder, Mapping) and "_target_" in holder:
            names = _arguments(holder)
            if names is None or leaf in names:
                accepted.add(path)
                continue
            raise _unknown(
                path, known | {f"{parent}#{name}" for name in names}, f"{holder['_target_']} takes no '{leaf}'"
            )
        if any(path == used_path or used_path.startswith(f"{path}#") for used_path in used):
            accepted.add(path)
            continue
        raise _unknown(path, known)


def _at(config: Any, path: str) -> Any:
    for part in path.split("#") if path else ():
        config = config.get(part) if isinstance(config, Mapping) else None
    return config


def _unknown(path: str, known: set[str], why: str = "nothing that refers to it") -> ConfigError:
    leaf = path.replace(".", "#").rpartition("#")[2]
    by_leaf = {candidate.rpartition("#")[2]: candidate for candidate in sorted(known, key=len, reverse=True)}
    found = nearest(path.replace(".", "#"), known) or [by_leaf[name] for name in nearest(leaf, by_leaf)]
    fix = f"Did you mean '{found[0]}'?" if found else "Remove it, or refer to it with '@'."
    return ConfigError(f"config key '{path}'", "must be one that the bundle has or that something uses", why, fix)


def merge(files: Sequence[Path], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The config that MONAI makes of these files and overrides.

    Raises:
        ConfigError: a file that is missing or no JSON, or an override whose place does not exist.
    """
    for file in files:
        try:
            json.loads(Path(file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(file, "must be a JSON file", str(error)) from error
    known: set[str] = set()
    parser = ConfigParser()
    for number, file in enumerate(files):
        for key, value in json.loads(Path(file).read_text(encoding="utf-8")).items():
            plain = key.removeprefix("+")
            if number and "#" in key_path(plain) and not _has_place(parser, plain):
                raise _unknown(key_path(plain), known)
            if key.startswith("+") and plain in parser:
                _extend(parser, plain, value, file)
            else:
                parser[plain] = value
        known = set(paths(parser.get()))
    for key, value in overrides.items():
        if not _has_place(parser, key):
            raise _unknown(key_path(key), known)
        parser[key] = value
    return dict(parser.get())


def _has_place(parser: ConfigParser, key: str) -> bool:
    parent = key_path(key).rpartition("#")[0]
    return not parent or isinstance(_at(parser.get(), parent), Mapping)


def _extend(parser: ConfigParser, key: str, value: Any, file: Path) -> None:
    there = parser[key]
    if isinstance(there, dict) and isinstance(value, dict):
        there.update(value)
    elif isinstance(there, list) and isinstance(value, list):
        there.extend(value)
    else:
        raise ConfigError(f"{file}, '+{key}'", "must add a dictionary to one or a list to one", type(value).__name__)
