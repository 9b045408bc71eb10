"""The texts that are about to be shared, read for what tells of this machine and of the cases of a run."""

from __future__ import annotations

import getpass
import logging
import platform
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from medseg.bundle.verify.manifest import files_of
from medseg.errors import DataError

logger = logging.getLogger(__name__)

_TEXTS = {".json", ".md", ".txt", ".conf", ".csv", ".yaml", ".yml", ".toml", ".rst", ""}
_LEAST = 3  # letters of a word that is looked for: shorter ones stand anywhere
_ANYBODY = {"root", "user", "admin", "ubuntu", "localhost"}
_SHOWN = 5


class Word(NamedTuple):
    """A word that should not be in a bundle that is shared.

    Args:
        text: it.
        kind: what it is, in words.
        sure: whether nobody else would write it: then the bundle is refused, else it is a warning.
    """

    text: str
    kind: str
    sure: bool


def words_here(cases: Collection[str] = ()) -> list[Word]:
    """What tells of this machine, whoever works on it and these cases."""
    found = []
    for folder, kind in ((Path.home(), "your home folder"), (Path.cwd(), "the working directory")):
        if len(folder.parts) > 2:  # /tmp and /root are anybody's
            found.append(Word(str(folder), kind, True))
    for name, kind in ((_user(), "your user name"), (platform.node(), "this machine's name")):
        if len(name) >= _LEAST and name.lower() not in _ANYBODY:
            found.append(Word(name, kind, False))
    found += [Word(one, "a case's name", not one.isdecimal()) for one in sorted(cases) if len(one) >= _LEAST]
    return found


def read_through(
    folder: Path, words: Collection[Word], passed: Collection[str] = (), recipe: Path | None = None
) -> None:
    """Read all texts below a folder for words that should not be shared; those that may be others' are warnings.

    Args:
        folder: what is to be shared.
        words: see `words_here`.
        passed: names of cases that mean something else as well, such as structures.
        recipe: medseg's own recipe that it was made with: lines that stand there, too, tell of nobody.

    Raises:
        DataError: a text names somebody's folder or a case; says which line of which file.
    """
    wanted = [(word, _pattern(word.text)) for word in words if word.text not in passed]
    refused: list[str] = []
    for name, path in files_of(folder).items():
        if path.suffix.lower() not in _TEXTS:
            continue
        theirs = recipe / name if recipe is not None else None
        public = {line for _, line in _lines(theirs)} if theirs is not None and theirs.is_file() else set()
        for number, line in _lines(path):
            if line in public:
                continue
            for word, pattern in wanted:
                if not pattern.search(line):
                    continue
                said = f"{name}, line {number}: {word.kind}, '{word.text}'"
                if word.sure and not (
                    name.startswith("configs/") and word.kind == "a case's name" and _is_config(name)
                ):
                    refused.append(said)
                else:
                    logger.warning("%s; look whether it should be shared", said)
    if refused:
        more = f"; and {len(refused) - _SHOWN} more" if len(refused) > _SHOWN else ""
        raise DataError(
            "what is to be shared",
            "must name no folders of this machine and no cases",
            "; ".join(refused[:_SHOWN]) + more,
            "Take it out of the file, and pack again.",
        )


def _is_config(name: str) -> bool:
    """Whether a file is a config, which was freed of cases already: their names may be words that it needs."""
    return name.endswith(".json") and not name.endswith("/metadata.json")


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![A-Za-z0-9]){re.escape(text)}(?![A-Za-z0-9])")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    return iter(enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1))


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
