"""What MONAI's configs are made of: entries with their paths, references, macros, expressions. Nothing is evaluated."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

# As MONAI's ReferenceResolver: within an expression anywhere, elsewhere only as the whole string.
_REFERENCE = re.compile(r"@(?:\w*)(?:(?:::|#)\w*)*")
_STAND_IN = "_reference_{}_"


def key_path(key: str) -> str:
    """A config key with `#` between its parts.

    >>> key_path("train::trainer::amp")
    'train#trainer#amp'
    """
    return key.replace("::", "#")


def walk(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every entry of nested dictionaries and lists with its path, holders before what they hold.

    >>> list(walk({"a": [1, {"b": 2}]}))
    [('a', [1, {'b': 2}]), ('a#0', 1), ('a#1', {'b': 2}), ('a#1#b', 2)]
    """
    pairs = config.items() if isinstance(config, Mapping) else enumerate(config) if isinstance(config, list) else ()
    for key, value in pairs:
        below = f"{path}#{key}" if path else str(key)
        yield below, value
        yield from walk(value, below)


def at(config: Any, path: str) -> Any:
    """The entry at a path; None where there is none.

    >>> at({"a": [1, {"b": 2}]}, "a#1#b")
    2
    """
    for part in path.split("#") if path else ():
        if isinstance(config, Mapping):
            config = config.get(part)
        elif isinstance(config, list) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        else:
            return None
    return config


def has(config: Any, path: str) -> bool:
    """Whether there is an entry at a path, be it null."""
    holder, _, leaf = path.rpartition("#")
    found = at(config, holder)
    if isinstance(found, Mapping):
        return leaf in found
    return isinstance(found, list) and leaf.isdigit() and int(leaf) < len(found)


def is_expression(value: Any) -> bool:
    """Whether it is a string that MONAI evaluates."""
    return isinstance(value, str) and value.startswith("$")


def is_component(value: Any) -> bool:
    """Whether it is a dictionary that MONAI makes an object of."""
    return isinstance(value, Mapping) and "_target_" in value


def references(value: Any) -> list[str]:
    """The paths that a string refers to with `@`, in its order; of what is no string, all of its entries' paths.

    >>> references("$@train#a + @b"), references("@b"), references("me@home")
    (['train#a', 'b'], ['b'], [])
    """
    if isinstance(value, str):
        found = _REFERENCE.findall(value)
        return [key_path(one[1:]) for one in found if is_expression(value) or one == value]
    return [one for _, entry in walk(value) if isinstance(entry, str) for one in references(entry)]


def macro(value: Any) -> tuple[str, str] | None:
    """The file and the path that a string copies from; None for one that copies nothing.

    >>> macro("%train#handlers"), macro("%other.json::net"), macro("100 %")
    (('', 'train#handlers'), ('other.json', 'net'), None)
    """
    if not isinstance(value, str) or not value.startswith("%"):
        return None
    found = re.fullmatch(r"%(?:(.*\.(?:json|ya?ml))(?=::|#|$))?(?:::|#)?(.*)", value, re.IGNORECASE | re.DOTALL)
    return None if found is None else (found[1] or "", key_path(found[2]))


def resolved_path(config: Any, path: str) -> str:
    """A path with the references on its way followed: `a#b` where `a` is `"@c"` is `c#b`."""
    for _ in range(20):
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


def parse(text: str) -> tuple[ast.AST | None, dict[str, str]]:
    """The syntax tree of an expression, without its `$`, and by stand-in name the paths that it refers to.

    None where it is no Python.

    >>> tree, names = parse("$@a#b + 1")
    >>> ast.unparse(tree), names
    ('_reference_0_ + 1', {'_reference_0_': 'a#b'})
    """
    names: dict[str, str] = {}

    def stand_in(found: re.Match[str]) -> str:
        name = _STAND_IN.format(len(names))
        names[name] = key_path(found[0][1:])
        return name

    plain = _REFERENCE.sub(stand_in, text.removeprefix("$")).strip()
    try:
        tree = ast.parse(plain)
    except (SyntaxError, ValueError, RecursionError):
        return None, names
    if len(tree.body) == 1 and isinstance(tree.body[0], ast.Import | ast.ImportFrom):
        return tree.body[0], names
    try:
        return ast.parse(plain, mode="eval").body, names
    except SyntaxError:
        return None, names


def closure(config: Any, value: Any) -> set[str]:
    """Every path that a value refers to, what these refer to, and so on; paths as they are written."""
    seen: set[str] = set()
    waiting = references(value)
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += references(at(config, resolved_path(config, path)))
            waiting += [name for name in _holders(path) if isinstance(at(config, name), str)]
    return seen


def _holders(path: str) -> list[str]:
    parts = path.split("#")
    return ["#".join(parts[:length]) for length in range(1, len(parts))]


def nested_targets(config: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every component with its path."""
    for path, value in walk(config):
        if is_component(value):
            yield path, value
