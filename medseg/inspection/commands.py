"""What a recorded command would do when it is given again: the bundles, overlays and overrides that it names.

Its words are read by several readers: click and JSON, or Fire, which has a grammar of its own. What they could take for
different things is refused.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medseg.inspection.references import is_plain, normal
from medseg.search_path import search_path

_FILES = {"config_file": ".json", "meta_file": ".json", "tracking": ".json", "logging_file": ".conf"}
_REFUSED = ("args_file", "properties_path", "workflow_name", "workflow_type", "workflow", "bundle_root")
_WORDS = re.compile(r"[^{}\[\]()'\"#,]*")
_WITH = ("--with", "--data", "--backup")


@dataclass
class Named:
    """What a command names.

    Args:
        roots: the folders of bundles.
        overlays: JSON files that are laid over their configs.
        overrides: keys of the configs and what they are set to.
        faults: why it may not be given again.
    """

    roots: list[Path] = field(default_factory=list)
    overlays: list[Path] = field(default_factory=list)
    overrides: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def named(arguments: Sequence[str], here: Path, typed: Collection[str] = ()) -> Named:
    """What a command names.

    Args:
        arguments: what Python is called with, `-m medseg train ...` or `-m monai.bundle run ...`.
        here: the working directory of that.
        typed: keys that are set by who gives the command, not by the record.
    """
    own = {normal(key) for key in typed}
    found = _of_medseg(arguments[3:], here) if arguments[1] == "medseg" else _of_monai(arguments[3:], here, own)
    found.overrides = {key: value for key, value in found.overrides.items() if normal(key) not in own}
    return found


def _of_medseg(words: Sequence[str], here: Path) -> Named:
    found = Named()
    name, rest = words[0], list(words[1:])
    places = [here / name, *(here / home / "bundles" / name for home in search_path())]
    root = next((location for location in places if (location / "configs" / "metadata.json").is_file()), None)
    if root is not None:
        found.roots.append(root)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        if option not in _WITH:
            if equals and not word.startswith("--"):
                found.overrides[option] = value_of(value)
            continue
        value = value if equals else rest.pop(0) if rest else ""
        if option == "--with":
            found.overlays += [path for path in _overlays(value, root, here) if path.is_file()]
        else:
            found.overrides["dataset_dir" if option == "--data" else "backup"] = value
    return found


def _overlays(name: str, root: Path | None, here: Path) -> Iterator[Path]:
    """All places in which an overlay of that name is looked for."""
    last = Path(name).name if name.endswith(".json") else f"{Path(name).name}.json"
    for home in (Path(), *search_path()):
        yield here / home / name
        yield here / home / "configs" / last
    if root is not None:
        yield root / "configs" / last


def _of_monai(words: Sequence[str], here: Path, own: Collection[str]) -> Named:
    found, rest, before = Named(), list(words), 0
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            before += 1
            if before > 3 or not re.fullmatch(r"[A-Za-z_]\w*", word):
                found.faults.append(f"'{word}' is no id of what is to run")
            continue
        key, equals, value = word[2:].partition("=")
        value = value if equals else rest.pop(0) if rest else ""
        if key in _FILES:
            _file(found, key, value, here)
        elif normal(key) in own:
            continue
        elif key in _REFUSED or len(key) < 2 or "-" in key or not is_plain(normal(key)):
            found.faults.append(f"'--{key}' is no plain key of a config")
        else:
            read = _plain(value)
            if read is None:
                found.faults.append(f"{key}: '{value}' is no plain value: a number, a word, or a list of them")
            else:
                found.overrides[key] = read[0]
    if len(set(found.roots)) > 1:
        found.faults.append("it lays settings of several bundles over each other")
    return found


def _file(found: Named, key: str, value: str, here: Path) -> None:
    """The files that a setting names have to be settings of a bundle, or ours."""
    read = _plain(value)
    files = [] if read is None else read[0] if isinstance(read[0], list) else [value]
    if not files:
        found.faults.append(f"{key}: '{value}' is not the name of a file")
    for one in files:
        path = (here / str(one)).resolve()
        if path.suffix != _FILES[key] or not path.is_file():
            found.faults.append(f"{key}: '{one}' is no {_FILES[key]} file")
        elif path.suffix == ".json" and (path.name.lower() == "metadata.json") != (key == "meta_file"):
            found.faults.append(f"{key}: '{one}' is looked into as something else")
        elif path.parent.name == "configs" and (path.parent / "metadata.json").is_file():
            found.roots.append(path.parent.parent)
        elif not any(path.parent == (home / "configs").resolve() for home in search_path()[1:]):
            found.faults.append(f"{key}: {path} lies in no bundle, so nobody has looked into it")
        elif key == "config_file":
            found.overlays.append(path)


def _plain(text: str) -> tuple[Any] | None:
    """A value that every reader takes for the same; None where it is none."""
    if not text.isprintable():
        return None
    if _WORDS.fullmatch(text):  # a word, or a scalar: whichever it is taken for, nothing stands below it
        return None if text.startswith("-") and _literal(text) == text else (_literal(text),)
    if re.search(r"[{}\\]", text):
        return None
    value = _literal(text)
    return (value,) if (isinstance(value, str) and value != text) or _is_list(value) else None


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, (str, int, float, bool, type(None))) or _is_list(one) for one in value
    )


def _literal(text: str) -> Any:
    """JSON, else a Python literal, else the text itself."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            continue
    return text


def value_of(text: str) -> Any:
    """The value of `KEY=VALUE`, as JSON has it.

    >>> value_of("1e-3"), value_of("(1, 2)"), value_of("cpu")
    (0.001, [1, 2], 'cpu')
    """
    return _json(_literal(text))


def _json(value: Any) -> Any:
    """A Python literal as JSON has it."""
    if isinstance(value, dict):
        return {str(key): _json(one) for key, one in value.items()}
    return [_json(one) for one in value] if isinstance(value, (list, tuple, set)) else value
