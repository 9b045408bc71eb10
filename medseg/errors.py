"""Define every error that medseg raises on purpose, and the form of its message.

MedsegError
├── InputError         an argument of a call; also a ValueError
├── DataError          a file or folder of the data set
│   └── GeometryError  shapes, affines, spacings
├── LabelError         structure names and label values
├── ConfigError        configs, overlays, overrides
├── BundleError        the files of a bundle, packed or not
│   └── UntrustedError it could run code that was not asked for
├── WeightsError       checkpoints
├── RunError           the folder and the state of a run
├── TrainingError      NaN or infinite numbers in training
├── DeviceError        a device that is not there
├── OutputError        a file or folder that cannot be written
└── MissingExtraError  an optional package that is not installed
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import unicodedata
from collections.abc import Iterable


def printable(text: str, limit: int = 200) -> str:
    r"""Escape what moves a terminal's cursor, colors it, or turns text around; cut the text at `limit` letters.

    Example:
        >>> printable("a\x1b[31mb")
        'a\\x1b[31mb'
    """
    cut = text if len(text) <= limit else f"{text[:limit]}..."
    escaped = []
    for letter in cut:
        # Cf are format characters such as the right-to-left override.
        harmless = letter == " " or (letter.isprintable() and unicodedata.category(letter) != "Cf")
        escaped.append(letter if harmless else ascii(letter)[1:-1])
    return "".join(escaped)


# What Python says of files and texts, in plain words. The thing is named already, and numbers of errors say nothing.
_PLAIN = {
    re.compile(r"\[(?:Errno|WinError) -?\d+\] ([^:]+)(?:: (?:'.*'|\".*\"))?$"): r"\1",
    re.compile(r"'utf-8' codec can't decode byte \w+ in position (\d+): .*$"): r"no text in UTF-8 from byte \1 on",
    re.compile(r"Expecting value: line 1 column 1 \(char 0\)$"): "it does not begin as JSON does",
}


class MedsegError(Exception):
    """Say what is wrong in the form that every medseg error has: `{thing}: {problem} ({came}). {fix}`.

    Args:
        thing: what is wrong: a file, a key, a name.
        problem: the problem, as the predicate of a sentence or a whole one, without its full stop.
        came: the value that was there, shown in brackets; empty where the problem says it. What Python
            says of files and texts is put in plain words.
        fix: one or two whole sentences that say what to do.

    Example:
        >>> print(MedsegError("ct.nii.gz", "a scan must have 3 dimensions", "got 4", "Split the series into volumes."))
        ct.nii.gz: a scan must have 3 dimensions (got 4). Split the series into volumes.
    """

    def __init__(self, thing: object, problem: str = "", came: str = "", fix: str = "") -> None:
        super().__init__(str(thing), problem, came, fix)
        self.thing = str(thing)
        self.problem = problem
        for pattern, words in _PLAIN.items():
            came = pattern.sub(words, came)
        self.came = came
        self.fix = fix

    @property
    def reason(self) -> str:
        """The problem with what came, without the thing and the fix."""
        return f"{self.problem} ({self.came})" if self.came else self.problem

    def __str__(self) -> str:
        """Join the four parts to two sentences; control characters of a file or a name never reach the terminal."""
        text = self.thing
        if self.problem:
            text += f": {self.problem}"
        if self.came:
            text += f" ({printable(self.came, len(self.came))})"
        if self.problem or self.came:
            text += "."
        return "\n".join(printable(line, len(line)) for line in f"{text} {self.fix}".strip().split("\n"))


class InputError(MedsegError, ValueError):
    """An argument of a call that cannot be used, such as an array without an affine."""


class DataError(MedsegError):
    """Signal a file or folder of the data set that is missing, damaged or of the wrong kind.

    Attributes:
        code: of the rule for scans that it breaks, see `medseg.data.scan_rules`; empty if it breaks none.
    """

    code = ""


class GeometryError(DataError):
    """Signal shapes, affines or spacings that must agree and do not."""


class LabelError(MedsegError):
    """Signal a structure name or a label value that the label map does not hold."""


class ConfigError(MedsegError):
    """Signal a config, an overlay or an override that cannot be used."""


class BundleError(MedsegError):
    """Signal files of a bundle that are damaged, missing or not allowed in a bundle."""


class UntrustedError(BundleError):
    """Signal a bundle that came from elsewhere and is not trusted with what was asked of it."""


class WeightsError(MedsegError):
    """Signal weights that do not fit the network they are loaded into."""


class RunError(MedsegError):
    """Signal a run whose folder or state does not allow the operation."""


class TrainingError(MedsegError):
    """Signal numbers with which training cannot continue."""


class DeviceError(MedsegError):
    """Signal a device that does not exist."""


class OutputError(MedsegError):
    """Signal a file or folder that cannot be written."""


class MissingExtraError(MedsegError):
    """Signal an optional package that is needed and not installed."""


def nearest(word: str, words: Iterable[str], *, count: int = 1) -> list[str]:
    """Return the words most like `word`, best first; empty if none is similar.

    >>> nearest("livr", ["spleen", "liver"])
    ['liver']
    """
    return difflib.get_close_matches(word, list(words), n=count, cutoff=0.6)


def did_you_mean(word: str, words: Iterable[str], otherwise: str = "") -> str:
    """Return a fix that names the nearest word, or `otherwise` if none is similar.

    >>> did_you_mean("livr", ["spleen", "liver"])
    "Did you mean 'liver'?"
    """
    similar = nearest(word, words)
    return f"Did you mean '{similar[0]}'?" if similar else otherwise


def quoted(word: object, windows: bool = os.name == "nt") -> str:
    """Return a word as one argument in the shell of a system, in quotes only where it needs them.

    >>> quoted("a b.zip"), quoted("a b.zip", windows=True), quoted("a.zip")
    ("'a b.zip'", '"a b.zip"', 'a.zip')
    """
    text = str(word)
    if not windows:
        return shlex.quote(text)
    return text if re.fullmatch(r"[\w.:\\/=@+,-]+", text) else f'"{text}"'


def command_line(*words: object, tail: str = "") -> str:
    """Return a command of medseg that can be copied to a shell.

    Args:
        words: its arguments, which are quoted where they need it.
        tail: what follows as it is, such as a placeholder.

    >>> command_line("predict", "bundles/liver", tail="SCAN.nii.gz -o masks")
    'medseg predict bundles/liver SCAN.nii.gz -o masks'
    """
    return " ".join(["medseg", *(quoted(word) for word in words), *([tail] if tail else [])])


def first_line(error: BaseException) -> str:
    r"""Return an exception's class and the first line of its message, without its full stop.

    >>> first_line(ValueError("no such bucket.\nMore."))
    'ValueError: no such bucket'
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}".rstrip(".") if lines else type(error).__name__


def medseg_error(error: BaseException | None) -> MedsegError | None:
    """Return the medseg error that caused `error`, through the errors that libraries wrapped around it."""
    while error is not None:
        if isinstance(error, MedsegError):
            return error
        error = error.__cause__
    return None
