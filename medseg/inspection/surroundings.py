"""Files that programs read from the folder they are started in: git's and W&B's settings.

A run notes the commit of the working directory, and git runs what the settings of a repository name (`core.fsmonitor`,
filters, hooks). A repository may lie in a folder without being called `.git`. W&B sends its key to the server that a
file `wandb/settings` names.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

from medseg.findings import Finding, error
from medseg.inspection.names import printable

_HARMLESS = {
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
_TRUST = "Remove it; if you trust who made the bundle, give --trust."


def is_meant(name: str, names: Container[str]) -> bool:
    """Whether a file of that name, in lower case, is read by a program started beside it.

    Args:
        name: its name in the bundle.
        names: those of all files.
    """
    folder, _, last = name.rpartition("/")
    above = f"{folder}/" if folder else ""
    if last == ".git" or name.endswith("wandb/settings") or ".git/hooks/" in f"/{name}":
        return not last.endswith(".sample")
    return last in ("config", "config.worktree") and any(f"{above}{one}" in names for one in ("HEAD", "head"))


def check(text: str, name: str, location: str) -> Iterator[Finding]:
    """What such a file would do.

    Args:
        text: its content.
        name: its name in the bundle, in lower case.
        location: as it is shown.
    """
    if name.endswith("wandb/settings"):
        yield error("sends-elsewhere", location, "W&B, started in this folder, would take its server from here", _TRUST)
    elif name.rpartition("/")[2] == ".git" or ".git/hooks/" in f"/{name}":
        yield error("code-in-bundle", location, "git, started in this folder, would run what it names", _TRUST)
    else:
        yield from _git(text, location)


def _git(text: str, location: str) -> Iterator[Finding]:
    section = ""
    for line in text.splitlines():
        plain = line.strip()
        if not plain or plain[0] in "#;":
            continue
        heading = _SECTION.fullmatch(plain)
        if heading:
            section = heading[1].lower()
            continue
        key = plain.partition("=")[0].strip().lower()
        if key not in _HARMLESS.get(section, ()) or plain.endswith("\\") or "ext::" in plain.lower():
            said = f"git, started in this folder, may run what it says: [{section}] {plain}"
            yield error("code-in-bundle", location, printable(said), _TRUST)
