"""Lay overlays and overrides over a config, as MONAI does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.config.keys import meant_key
from medseg.config.paths import walk
from medseg.config.references import key_path
from medseg.errors import ConfigError, nearest, printable

LARGEST_CONFIG = 8 * 2**20  # bytes
_LARGEST_PATHS, _DEEPEST = 16 * 2**20, 100  # letters of the paths of all entries; levels


def read_config(file: str | Path) -> dict[str, Any]:
    """Read a config or an overlay.

    Raises:
        ConfigError: see `parse_config`.
    """
    try:
        return parse_config(Path(file).read_bytes(), file)
    except OSError as error:
        raise ConfigError(file, "this file cannot be read", error.strerror or str(error)) from error


def parse_config(data: bytes, file: str | Path) -> dict[str, Any]:
    """Return a config from its bytes.

    Raises:
        ConfigError: they are no JSON object in UTF-8, or too deep or too long for a config, or a key stands twice in
            one object, of which readers take different ones.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) != len(pairs):
            repeated = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise ConfigError(
                file, f"the key '{printable(repeated, 80)}' stands twice in one object", fix="Remove one."
            )
        return content

    if len(data) > LARGEST_CONFIG:
        raise ConfigError(file, "this is too long for a config", f"{len(data)} bytes")
    try:
        content = json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except RecursionError as error:
        raise ConfigError(file, "this JSON is too deep for a config") from error
    except ValueError as error:
        raise ConfigError(file, "this is no readable JSON file", str(error)) from error
    _require_modest(content, file)
    if not isinstance(content, dict):
        raise ConfigError(file, "a config must be a JSON object", f"got a {type(content).__name__}")
    return content


def _require_modest(content: Any, file: str | Path) -> None:
    """Refuse a config of few bytes whose paths take much memory: each entry repeats the keys above it."""
    waiting, letters = [(content, 0, 0)], 0
    while waiting:
        node, length, depth = waiting.pop()
        letters += length
        if letters > _LARGEST_PATHS or depth > _DEEPEST:
            raise ConfigError(file, "this JSON is too deep for a config, or its keys are too long")
        if isinstance(node, dict):
            waiting.extend((entry, length + len(key) + 1, depth + 1) for key, entry in node.items())
        elif isinstance(node, list):
            waiting.extend((entry, length + 8, depth + 1) for entry in node)


def merge(files: Sequence[str | Path], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config that MONAI makes of these files and overrides.

    A key is a path, `train#trainer#max_epochs`, and replaces what is there. A `+` before it adds to the dictionary or
    the list that is there.

    Args:
        files: the config and its overlays; later ones win.
        overrides: values by path; they win over the files.

    Raises:
        ConfigError: a file is missing or no JSON, a path leads into nothing, or `+` meets another kind of value.
    """
    config: dict[str, Any] = {}
    for file in files:
        before = {path for path, _ in walk(config, into_lists=False)}
        for key, value in read_config(file).items():
            holder, leaf = _holder(config, key_path(key.removeprefix("+")), before)
            if key.startswith("+") and leaf in holder:
                _extend(holder[leaf], value, f"{file}, {key}")
            else:
                holder[leaf] = value
    existing = {path for path, _ in walk(config, into_lists=False)}
    for key, value in overrides.items():
        holder, leaf = _holder(config, key_path(key), existing)
        holder[leaf] = value
    return config


def _holder(config: dict[str, Any], path: str, existing: set[str]) -> tuple[dict[str, Any], str]:
    """Return the dictionary that a path leads into, and its last part; lists are not entered: nothing goes by position.

    Raises:
        ConfigError: there is no such dictionary.
    """
    *parents, leaf = path.split("#")
    for part in parents:
        value = config.get(part)
        if not isinstance(value, dict):
            raise unknown_key(path, existing)
        config = value
    return config, leaf


def _extend(target: Any, value: Any, location: str) -> None:
    if isinstance(target, dict) and isinstance(value, dict):
        target.update(value)
    elif isinstance(target, list) and isinstance(value, list):
        target.extend(value)
    else:
        kinds = f"got a {type(value).__name__} for a {type(target).__name__}"
        raise ConfigError(location, "'+' adds a dictionary to a dictionary or a list to a list", kinds)


def unknown_key(path: str, existing: set[str], problem: str = "") -> ConfigError:
    """Return the error for a key that means nothing, with the nearest one that does.

    Args:
        path: the key.
        existing: the paths that exist.
        problem: why it means nothing.
    """
    plain = path.replace(".", "#")
    by_leaf = {candidate.rpartition("#")[2]: candidate for candidate in sorted(existing, key=len, reverse=True)}
    meant = meant_key(plain, existing)
    similar = [meant] if meant else nearest(plain, existing)
    similar = similar or [by_leaf[leaf] for leaf in nearest(plain.rpartition("#")[2], by_leaf)]
    fix = f"Did you mean '{similar[0]}'?" if similar else "Remove it, or refer to it with '@'."
    problem = problem or "the bundle has no such key, and nothing refers to it"
    return ConfigError(f"config key '{path}'", problem, fix=fix)
