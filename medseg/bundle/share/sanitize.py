"""Remove from a bundle what is private or means nothing elsewhere: paths, names of cases, trackers; check for leaks."""

from __future__ import annotations

import ast
import getpass
import logging
import platform
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from medseg.bundle.verify.manifest import files_of
from medseg.config.references import is_expression, key_path, leaf_key
from medseg.errors import ConfigError, DataError

logger = logging.getLogger(__name__)
# What may stand before a path that begins: nothing, a blank, `=`, a quote, ...
_BEFORE = r"(?:^|[^\w.)\]}~/\\-])"
# Paths wherever they stand in a text.
_ELSEWHERE = (
    r"\w[\w+.-]+:/+[\w~]",  # s3://bucket, file:/home
    _BEFORE + r"~\w*[/\\]",
    r"(?<![A-Za-z])[A-Za-z]:[/\\]\w",
    r"(?:^|[^\w\\])\\\\\w",  # of a Windows share
    r"(?:^|[\s=:/\\])\.\.[/\\]",
)
_IN_EXPRESSION = re.compile("|".join(_ELSEWHERE))
_PATH = re.compile("|".join((*_ELSEWHERE, _BEFORE + r"/\w", r"^\\\w{2,}\\")))
_FROM_ROOT = re.compile(_BEFORE + r"(/[^/\s]+)/\S")
_HOMES = ("/home/", "/Users/", "/mnt/", "/root/")  # no bundle has folders of these names
_CASE_KEYS, _MONITOR, _RUN_NAME = ("split", "exclude", "cases"), "monitor", "run_name"
_PATH_KEYS = {"dataset_dir", "output_dir", "data_dir", "datalist", "data_list_file_path", "data_file_base_dir",
              "backup"}  # fmt: skip
_PUBLIC_OF_MONITOR = {"backend", "images", "mode", "dashboard"}
_TEXT_FILES = {".json", ".md", ".txt", ".conf", ".csv", ".yaml", ".yml", ".toml", ".rst", ""}
_SHORTEST = 3  # letters of a private text that is searched for: shorter ones stand anywhere
_COMMON_NAMES = {"root", "user", "admin", "ubuntu", "localhost"}
_SHOWN = 5


def sanitize_config(
    config: Mapping[str, Any], source: Path, cases: Collection[str] = ()
) -> tuple[dict[str, Any], list[str]]:
    """Return a config without paths on this machine, names of cases, and who is told of runs.

    Such values become null, which is what recipes have there. Paths that an expression builds from the bundle's own
    folder stay.

    Args:
        config: the config.
        source: the file it was read from, for errors.
        cases: the names of the cases it was trained with.

    Returns:
        The config, and the paths of the keys that became null, sorted.

    Raises:
        ConfigError: an expression or a key that names a path or a case; what it should be elsewhere cannot be guessed.
    """
    sanitizer = _Sanitizer(source, frozenset(cases), [])
    result: dict[str, Any] = {}
    for key, value in config.items():
        result[key] = sanitizer.value(value, str(key), sanitizer.key(str(key), str(key)))
    for key, value in result.items():
        path = key_path(key).removeprefix("+")  # overlays write the full path as the key
        section, _, inner = path.partition("#")
        if set(path.split("#")) & set(_CASE_KEYS):
            result[key] = sanitizer.cases_removed(value, path)
        elif section == _MONITOR and isinstance(value, Mapping):
            result[key] = {
                name: sanitizer.tracker_removed(entry, name, f"{path}#{name}") for name, entry in value.items()
            }
        elif section == _MONITOR and inner:
            result[key] = sanitizer.tracker_removed(value, inner, path)
    return result, sorted(set(sanitizer.removed))


@dataclass(frozen=True)
class _Sanitizer:
    """Remove private values from one config, and remember the paths of their keys."""

    source: Path
    cases: frozenset[str]
    removed: list[str]

    def key(self, key: str, path: str) -> str:
        """Return the last part of a key.

        Raises:
            ConfigError: the key itself is private.
        """
        if _PATH.search(key):
            raise self._error(path, "the key is a path on this machine", key)
        if key in self.cases:
            raise self._error(path, "the key is the name of a case", key)
        return leaf_key(key)

    def value(self, value: Any, path: str, key: str) -> Any:
        """Return a value without paths and cases; None where nothing remains of it."""
        if isinstance(value, Mapping):
            return {name: self._entry(entry, f"{path}#{name}", str(name)) for name, entry in value.items()}
        if isinstance(value, list):
            if value and all(isinstance(entry, str) and entry in self.cases for entry in value):
                self.removed.append(path)
                return None
            return [self.value(entry, path, key) for entry in value]
        if not isinstance(value, str) or not value:
            return value
        is_private_key = key in _PATH_KEYS or key == _RUN_NAME
        if is_expression(value) and not (is_private_key and _is_text(value[1:])):
            self._require_public(value[1:], path)
            return value
        is_reference = value.startswith(("@", "%"))
        if _PATH.search(value) or value in self.cases or (is_private_key and not is_reference):
            self.removed.append(path)
            return None
        return value

    def _entry(self, value: Any, path: str, name: str) -> Any:
        key = self.key(name, path)
        is_read_by_monai = isinstance(value, str) and value.startswith(("@", "%", "$"))
        if key in _CASE_KEYS and value and not is_read_by_monai:
            return self.cases_removed(value, path)
        return self.value(value, path, key)

    def cases_removed(self, value: Any, path: str) -> Any:
        """Return what stands under a key of cases without any names."""
        if isinstance(value, Mapping):
            return {subset: self.cases_removed(ids, f"{path}#{subset}") for subset, ids in value.items()}
        if not value or isinstance(value, (bool, int, float)):
            return None if isinstance(value, list) else value
        self.removed.append(path)
        return None

    def tracker_removed(self, value: Any, name: str, path: str) -> Any:
        """Return a setting of the tracker, emptied if it names people, projects or servers."""
        if name in _PUBLIC_OF_MONITOR or not value:
            return value
        self.removed.append(path)
        return [] if isinstance(value, list) else None

    def _require_public(self, expression: str, path: str) -> None:
        for text, is_appended in _texts(expression):
            if _is_local_path(text, is_appended):
                raise self._error(path, "the expression names a path on this machine", text)
            if text in self.cases:
                raise self._error(path, "the expression names a case", text)

    def _error(self, path: str, problem: str, text: str) -> ConfigError:
        fix = "Write paths relative to @bundle_root, and cases into split."
        return ConfigError(f"{self.source}, {path}", problem, f"got '{text[:200]}'", fix)


def _parsed(expression: str) -> ast.Expression | None:
    """Return the syntax tree of an expression; None for an import, or for what only MONAI can read."""
    try:
        return ast.parse(re.sub(r"[@%][A-Za-z_][\w#:]*", "_", expression).strip(), mode="eval")
    except (SyntaxError, ValueError):
        return None


def _is_text(expression: str) -> bool:
    """Return True for an expression that is only a text in quotes."""
    tree = _parsed(expression)
    return tree is not None and isinstance(tree.body, ast.Constant) and isinstance(tree.body.value, str)


def _texts(expression: str) -> list[tuple[str, bool]]:
    """Return the texts in an expression, each with True if it is appended to something."""
    tree = _parsed(expression)
    if tree is None:
        return [(single or double, True) for single, double in re.findall(r"'([^']*)'|\"([^\"]*)\"", expression)]
    appended = {id(node.right) for node in ast.walk(tree) if isinstance(node, ast.BinOp)}
    appended |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values[1:]}
    texts = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)):
            text = node.value if isinstance(node.value, str) else node.value.decode("utf-8", "replace")
            texts.append((text, id(node) in appended))
    return texts


def _is_local_path(text: str, is_appended: bool) -> bool:
    """Return True for a path of this machine, not for the end of one: `/models/model.pt` is appended to a folder."""
    if _IN_EXPRESSION.search(text):
        return True
    for match in _FROM_ROOT.finditer(text):
        top = match[1]
        if not is_appended or match.start(1) > 0 or Path(top).is_dir() or f"{top}/" in _HOMES:
            return True
    return False


class PrivateText(NamedTuple):
    """A text that should not be in a bundle that is shared.

    Args:
        text: the text.
        kind: what it is, in words.
        certain: True if it cannot be another word: the bundle is refused, and not only warned about.
    """

    text: str
    kind: str
    certain: bool


def private_texts(cases: Collection[str] = ()) -> list[PrivateText]:
    """Return what would tell of this machine, its user and these cases."""
    texts = []
    for folder, kind in ((Path.home(), "your home folder"), (Path.cwd(), "the working directory")):
        if len(folder.parts) > 2:  # /tmp and /root are everywhere
            texts.append(PrivateText(str(folder), kind, True))
    for name, kind in ((_user(), "your user name"), (platform.node(), "this machine's name")):
        if len(name) >= _SHORTEST and name.lower() not in _COMMON_NAMES:
            texts.append(PrivateText(name, kind, False))
    for case in sorted(cases):
        if len(case) >= _SHORTEST:
            texts.append(PrivateText(case, "a case's name", not case.isdecimal()))
    return texts


def check_leaks(
    folder: Path, texts: Collection[PrivateText], allowed: Collection[str] = (), recipe: Path | None = None
) -> None:
    """Search all text files below a folder for private texts; those that may be other words are logged as warnings.

    Args:
        folder: what is to be shared.
        texts: see `private_texts`.
        allowed: names of cases that mean something else as well, such as structures.
        recipe: medseg's own recipe that it was made with: lines that are in there too are public.

    Raises:
        DataError: a file names a folder of this machine or a case; says which line of which file.
    """
    patterns = [(private, _pattern(private.text)) for private in texts if private.text not in allowed]
    leaks: list[str] = []
    for name, path in files_of(folder).items():
        if path.suffix.lower() not in _TEXT_FILES:
            continue
        public = set(_lines(recipe / name)) if recipe is not None and (recipe / name).is_file() else set()
        # configs were sanitized already: the name of a case there may be a word that the config needs
        is_config = name.startswith("configs/") and name.endswith(".json") and not name.endswith("/metadata.json")
        for number, line in enumerate(_lines(path), 1):
            if line in public:
                continue
            for private, pattern in patterns:
                if not pattern.search(line):
                    continue
                leak = f"{name}, line {number}: {private.kind}, '{private.text}'"
                if private.certain and not (is_config and private.kind == "a case's name"):
                    leaks.append(leak)
                else:
                    logger.warning("%s. Check that it may be shared.", leak)
    if leaks:
        more = f"; and {len(leaks) - _SHOWN} more" if len(leaks) > _SHOWN else ""
        problem = "the files name folders of this machine or cases"
        fix = "Remove them from the files, and pack again."
        raise DataError("the packed bundle", problem, "; ".join(leaks[:_SHOWN]) + more, fix)


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(text)}(?![A-Za-z0-9])")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
