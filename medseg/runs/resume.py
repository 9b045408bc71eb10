"""Going on with a run from its folder: which command that is, and starting it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.config.references import key_path
from medseg.errors import RunError
from medseg.inspection.trusting import require_trusted_command
from medseg.runs.detach import Detached, detach
from medseg.runs.run import SILENT_MINUTES, Run, run_state
from medseg.runs.find import RUNS_VARIABLE
from medseg.search_path import search_path
from medseg.runs.record import FINISHED, RUNNING, is_local, read_record
from medseg.seals import is_sealed

# Options of `medseg train` that take a value, and those that do not. The value says which key of the config they set.
VALUED = {"--data": "dataset_dir", "--with": "", "--backup": "backup"}
FLAGS = {"--fresh": "resume", "--detach": "", "--trust": ""}


@dataclass(frozen=True)
class Plan:
    """What goes on with a run.

    Args:
        command: program and arguments.
        folder: the working directory.
        environment: variables to add.
    """

    command: list[str]
    folder: Path
    environment: dict[str, str]


def plan(folder: str | Path, overrides: Sequence[str] = (), trust: bool = False) -> Plan:
    """The command that goes on with a run: the recorded one, told which run it is; or the run's folder as a bundle.

    The folder serves where the recorded command cannot be given again: it was no `medseg train` and no
    `monai.bundle run`, or its working directory or its bundle is gone.

    Args:
        folder: the run's folder.
        overrides: `KEY=VALUE`, overruling what the command says of these keys.
        trust: whether somebody said that run and bundle are trusted; that the command once said so does not count. The
            keys of a command that was given on this machine (`medseg.seals`) need no trust, such as a backup's address.

    Raises:
        RunError: it is running, or has finished and nothing is to be changed.
        UntrustedError: its record would do more than what is known to be harmless.
    """
    folder = Path(folder).resolve()
    record = read_record(folder)
    _require_resumable(folder, record, overrides)
    changes = dict(pair.partition("=")[::2] for pair in overrides)
    changes["resume"] = str(folder)
    runs = folder.parent.parent if folder.parent.name == record.get("bundle") else None
    where = Path(record.get("working_directory") or "/nowhere")
    here, arguments = Path(), None
    if where.is_dir():
        here, arguments = where, _again([str(one) for one in record.get("command") or []], changes, runs)
    if arguments is None or not _has_bundle(arguments, here):
        arguments = ["-m", "medseg", "train", str(folder), *(f"{key}={value}" for key, value in changes.items())]
    typed = {*changes, "resume", *(["output_dir"] if runs is not None else [])}
    if arguments[3:4] != [str(folder)] and is_sealed(record):  # typed here, by whoever goes on with it now
        typed |= {one.lstrip("-").partition("=")[0] for one in arguments}
    require_trusted_command(folder, arguments, here, trust, typed)
    if trust and arguments[1] == "medseg":
        arguments.append("--trust")
    environment = {RUNS_VARIABLE: str(runs)} if runs is not None else {}
    if Path(__file__).resolve().parents[2] != here.resolve():
        environment["PYTHONSAFEPATH"] = "1"  # a folder that the record names brings no module
    return Plan([sys.executable, *arguments], here.resolve(), environment)


def resume_detached(folder: str | Path, overrides: Sequence[str] = (), trust: bool = False) -> Detached:
    """Go on with a run in a process of its own that outlives this terminal; see `plan` and `detach`."""
    folder = Path(folder).resolve()
    work = plan(folder, overrides, trust)
    return detach(work.command, folder.parent.parent, folder=work.folder, environment=work.environment)


def resume_here(folder: str | Path, overrides: Sequence[str] = (), trust: bool = False) -> int:
    """Go on with a run in this terminal, which gets Ctrl-C and all output; its exit code.

    Raises:
        RunError, UntrustedError: see `plan`.
    """
    work = plan(folder, overrides, trust)
    with _signals_passed_on() as children:
        process = subprocess.Popen(work.command, cwd=work.folder, env={**os.environ, **work.environment})
        children.append(process)
        return process.wait()


@contextlib.contextmanager
def _signals_passed_on() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Ctrl-C reaches the child by itself and must not end its parent before it; SIGTERM is handed on to it."""
    children: list[subprocess.Popen[bytes]] = []
    if threading.current_thread() is not threading.main_thread():
        yield children
        return

    def hand_on(number: int, frame: object) -> None:
        for child in children:
            child.send_signal(number)

    before = {signal.SIGINT: signal.signal(signal.SIGINT, lambda number, frame: None)}
    before[signal.SIGTERM] = signal.signal(signal.SIGTERM, hand_on)
    try:
        yield children
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _require_resumable(folder: Path, record: Mapping[str, Any], overrides: Sequence[str]) -> None:
    thing, state = f"run '{folder.name}'", run_state(folder, record)
    if state == FINISHED and not overrides:
        fix = "To train on, say what is to change, as max_epochs=N."
        raise RunError(thing, "must be unfinished to be gone on with", "a finished one", fix)
    if state != RUNNING:
        return
    if is_local(record):
        fix = f"Stop it first: medseg runs stop {folder.name}"
        raise RunError(thing, "must not be running", f"process {record.get('pid')} at it", fix)
    minutes = (time.time() - (Run(folder).last_sign or 0.0)) / 60
    raise RunError(
        thing,
        "must not be running on another machine",
        f"a sign of life from {record.get('host')} {minutes:.0f} min ago",
        f"Stop it there; a machine that is gone counts as such after {SILENT_MINUTES} min of silence.",
    )


def _again(said: Sequence[str], changes: Mapping[str, str], runs: Path | None) -> list[str] | None:
    """The arguments for Python that give a recorded command again with changes; None where it cannot be understood."""
    if len(said) < 2:
        return None
    program, arguments = Path(said[0].replace("\\", "/")), list(said[1:])
    parents = program.parts[-3:]
    if program.stem in ("medseg", "medseg-script") or parents[-2:] == ("medseg", "__main__.py"):
        if arguments[0] == "--traceback":
            arguments = arguments[1:]
        return _again_train(arguments, changes, runs) if arguments[:1] == ["train"] else None
    if parents == ("monai", "bundle", "__main__.py") and arguments[0] == "run":
        return _again_monai(arguments, changes, runs)
    return None


def _again_train(arguments: Sequence[str], changes: Mapping[str, str], runs: Path | None) -> list[str]:
    options, words, rest = [], [], list(arguments[1:])
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name in FLAGS or word == "--":
            continue
        if name in VALUED:
            value = value if equals else rest.pop(0) if rest else ""
            if VALUED[name] not in changes:
                options += [name, value]
        else:
            words.append(word)
    pairs = [pair for pair in words[1:] if key_path(pair.partition("=")[0]) not in {key_path(key) for key in changes}]
    if runs is not None:
        pairs = [f"output_dir={runs}" if pair.startswith("output_dir=") else pair for pair in pairs]
    new = [f"{key}={value}" for key, value in changes.items()]
    return ["-m", "medseg", "train", *words[:1], *options, *pairs, *new]


def _again_monai(arguments: Sequence[str], changes: Mapping[str, str], runs: Path | None) -> list[str]:
    words: list[str] = []
    pairs: dict[str, str] = {}
    rest = list(arguments[1:])
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            words.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        pairs[name] = value if equals else rest.pop(0) if rest and not rest[0].startswith("--") else "True"
    left = {key: value for key, value in pairs.items() if key_path(key) not in {key_path(change) for change in changes}}
    if "output_dir" in left and runs is not None:
        left["output_dir"] = str(runs)
    left |= {key: _python(value) for key, value in changes.items()}
    return ["-m", "monai.bundle", "run", *words, *(part for key, value in left.items() for part in (f"--{key}", value))]


def _python(text: str) -> str:
    """A value as MONAI's command line reads it: JSON becomes a Python literal, the rest stays text."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str) else repr(value)


def _has_bundle(arguments: Sequence[str], here: Path) -> bool:
    if arguments[1] != "medseg":
        return True
    name = arguments[3]
    places = [here / name, *(here / home / "bundles" / name for home in search_path())]
    return any((location / "configs" / "metadata.json").is_file() for location in places)
