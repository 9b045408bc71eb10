"""The entries of a config by their path, `train#handlers#0`, and what references on the way lead to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medseg.config.references import is_component, references


def walk(config: Any, path: str = "", into_lists: bool = True) -> Iterator[tuple[str, Any]]:
    """Yield every entry of nested dictionaries and lists with its path, each before what is in it.

    Args:
        config: a config or a part of one.
        path: the path of that part.
        into_lists: False to leave out the entries of lists.

    Example:
        >>> list(walk({"a": [1, {"b": 2}]}))
        [('a', [1, {'b': 2}]), ('a#0', 1), ('a#1', {'b': 2}), ('a#1#b', 2)]
    """
    if isinstance(config, Mapping):
        pairs: Any = config.items()
    else:
        pairs = enumerate(config) if into_lists and isinstance(config, list) else ()
    for key, value in pairs:
        below = f"{path}#{key}" if path else str(key)
        yield below, value
        yield from walk(value, below, into_lists)


def at(config: Any, path: str) -> Any:
    """Return the entry at a path, None where nothing is.

    Example:
        >>> at({"a": [1, {"b": 2}]}, "a#1#b")
        2
    """
    for part in path.split("#") if path else ():
        if isinstance(config, Mapping):
            config = config.get(part)
        elif isinstance(config, list) and part.isdecimal() and int(part) < len(config):
            config = config[int(part)]
        else:
            return None
    return config


def has(config: Any, path: str) -> bool:
    """Return True if there is an entry at a path, null included.

    Example:
        >>> has({"a": [None]}, "a#0"), has({"a": [None]}, "a#1")
        (True, False)
    """
    parent, _, leaf = path.rpartition("#")
    holder = at(config, parent)
    if isinstance(holder, Mapping):
        return leaf in holder
    return isinstance(holder, list) and leaf.isdecimal() and int(leaf) < len(holder)


def resolved_path(config: Any, path: str) -> str:
    """Return a path with the references on its way followed.

    Example:
        >>> resolved_path({"a": "@c", "c": {"b": 1}}, "a#b")
        'c#b'
    """
    for _ in range(20):  # references that go in a circle end
        parts = path.split("#")
        for length in range(1, len(parts) + 1):
            value = at(config, "#".join(parts[:length]))
            target = references(value) if isinstance(value, str) and value.startswith("@") else []
            if target:
                path = "#".join([target[0], *parts[length:]])
                break
        else:
            return path
    return path


def closure(config: Any, value: Any) -> set[str]:
    """Return every path that a value refers to, what these refer to, and so on, as the paths are written.

    Example:
        >>> sorted(closure({"x": "$@y + 1", "y": {"n": "@z"}, "z": 1}, "@x"))
        ['x', 'y', 'z']
    """
    paths: set[str] = set()
    waiting = references(value)
    while waiting:
        path = waiting.pop()
        if path in paths:
            continue
        paths.add(path)
        waiting += references(at(config, resolved_path(config, path)))
        parts = path.split("#")
        parents = ["#".join(parts[:length]) for length in range(1, len(parts))]
        waiting += [parent for parent in parents if isinstance(at(config, parent), str)]
    return paths


def components(config: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every component, a dictionary with a `_target_`, with its path."""
    for path, value in walk(config):
        if is_component(value):
            yield path, value
