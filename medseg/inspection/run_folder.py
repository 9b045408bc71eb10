"""What the folder of a run brings beside its configs: a command that `medseg runs resume` gives again, its monitor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.findings import Finding, error
from medseg.inspection.commands import value_of
from medseg.inspection.configs import judge, strings
from medseg.inspection.names import printable
from medseg.inspection.universe import UnreadableError, parse

RECORD, SETTINGS = "run.json", "monitor/settings.json"
_TRUST = "Read it; if you trust who made the run, give --trust."


def check(name: str, content: Mapping[str, Any]) -> Iterator[Finding]:
    """What in a file of a run's folder could run or send something.

    Args:
        name: the file's name in the folder.
        content: the JSON that it holds.
    """
    if name == RECORD:
        yield from _command(content.get("command"))
    elif name == SETTINGS and content.get("base_url") not in (None, ""):
        said = f"the run is told to '{printable(str(content['base_url']))}', with the key that is stored for W&B"
        yield error("sends-elsewhere", name, said, _TRUST)


def of_run(folder: Path) -> list[Finding]:
    """What in a run's folder could run or send something when it is gone on with, its configs aside.

    Args:
        folder: the run's.
    """
    found: list[Finding] = []
    for name in (RECORD, SETTINGS):
        path = folder / name
        if path.is_file():
            try:
                found += check(name, parse(path.read_bytes()))
            except (OSError, UnreadableError) as problem:
                found.append(error("command-unsafe", name, str(problem), _TRUST))
    return found


def _command(command: Any) -> Iterator[Finding]:
    """Overrides are evaluated like what stands in a config, and the program is Python's."""
    if command is None:
        return
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        yield error("command-unsafe", "run.json, command", "it is no list of words", _TRUST)
        return
    changes = overrides(command[1:])
    for key, value in changes.items():
        if key.replace("#", "::").rpartition("::")[2] == "base_url" and value:
            yield error(
                "sends-elsewhere",
                "run.json, command",
                f"the run would be told to '{printable(str(value))}'",
                _TRUST,
            )
        elif "base_url" in list(strings(value)):
            yield error(
                "sends-elsewhere",
                "run.json, command",
                f"'{printable(key)}' names a server to tell of the run",
                _TRUST,
            )
    try:
        found = judge({"run.json, command": changes})
    except UnreadableError as problem:
        yield error("command-unsafe", "run.json, command", str(problem), _TRUST)
        return
    for finding in found.findings:
        yield error("command-unsafe", finding.location, finding.message, _TRUST)


def overrides(words: Sequence[str]) -> dict[str, Any]:
    """What the words of a command override: `KEY=VALUE`, and `--KEY VALUE` as MONAI's command has it.

    >>> overrides(["train", "unet2d", "lr=0.1", "--seed", "3"])
    {'lr': 0.1, 'seed': 3}
    """
    found: dict[str, Any] = {}
    for number, word in enumerate(words):
        if word.startswith("--") and "=" not in word:
            if number + 1 < len(words) and not words[number + 1].startswith("--"):
                found[word[2:]] = value_of(words[number + 1])
        elif "=" in word:
            key, _, text = word.removeprefix("--").partition("=")
            found[key] = value_of(text)
    return found


def metrics(metadata: Mapping[str, Any], record: Any) -> dict[str, Any]:
    """What is said of a bundle's results: its metadata's `eval_metrics`, and the best score of a run."""
    said = metadata.get("eval_metrics")
    found = {printable(str(key), 80): value for key, value in said.items()} if isinstance(said, Mapping) else {}
    if isinstance(record, Mapping):
        found |= {key: record[key] for key in ("best_dice", "best_epoch") if isinstance(record.get(key), (int, float))}
    return {key: value for key, value in found.items() if isinstance(value, (int, float, str))}
