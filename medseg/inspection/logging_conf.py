"""Settings of Python's logging as a bundle brings them: `fileConfig` evaluates parts of them as Python.

Only a stream to the screen is known to be harmless. A file handler writes where it is told, with a text of the
bundle's; others send. Options that some version of Python evaluates (`args`, `kwargs`, `defaults`) may hold nothing of
their own.
"""

from __future__ import annotations

import configparser
from collections.abc import Iterator

from medseg.findings import Finding, error
from medseg.inspection.names import printable

_OPTIONS = {
    "loggers": {"keys"},
    "handlers": {"keys"},
    "formatters": {"keys"},
    "logger": {"level", "handlers", "qualname", "propagate"},
    "handler": {"class", "level", "formatter", "args"},
    "formatter": {"format", "datefmt", "style", "class"},
}
_VALUES = {
    ("handler", "class"): {"StreamHandler", "logging.StreamHandler", "NullHandler", "logging.NullHandler"},
    ("handler", "args"): {"()", "(sys.stdout,)", "(sys.stderr,)", "(sys.stdout, )", "(sys.stderr, )"},
    ("formatter", "class"): {"logging.Formatter"},
    ("formatter", "style"): {"%", "{", "$"},
}
_REMEDY = "Let it log to the screen alone, or give --trust if you trust who made the bundle."


def check(text: str, location: str) -> Iterator[Finding]:
    """What in a logging file could do more than print.

    Args:
        text: its content.
        location: the file's name.
    """
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error as problem:
        said = str(problem).splitlines()[0]
        yield error(
            "logging-unsafe",
            location,
            printable(f"it cannot be read as settings of logging: {said}"),
            _REMEDY,
        )
        return
    if parser.defaults():
        yield error("logging-unsafe", location, "it has defaults that are put into every section", _REMEDY)
    for section in parser.sections():
        kind = section if section in ("loggers", "handlers", "formatters") else section.partition("_")[0]
        for option, value in parser.items(section):
            if option in _OPTIONS.get(kind, ()) and _harmless(kind, option, value):
                continue
            said = printable(f"[{section}] {option} = {value}")
            yield error("logging-unsafe", location, f"it may do more than print to the screen: {said}", _REMEDY)


def _harmless(kind: str, option: str, value: str) -> bool:
    """Whether a known option may have that value; a `%` outside of a format puts in what stands elsewhere."""
    if (kind, option) in _VALUES:
        return value in _VALUES[kind, option]
    return (kind == "formatter" and option in ("format", "datefmt")) or "%" not in value
