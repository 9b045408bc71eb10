"""Find runs: where they lie, by name, by state."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medseg.errors import ConfigError, RunError, command_line, did_you_mean
from medseg.runs.record import FINISHED, RECORD, RUNNING, UNREADABLE, read_json, read_record
from medseg.runs.run import Run, run_state
from medseg.search_path import METADATA, bundles, search_path

logger = logging.getLogger(__name__)

RUNS_VARIABLE = "MEDSEG_RUNS"
# Names of devices on Windows, which no file there can have.
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(10))}
_LONGEST_NAME = 100  # letters: with the time before it and what lies in the folder, a path stays below Windows' 260


def runs_dir(bundle_root: str) -> str:
    """Return the folder for the runs of a bundle, unless `output_dir` names another.

    For the folder of a run it is where that run lies; else `MEDSEG_RUNS`, if it is set; else `runs` in the working
    directory.

    Args:
        bundle_root: the bundle's folder.
    """
    folder = Path(bundle_root).resolve()
    if (folder / RECORD).is_file():
        return str(folder.parents[1])
    return str(runs_root())


def require_run_name(name: Any) -> None:
    """Check the name of a run before anything starts: it becomes a part of its folder's name.

    Raises:
        ConfigError: it is empty or too long, or no file on some system can have it.
    """
    problem = ""
    if not isinstance(name, str) or not name.strip():
        problem = "it must be a text"
    elif len(name) > _LONGEST_NAME:
        problem = f"it has {len(name)} letters, and at most {_LONGEST_NAME} are possible"
    elif set(name) & set('/\\:*?"<>|') or not name.isprintable() or name[-1] in ". " or name[0] == ".":
        problem = 'it becomes the name of a folder, so it has none of / \\ : * ? " < > |, and no dot at its ends'
    elif name.partition(".")[0].lower() in DEVICES:
        problem = "this is the name of a device on Windows"
    if problem:
        shown = repr(name if not isinstance(name, str) or len(name) <= 40 else f"{name[:37]}...")
        raise ConfigError("run_name", problem, f"got {shown}", "Choose another name, such as first-try.")


def runs_root(folder: str | Path | None = None) -> Path:
    """Return the folder in which runs are looked for.

    Args:
        folder: returned as it is. Default: `MEDSEG_RUNS`; else `runs` in the working directory, where runs land.
    """
    return Path(folder or os.environ.get(RUNS_VARIABLE) or "runs").expanduser().resolve()


def find_runs(root: str | Path) -> list[Path]:
    """Return the folders of all runs under `root`, oldest first; hidden folders are left out.

    They lie in `<bundle>/<run>`; those of a demo and its like one folder deeper.
    """
    runs = {path.parent for depth in ("*", "*/*", "*/*/*") for path in Path(root).glob(f"{depth}/{RECORD}")}
    hidden = {run for run in runs if any(part.startswith(".") for part in run.relative_to(root).parts)}
    return sorted(runs - hidden, key=lambda folder: folder.name)


def find_run(name: str | Path, root: str | Path) -> Path:
    """Return the folder of a run by its path, by its name, or by a part of its name that no other run has.

    Raises:
        RunError: there is none, or there are several.
    """
    path = Path(name)
    if (path / RECORD).is_file():
        return path
    runs = find_runs(root)
    matches = matching(name, runs)
    if len(matches) == 1:
        return matches[0]
    names = [run.name for run in matches or runs]
    if matches:
        problem = f"{len(matches)} runs have this in their name, among them {', '.join(names[-5:])}"
        raise RunError(f"run '{name}'", problem, fix="Give more of the name.")
    fix = did_you_mean(str(name), names, f"The latest are: {', '.join(names[-5:])}." if names else "There are no runs.")
    raise RunError(f"run '{name}'", f"no run under {root} has this name", fix=fix)


def matching(name: str | Path, runs: Sequence[Path]) -> list[Path]:
    """Return the runs of a name; where none has it, those that have it as a part of theirs."""
    return [run for run in runs if run.name == str(name)] or [run for run in runs if str(name) in run.name]


def find_unfinished(parent: Path, identity: str) -> Path | None:
    """Return the latest run in a folder that has this identity and has not finished; None where there is none.

    Args:
        parent: the folder of the runs of a bundle.
        identity: see `medseg.training.run.identity`.
    """
    runs = []
    for path in parent.glob(f"*/{RECORD}"):
        if path.parent.name.startswith("."):
            continue  # a copy from a backup that a kill left incomplete
        record = read_json(path)
        if not record:
            logger.warning("%s cannot be read and is left out", path)
        elif record.get("identity") == identity and record.get("state") != FINISHED:
            runs.append((record.get("started", ""), path.parent))
    return max(runs)[1] if runs else None


def all_runs(root: str | Path) -> list[Run]:
    """Return all runs under `root`, the latest first."""
    return [Run(folder) for folder in reversed(find_runs(root))]


def pick(name: str | Path | None, root: str | Path) -> Path:
    """Return a run by folder, name or part of it; without a name the only running one, else the latest.

    Raises:
        RunError: there is none of that name, several, or none at all.
    """
    if name is not None:
        return find_run(name, root)
    runs = _some_runs(root)
    running = [run for run in runs if _state(run) == RUNNING]
    return running[0] if len(running) == 1 else runs[-1]


def pick_latest(name: str | Path | None, root: str | Path) -> Path:
    """Return a run by name; without a name the latest, whether it runs or not.

    Raises:
        RunError: see `pick`.
    """
    return _some_runs(root)[-1] if name is None else find_run(name, root)


def pick_resumable(name: str | Path | None, root: str | Path) -> Path:
    """Return a run by name; without a name the latest that neither runs nor has finished, else the latest finished one.

    Predictions that were recorded as runs are left out.

    Raises:
        RunError: see `pick`; or all of them are running.
    """
    if name is not None:
        return find_run(name, root)
    runs = [run for run in _some_runs(root) if read_json(run / RECORD).get("job_type") != "inference"]
    states = {run: _state(run) for run in runs}
    stopped = [run for run, state in states.items() if state not in (RUNNING, FINISHED)]
    finished = [run for run, state in states.items() if state == FINISHED]
    if not stopped and not finished:
        names = ", ".join(run.name for run in runs[-5:])
        raise RunError(root, f"every run here is running: {names}" if names else "there is no training here to resume")
    return (stopped or finished)[-1]


def pick_running(name: str | Path | None, root: str | Path) -> Path:
    """Return a run by name; without a name the only one that is running.

    Raises:
        RunError: none is running, or several are.
    """
    if name is not None:
        return find_run(name, root)
    running = [run for run in find_runs(root) if _state(run) == RUNNING]
    if len(running) == 1:
        return running[0]
    if not running:
        raise RunError(root, "no run is running here")
    raise RunError(root, f"{len(running)} runs are running: {', '.join(run.name for run in running)}", fix="Name one.")


def _some_runs(root: str | Path) -> list[Path]:
    runs = find_runs(root)
    if not runs:
        raise RunError(root, "there are no runs here", fix="Name their folder with --runs DIR or MEDSEG_RUNS.")
    return runs


def _state(folder: Path) -> str:
    try:
        return run_state(folder, read_record(folder))
    except RunError:
        return UNREADABLE


def find_bundle(name: str | Path) -> Path:
    """Return the folder of a bundle or of a run, by path or by name.

    Raises:
        ConfigError: there is none; the error lists the names there are.
        RunError: several runs have this in their name.
    """
    path = Path(name).expanduser()
    for folder in [path, *(home / "bundles" / path for home in search_path())]:
        if (folder / METADATA).is_file():
            return folder
    root = runs_root()
    runs = [run for run in find_runs(root) if (run / METADATA).is_file()] if len(path.parts) == 1 else []
    if matching(name, runs):
        return find_run(name, root)
    names = sorted(bundles())
    fix = did_you_mean(
        str(name), names, f"Give a folder, or one of these names: {', '.join(names) or 'there are none'}."
    )
    problem = "there is no bundle or run of that name"
    if path.is_file():
        problem = "this is a file, and a bundle is a folder"
        fix = f"Install it: {command_line('bundle', 'install', path)}." if path.suffix == ".zip" else fix
    elif path.is_dir():
        problem = f"the folder has no {METADATA}"
    raise ConfigError(f"bundle '{name}'", problem, fix=fix)
