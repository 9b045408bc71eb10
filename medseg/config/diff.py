"""Compare configs."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

ABSENT = "(not there)"


def differences(*configs: Mapping[str, Any], ignore: Collection[str] = ()) -> dict[str, list[Any]]:
    """Return the values that differ by their path, one value for each config; `ABSENT` where a config has none.

    Dictionaries are compared key by key, but a component of another class is one difference, and so is a list.
    `@a::b` and `@a#b` are the same: MONAI writes the first when it reads the second.

    Args:
        configs: two or more.
        ignore: top-level keys to leave out.

    Example:
        >>> differences({"lr": 1, "loss": {"batch": True}}, {"lr": 1, "loss": {"batch": False, "gamma": 2}})
        {'loss#batch': [True, False], 'loss#gamma': ['(not there)', 2]}
    """
    return dict(_compare([{key: config[key] for key in config if key not in ignore} for config in configs], ""))


def _compare(configs: list[Any], prefix: str) -> Iterator[tuple[str, list[Any]]]:
    for key in dict.fromkeys(key for config in configs for key in config):
        path = f"{prefix}#{key}" if prefix else str(key)
        values = [config.get(key, ABSENT) for config in configs]
        written = [_written(value) for value in values]
        nested = all(isinstance(value, Mapping) for value in values)
        if nested and all(value.get("_target_") == written[0].get("_target_") for value in written):
            yield from _compare(values, path)
        elif any(value != written[0] for value in written):
            yield path, values


def _written(value: Any) -> Any:
    """Return a value with its references in one spelling."""
    if isinstance(value, str):
        return value.replace("::", "#") if value[:1] in ("@", "$", "%") else value
    if isinstance(value, list):
        return [_written(entry) for entry in value]
    return {key: _written(entry) for key, entry in value.items()} if isinstance(value, Mapping) else value
