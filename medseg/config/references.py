"""The strings of a config as MONAI reads them: references, macros, expressions, imports. Nothing is evaluated.

MONAI puts references into an expression as text, also within quotes, before Python gets it. Each function here does
exactly that, so what is judged is what would run. What MONAI calls an id, `train::trainer`, is called a path.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

LONGEST = 4000  # characters of a string that means something; a longer one is refused, not read
LOCALS = "__local_refs"  # the dictionary that MONAI puts in place of each reference
META = "_meta_"  # where MONAI keeps the metadata
TARGET = "_target_"
SPECIAL_KEYS = frozenset({TARGET, "_disabled_", "_requires_", "_desc_", "_mode_"})
_REFERENCE = re.compile(r"@(?:\w*)(?:::\w*)*")
_RELATIVE = re.compile(r"(?:@|%)(?:::)+")
_FILE = re.compile(r"(.*\.(?:json|yaml|yml)(?=(?:::.*)|$))", re.IGNORECASE)
_IMPORT = re.compile(r"import (?P<module>[\w.]+)(?: as (?P<name>\w+))?", re.ASCII)
_FROM = re.compile(r"from (?P<module>[\w.]+) import (?P<member>\w+)(?: as (?P<name>\w+))?", re.ASCII)
_WORD = re.compile(r"\w[\w.-]*")
_INDEX = re.compile(r"0|[1-9][0-9]*")


def key_path(key: str) -> str:
    """Return a config key with `#` between its parts, split where MONAI splits it.

    Example:
        >>> key_path("train::trainer::max_epochs")
        'train#trainer#max_epochs'
    """
    return _monai(key).replace("::", "#")


def _monai(text: str) -> str:
    """Return a string with the separator that MONAI puts into every string, comments and quotes included."""
    return text.replace("#", "::")


def top_key(path: str) -> str:
    """Return the first part of a path."""
    return key_path(path).partition("#")[0]


def leaf_key(path: str) -> str:
    """Return the last part of a path."""
    return key_path(path).rpartition("#")[2]


def is_plain(path: str) -> bool:
    """Return True if each part is a word, with dots and hyphens in it, or a number that is written in one way.

    MONAI drops blanks around a path and takes any number that Python reads, also one that counts from the end.

    Example:
        >>> is_plain("train#0"), is_plain("train#-1"), is_plain("train#00"), is_plain("train ")
        (True, False, False, False)
    """
    return all(_WORD.fullmatch(part) and (_INDEX.fullmatch(part) or not _is_number(part)) for part in path.split("#"))


def _is_number(part: str) -> bool:
    try:
        int(part)
    except ValueError:
        return False
    return True


def is_expression(value: Any) -> bool:
    """Return True for a string that MONAI evaluates as Python."""
    return isinstance(value, str) and value.startswith("$")


def is_component(value: Any) -> bool:
    """Return True for a dictionary that MONAI makes an object of."""
    return isinstance(value, Mapping) and "_target_" in value


def references(value: Any) -> list[str]:
    """Return the paths that a string refers to with `@`, or all strings in a dictionary or list do, in their order.

    Example:
        >>> references("$@train#a + @b"), references({"x": ["@b::c"]}), references("me@home")
        (['train#a', 'b'], ['b#c'], [])
    """
    if isinstance(value, str):
        text = _monai(value)
        matches = _REFERENCE.findall(text)
        return [key_path(match[1:]) for match in matches if is_expression(text) or match == text]
    entries = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [path for entry in entries for path in references(entry)]


def macro(value: Any) -> tuple[str, str] | None:
    """Return the file and the path that a `%` string copies from; no file means this config. None for other values.

    Example:
        >>> macro("%train#handlers"), macro("%other.json::net"), macro("100 %")
        (('', 'train#handlers'), ('other.json', 'net'), None)
    """
    if not isinstance(value, str) or not value.startswith("%"):
        return None
    if len(value) > LONGEST:
        return "?", ""
    text = _monai(value)[1:]
    # At the beginning of each line, where a search would try every letter, which takes long for many long strings.
    starts = [0, *(match.end() for match in re.finditer("\n", text))]
    file = next(filter(None, (_FILE.match(text, start) for start in starts)), None)
    if file is None:
        return "", key_path(text)
    return file[1], key_path(text.rsplit(file[1], 1)[1].removeprefix("::"))


def used_paths(config: Any) -> set[str]:
    """Return every path of this config that one of its strings refers to with `@` or copies with `%`.

    Example:
        >>> sorted(used_paths({"a": "@b#c", "d": ["%e", "mail@f"]}))
        ['b#c', 'e']
    """
    if isinstance(config, str):
        copied = macro(config)
        return set(references(config)) if copied is None else {copied[1]} if not copied[0] else set()
    entries = config.values() if isinstance(config, Mapping) else config if isinstance(config, (list, tuple)) else ()
    return set().union(*map(used_paths, entries))


def absolute(path: str, text: str) -> str:
    """Return a string as MONAI writes it: relative references made absolute, `::` between the parts.

    Args:
        path: where the string stands.
        text: the string.

    Example:
        >>> absolute("a#b#c", "$@##d + 1")
        '$@a::d + 1'
    """
    text, parts = _monai(text), path.split("#")
    if len(text) > LONGEST:
        return text
    for prefix in sorted(set(_RELATIVE.findall(text)), reverse=True):
        levels = prefix[1:].count("::")
        above = "::".join(parts[:-levels]) if levels < len(parts) else ""
        text = text.replace(prefix, prefix[0] + (f"{above}::" if above else ""))
    return text


def as_python(text: str) -> str:
    """Return an expression, without its `$`, as Python gets it from MONAI.

    Example:
        >>> as_python("$@a#b + 1")
        "__local_refs['a::b'] + 1"
    """
    text = _monai(text)
    for match in sorted(_REFERENCE.findall(text), key=len, reverse=True):
        text = text.replace(match, f"{LOCALS}['{match[1:]}']")
    return text[1:]


def import_binding(text: str) -> tuple[str, str] | None:
    """Return the name that an import statement binds and what it binds it to; None for any other expression.

    Example:
        >>> import_binding("$import torch.nn as nn"), import_binding("$from glob import glob"), import_binding("$1 + 1")
        (('nn', 'torch.nn'), ('glob', 'glob.glob'), None)
    """
    if match := _IMPORT.fullmatch(text[1:]):
        return match["name"] or match["module"], match["module"]
    if match := _FROM.fullmatch(text[1:]):
        return match["name"] or match["member"], f"{match['module']}.{match['member']}"
    return None


def parse(text: str) -> tuple[ast.AST | None, dict[str, str]]:
    """Return the syntax tree of an expression, and the paths it refers to by the names that stand for them in the tree.

    The tree is None where the text is no Python.

    Example:
        >>> tree, names = parse("$@a#b + 1")
        >>> ast.unparse(tree), names
        ('_reference_0_ + 1', {'_reference_0_': 'a#b'})
    """
    names: dict[str, str] = {}

    def stand_in(match: re.Match[str]) -> str:
        name = f"_reference_{len(names)}_"
        names[name] = key_path(match[0][1:])
        return name

    plain = _REFERENCE.sub(stand_in, _monai(text).removeprefix("$")).strip()
    try:
        tree = ast.parse(plain)
        if len(tree.body) == 1 and isinstance(tree.body[0], ast.Import | ast.ImportFrom):
            return tree.body[0], names
        return ast.parse(plain, mode="eval").body, names
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None, names
