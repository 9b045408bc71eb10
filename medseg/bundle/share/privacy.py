"""What of a config is nobody else's business, or means nothing elsewhere: places, names of cases, trackers."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.config.references import key_path, leaf_key
from medseg.errors import ConfigError

_STARTS = r"(?:^|[^\w.)\]}~/\\-])"  # what stands before a path that begins: nothing, a blank, `=`, a quote, ...
_AWAY = (  # places wherever they stand in a text
    r"\w[\w+.-]+:/+[\w~]",  # s3://bucket, file:/home
    _STARTS + r"~\w*[/\\]",
    r"(?<![A-Za-z])[A-Za-z]:[/\\]\w",
    r"(?:^|[^\w\\])\\\\\w",  # of a Windows share
    r"(?:^|[\s=:/\\])\.\.[/\\]",
)
_ELSEWHERE = re.compile("|".join(_AWAY))
_PLACE = re.compile("|".join((*_AWAY, _STARTS + r"/\w", r"^\\\w{2,}\\")))
_FROM_TOP = re.compile(_STARTS + r"(/[^/\s]+)/\S")
_OURS = ("/home/", "/Users/", "/mnt/", "/root/")  # nobody's bundle has folders of these names
_CASES, _MONITOR, _NAME = ("split", "exclude", "cases"), "monitor", "run_name"
_DATA = {"dataset_dir", "output_dir", "data_dir", "datalist", "data_list_file_path", "data_file_base_dir", "backup"}
_KEPT_OF_MONITOR = {"backend", "images", "mode", "dashboard"}


def without_places(
    config: Mapping[str, Any], source: Path, cases: Collection[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """A config less what says where things lie on this machine, which cases there are, and who is told of runs.

    Such values become null, which is what recipes have there. What an expression puts together from the bundle's own
    place stays.

    Args:
        config: it.
        source: the file it was read from, for the message.
        cases: the names of the cases it was trained with.

    Returns:
        The config, and the paths of the keys that became null.

    Raises:
        ConfigError: an expression or a key that names a place on this machine or a case: nobody can say what it should
            be elsewhere.
    """
    taken: list[str] = []
    reader = _Reader(source, frozenset(cases), taken)
    cleaned = {key: reader.value(value, str(key), reader.key(str(key), str(key))) for key, value in config.items()}
    for key, value in cleaned.items():
        path = key_path(key).removeprefix("+")  # overlays write the whole path as the key
        part, _, below = path.partition("#")
        if part in _CASES:
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


@dataclass(frozen=True)
class _Reader:
    """What is taken from the values of one config."""

    source: Path
    cases: frozenset[str]
    taken: list[str]

    def key(self, key: str, path: str) -> str:
        """The last part of a key, which may itself name nobody.

        Raises:
            ConfigError: it does.
        """
        if _PLACE.search(key):
            raise self._error(path, "name no place on this machine as a key", key)
        if key in self.cases:
            raise self._error(path, "name no case as a key", key)
        return leaf_key(key)

    def value(self, value: Any, path: str, key: str) -> Any:
        """A value without places and cases; null where nothing else is left of it."""
        if isinstance(value, Mapping):
            return {
                name: self.value(one, f"{path}#{name}", self.key(str(name), f"{path}#{name}"))
                for name, one in value.items()
            }
        if isinstance(value, list):
            if value and all(isinstance(one, str) and one in self.cases for one in value):
                self.taken.append(path)
                return None
            return [self.value(one, path, key) for one in value]
        if not isinstance(value, str) or not value:
            return value
        if value.startswith("$") and not (key in _DATA | {_NAME} and _is_text(value[1:])):
            self._look(value[1:], path)
            return value
        reference = value.startswith(("@", "%"))
        if _PLACE.search(value) or value in self.cases or (key in _DATA | {_NAME} and not reference):
            self.taken.append(path)
            return None
        return value

    def _look(self, expression: str, path: str) -> None:
        for text, appended in _texts(expression):
            if _is_here(text, appended):
                raise self._error(path, "not name a place on this machine in a bundle that is shared", text)
            if text in self.cases:
                raise self._error(path, "not name a case in a bundle that is shared", text)

    def _error(self, path: str, rule: str, text: str) -> ConfigError:
        fix = "Write places relative to @bundle_root, and cases into split."
        return ConfigError(f"{self.source}, {path}", f"must {rule}", f"'{text[:200]}'", fix)


def _parsed(expression: str) -> ast.Expression | None:
    try:
        return ast.parse(re.sub(r"[@%][A-Za-z_][\w#:]*", "_", expression).strip(), mode="eval")
    except (SyntaxError, ValueError):  # an import, or one that MONAI alone can read
        return None


def _is_text(expression: str) -> bool:
    """Whether an expression is nothing but a text in quotes."""
    tree = _parsed(expression)
    return tree is not None and isinstance(tree.body, ast.Constant) and isinstance(tree.body.value, str)


def _texts(expression: str) -> list[tuple[str, bool]]:
    """The pieces of text in an expression, and whether they are put behind another one."""
    tree = _parsed(expression)
    if tree is None:
        return [(one or other, True) for one, other in re.findall(r"'([^']*)'|\"([^\"]*)\"", expression)]
    behind = {id(node.right) for node in ast.walk(tree) if isinstance(node, ast.BinOp)}
    behind |= {id(one) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for one in node.values[1:]}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
            text = node.value if isinstance(node.value, str) else node.value.decode("utf-8", "replace")
            found.append((text, id(node) in behind))
    return found


def _is_here(text: str, appended: bool) -> bool:
    """Whether a text names a path of this machine, not the end of one: `/models/model.pt` is added to a folder."""
    if _ELSEWHERE.search(text):
        return True
    for begun in _FROM_TOP.finditer(text):
        top = begun[1]
        if not appended or begun.start(1) > 0 or Path(top).is_dir() or f"{top}/" in _OURS:
            return True
    return False
