"""Where bundles, overlays and runs are looked for by name; no config needs to be read for it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from medseg.records import RECORD, find_runs

RUNS_VARIABLE = "MEDSEG_RUNS"


def homes() -> list[Path]:
    """Folders that may hold `bundles`, `configs` and `runs`: here, beside the package, where a wheel puts them."""
    beside = Path(__file__).resolve().parents[1]
    return [Path(), beside, installed()]


def installed() -> Path:
    """Where a wheel puts bundles and overlays."""
    return Path(sys.prefix, "share", "medseg")


def runs_dir(root: str) -> str:
    """Where the runs of a bundle go, unless `output_dir` says otherwise.

    For the folder of a run, where that one lies; else `MEDSEG_RUNS`, where it is set; for a bundle in a folder
    `bundles`, the folder `runs` beside that, unless a wheel put it there; else `runs` in the working directory.
    """
    folder = Path(root).resolve()
    if (folder / RECORD).is_file():
        return str(folder.parents[1])
    if os.environ.get(RUNS_VARIABLE):
        return os.environ[RUNS_VARIABLE]
    beside = folder.parent.name == "bundles" and folder.parents[1] != installed().resolve()
    return str(folder.parents[1] / "runs" if beside else Path("runs").resolve())


def runs_root(given: str | Path | None = None) -> Path:
    """The folder in which runs are looked for.

    What is given; else `MEDSEG_RUNS`; else the first folder `runs`, of those in which a bundle's runs may lie,
    that holds any; `runs` in the working directory where none does.
    """
    said = given or os.environ.get(RUNS_VARIABLE)
    if said:
        return Path(said).resolve()
    places = [home / "runs" for home in homes()]
    return next((location.resolve() for location in places if find_runs(location)), places[0].resolve())


def find_recipe(name: str, config: str = "train") -> Path | None:
    """The config of the bundle of that name among those that are known; None where there is none."""
    files = [home / "bundles" / name / "configs" / f"{config}.json" for home in homes()]
    return next((file for file in files if file.is_file()), None)
