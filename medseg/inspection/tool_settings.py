"""Settings that other programs read from a bundle's folder: Python's logging, git, W&B, pip.

`logging.config.fileConfig` evaluates parts of its file as Python. A run notes the commit of the working directory, and
git runs what the settings of a repository name (`core.fsmonitor`, filters, hooks); a repository need not be called
`.git`. W&B sends its key to the server that a file `wandb/settings` names.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Container, Iterator

from medseg.findings import Finding, error, printable, warning

# Only a stream to the screen is harmless: a file handler writes where it is told, others send.
_LOGGING_OPTIONS = {
    "loggers": {"keys"},
    "handlers": {"keys"},
    "formatters": {"keys"},
    "logger": {"level", "handlers", "qualname", "propagate"},
    "handler": {"class", "level", "formatter", "args"},
    "formatter": {"format", "datefmt", "style", "class"},
}
_LOGGING_VALUES = {
    ("handler", "class"): {"StreamHandler", "logging.StreamHandler", "NullHandler", "logging.NullHandler"},
    ("handler", "args"): {"()", "(sys.stdout,)", "(sys.stderr,)", "(sys.stdout, )", "(sys.stderr, )"},
    ("formatter", "class"): {"logging.Formatter"},
    ("formatter", "style"): {"%", "{", "$"},
}
_LOGGING_FIX = "Let it log to the screen alone, or give --trust if you trust its maker."
_GIT_OPTIONS = {
    "core": {
        *("repositoryformatversion", "filemode", "bare", "logallrefupdates", "ignorecase", "precomposeunicode"),
        *("symlinks", "autocrlf", "eol"),
    },
    "remote": {"url", "fetch", "pushurl"},
    "branch": {"remote", "merge", "rebase"},
    "user": {"name", "email"},
    "pull": {"rebase", "ff"},
    "init": {"defaultbranch"},
    "lfs": {"repositoryformatversion"},
}
_SECTION = re.compile(r'\[\s*([\w.-]+)\s*(?:"[^"\\]*")?\s*\]')
_TOOL_FIX = "Remove it, or give --trust if you trust the bundle's maker."
_REQUIREMENT = re.compile(r"[A-Za-z0-9._-]+(\[[\w,.-]+\])?")
_VERSION = re.compile(r"\s*(===?|[<>!~]=|[<>])\s*[\w.*+!-]+\s*")


def check_logging(text: str, location: str) -> Iterator[Finding]:
    """Find what in a logging file could do more than print to the screen.

    Args:
        text: its content.
        location: the file's name.
    """
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error as problem:
        message = printable(f"it cannot be read as settings of logging: {str(problem).splitlines()[0]}")
        yield error("logging-unsafe", location, message, _LOGGING_FIX)
        return
    if parser.defaults():
        yield error("logging-unsafe", location, "its section DEFAULT goes into every other section", _LOGGING_FIX)
    for section in parser.sections():
        kind = section if section in ("loggers", "handlers", "formatters") else section.partition("_")[0]
        for option, value in parser.items(section):
            if option not in _LOGGING_OPTIONS.get(kind, ()) or not _is_harmless(kind, option, value):
                message = printable(f"it may do more than print to the screen: [{section}] {option} = {value}")
                yield error("logging-unsafe", location, message, _LOGGING_FIX)


def _is_harmless(kind: str, option: str, value: str) -> bool:
    """Return True if an option may have that value; outside of a format, `%` copies text from another section."""
    if (kind, option) in _LOGGING_VALUES:
        return value in _LOGGING_VALUES[kind, option]
    return (kind == "formatter" and option in ("format", "datefmt")) or "%" not in value


def is_tool_settings(name: str, names: Container[str]) -> bool:
    """Return True if git or W&B, started beside a file of that name, would read it.

    Args:
        name: its name in the bundle, in lower case.
        names: the names of all files.
    """
    folder, _, last = name.rpartition("/")
    prefix = f"{folder}/" if folder else ""
    if last == ".git" or name.endswith("wandb/settings") or ".git/hooks/" in f"/{name}":
        return not last.endswith(".sample")
    return last in ("config", "config.worktree") and any(f"{prefix}{head}" in names for head in ("HEAD", "head"))


def check_tool_settings(text: str, name: str, location: str) -> Iterator[Finding]:
    """Find what git or W&B would do with such a file.

    Args:
        text: its content.
        name: its name in the bundle, in lower case.
        location: its name as it is shown.
    """
    if name.endswith("wandb/settings"):
        yield error(
            "sends-elsewhere", location, "W&B, started in this folder, would take its server from it", _TOOL_FIX
        )
        return
    if name.rpartition("/")[2] == ".git" or ".git/hooks/" in f"/{name}":
        yield error("code-in-bundle", location, "git, started in this folder, would run what it names", _TOOL_FIX)
        return
    section = ""
    for line in text.splitlines():
        setting = line.strip()
        if not setting or setting[0] in "#;":
            continue
        heading = _SECTION.fullmatch(setting)
        if heading:
            section = heading[1].lower()
            continue
        key = setting.partition("=")[0].strip().lower()
        if key not in _GIT_OPTIONS.get(section, ()) or setting.endswith("\\") or "ext::" in setting.lower():
            message = printable(f"git, started in this folder, may run what it sets: [{section}] {setting}")
            yield error("code-in-bundle", location, message, _TOOL_FIX)


def check_requirements(text: str, location: str) -> Iterator[Finding]:
    """Find lines that make pip take a package from elsewhere than its index, or run something."""
    for line in text.splitlines():
        requirement = line.split("#")[0].strip().removesuffix("\\").strip()
        name = _REQUIREMENT.match(requirement)
        versions = requirement
        if name and not requirement.startswith("-"):
            versions = requirement[name.end() :].split(" --hash=")[0]
        plain = not versions or all(map(_VERSION.fullmatch, versions.split(",")))
        if not plain and not re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", requirement):
            message = f"'{printable(requirement, 100)}' would bring a package from elsewhere"
            yield warning("requirements-elsewhere", location, message, "Install what it names by hand.")
