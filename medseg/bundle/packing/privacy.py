"""What of a config is nobody else's business, or means nothing elsewhere: places, names of cases, trackers."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medseg.errors import ConfigError

_PLACE = re.compile(r"^(?:~|[A-Za-z]:)?[/\\]|^\w[\w+.-]*://")
_SPLIT, _MONITOR = "split", "monitor"
_KEPT_OF_MONITOR = {"backend", "images", "mode", "dashboard"}


def without_places(config: Mapping[str, Any], source: Path) -> tuple[dict[str, Any], list[str]]:
    """A config less what says where things lie on this machine, which cases there are, and who is told of runs.

    Such values become null, which is what recipes have there. What an expression puts together from the bundle's own
    place stays.

    Args:
        config: it.
        source: the file it was read from, for the message.

    Returns:
        The config, and the paths of the keys that became null.

    Raises:
        ConfigError: an expression that names a place on this machine: nobody can say what it should be elsewhere.
    """
    taken: list[str] = []
    cleaned = {key: _value(value, str(key), taken, source) for key, value in config.items()}
    for key, value in cleaned.items():
        path = key.replace("::", "#").removeprefix("+")  # overlays write the whole path as the key
        part, _, below = path.partition("#")
        if part == _SPLIT:
            cleaned[key] = _without_cases(value, path, taken)
        elif part == _MONITOR and isinstance(value, Mapping):
            cleaned[key] = {name: _nothing(one, name, f"{path}#{name}", taken) for name, one in value.items()}
        elif part == _MONITOR and below:
            cleaned[key] = _nothing(value, below, path, taken)
    return cleaned, sorted(set(taken))


def _without_cases(value: Any, path: str, taken: list[str]) -> Any:
    if isinstance(value, Mapping):
        return {side: _without_cases(ids, f"{path}#{side}", taken) for side, ids in value.items()}
    if not value or isinstance(value, (bool, int, float)):
        return None if isinstance(value, list) else value
    taken.append(path)
    return None


def _nothing(value: Any, name: str, path: str, taken: list[str]) -> Any:
    """What a tracker is told less what names people, projects and servers."""
    if name in _KEPT_OF_MONITOR or not value:
        return value
    taken.append(path)
    return [] if isinstance(value, list) else None


def _value(value: Any, path: str, taken: list[str], source: Path) -> Any:
    if isinstance(value, Mapping):
        return {key: _value(one, f"{path}#{key}", taken, source) for key, one in value.items()}
    if isinstance(value, list):
        return [_value(one, path, taken, source) for one in value]
    if not isinstance(value, str):
        return value
    if value.startswith("$"):
        named = [text for text in _texts(value[1:]) if _is_here(text)]
        if named:
            raise ConfigError(
                f"{source}, {path}",
                "must not name a place on this machine in a bundle that is shared",
                f"'{named[0]}'",
                "Write it relative to @bundle_root.",
            )
        return value
    if _PLACE.match(value) and not value.startswith(("@", "%")):
        taken.append(path)
        return None
    return value


def _texts(expression: str) -> list[str]:
    """The pieces of text in an expression."""
    try:
        tree = ast.parse(re.sub(r"[@%][\w#:]*", "_", expression), mode="eval")
    except (SyntaxError, ValueError):  # an import, or one that MONAI alone can read
        return [one or other for one, other in re.findall(r"'([^']*)'|\"([^\"]*)\"", expression)]
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def _is_here(text: str) -> bool:
    """Whether a text is a path of this machine, not the end of one: `/models/model.pt` is added to a folder."""
    if not re.match(r"~|[A-Za-z]:[/\\]|/[^/]+/", text):
        return False
    if re.match(r"~|[A-Za-z]:[/\\]", text):
        return True
    top = Path("/", Path(text).parts[1])
    return top.is_dir() or text.startswith(("/home/", "/Users/", "/mnt/"))
