"""Strings of a config as MONAI reads them: relative ids, references put into an expression, imports, macros.

Each function does to a string exactly what MONAI's parser does before it evaluates it. What is judged must be what
runs: a reference is replaced as text, also within quotes.
"""

from __future__ import annotations

import re

LONGEST = 4000  # characters of a string that means something; what is longer is refused, not read
REFERENCES = "__local_refs"  # the dictionary that MONAI puts in place of each reference
_WORD = re.compile(r"\w[\w.-]*")
_INDEX = re.compile(r"0|[1-9][0-9]*")
_RELATIVE = re.compile(r"(?:@|%)(?:::)+")
_REFERENCE = re.compile(r"@(?:\w*)(?:::\w*)*")
_FILE = re.compile(r"(.*\.(?:json|yaml|yml)(?=(?:::.*)|$))", re.IGNORECASE)
_IMPORT = re.compile(r"import (?P<module>[\w.]+)(?: as (?P<name>\w+))?", re.ASCII)
_FROM = re.compile(r"from (?P<module>[\w.]+) import (?P<what>\w+)(?: as (?P<name>\w+))?", re.ASCII)


def normal(key: str) -> str:
    """A path with `::` between its parts.

    >>> normal("train#trainer")
    'train::trainer'
    """
    return key.replace("#", "::")


def is_plain(path: str) -> bool:
    """Whether each part of a path is a word, with dots and hyphens in it, or a number that is written in one way.

    MONAI drops blanks around a path, and takes what Python takes for a number in a list, from the end, too.

    >>> is_plain("train::0"), is_plain("train::-1"), is_plain("train::00"), is_plain("train ")
    (True, False, False, False)
    """
    return all(_WORD.fullmatch(part) and (_INDEX.fullmatch(part) or not _is_number(part)) for part in path.split("::"))


def _is_number(part: str) -> bool:
    try:
        int(part)
    except ValueError:
        return False
    return True


def absolute(path: str, text: str) -> str:
    """A string with its relative ids made absolute; `path` is where it stands.

    >>> absolute("a::b::c", "$@##d + 1")
    '$@a::d + 1'
    """
    text, here = normal(text), path.split("::")
    if len(text) > LONGEST:
        return text
    for prefix in sorted(set(_RELATIVE.findall(text)), reverse=True):
        symbol = "@" if "@" in prefix else "%"
        ups = prefix[1:].count("::")
        above = "::".join(here[:-ups]) if ups < len(here) else ""
        text = text.replace(prefix, symbol + (f"{above}::" if above else ""))
    return text


def referred(text: str) -> list[str]:
    """The paths that an expression, or a string that is one reference as a whole, refers to.

    >>> referred("$@a + @b::c"), referred("@a"), referred("mail@a")
    (['a', 'b::c'], ['a'], [])
    """
    found = _REFERENCE.findall(text)
    return [one[1:] for one in found if text.startswith("$") or one == text]


def replaced(text: str) -> str:
    """An expression, without its `$`, as Python gets it.

    >>> replaced("$@a + 1")
    "__local_refs['a'] + 1"
    """
    for one in sorted(_REFERENCE.findall(text), key=len, reverse=True):
        text = text.replace(one, f"{REFERENCES}['{one[1:]}']")
    return text[1:]


def macro(text: str) -> tuple[str, str]:
    """The file and the path that a `%` string copies from; no file means this config.

    >>> macro("%a::b"), macro("%../x.json::net")
    (('', 'a::b'), ('../x.json', 'net'))
    """
    if len(text) > LONGEST:
        return "?", ""
    found = _FILE.findall(text[1:])
    if not found:
        return "", text[1:]
    file = found[0]
    return file, text[1:].rsplit(file, 1)[1].removeprefix("::")


def imported(text: str) -> tuple[str, str] | None:
    """The name that an import statement binds and what it binds it to; None where the expression is none.

    >>> imported("$import torch.nn as nn"), imported("$from glob import glob"), imported("$1 + 1")
    (('nn', 'torch.nn'), ('glob', 'glob.glob'), None)
    """
    if found := _IMPORT.fullmatch(text[1:]):
        return found["name"] or found["module"], found["module"]
    if found := _FROM.fullmatch(text[1:]):
        return found["name"] or found["what"], f"{found['module']}.{found['what']}"
    return None
