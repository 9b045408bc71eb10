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
_KEPT_OF_MONITOR = {"backend", "images", "mode", "dashboard"}  # the rest names people, projects and servers


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
    split = cleaned.get(_SPLIT)
    if isinstance(split, Mapping):
        cleaned[_SPLIT] = dict.fromkeys(split)
        taken += [f"{_SPLIT}#{side}" for side, ids in split.items() if ids]
    elif isinstance(split, list):
        cleaned[_SPLIT] = None
        taken.append(_SPLIT)
    monitor = cleaned.get(_MONITOR)
    if isinstance(monitor, Mapping):
        said = {key: value for key, value in monitor.items() if key not in _KEPT_OF_MONITOR and value}
        cleaned[_MONITOR] = {**monitor, **{key: [] if isinstance(said[key], list) else None for key in said}}
        taken += [f"{_MONITOR}#{key}" for key in said]
    return cleaned, sorted(set(taken))


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
