"""The folders in which bundles, overlays and runs are looked for by name."""

from __future__ import annotations

import sys
from pathlib import Path


def search_path() -> list[Path]:
    """Return the folders that may hold `bundles`, `configs` and `runs`.

    These are the working directory, the checkout that this package lies in, and the place where a wheel puts them.
    """
    return [Path(), Path(__file__).resolve().parents[1], installed()]


def installed() -> Path:
    """Return the folder into which a wheel installs bundles and overlays."""
    return Path(sys.prefix, "share", "medseg")


def find_recipe(name: str, config: str = "train") -> Path | None:
    """Return the config of the bundle of that name, None where no such bundle is on the search path."""
    files = [root / "bundles" / Path(name).name / "configs" / f"{config}.json" for root in search_path()]
    return next((file for file in files if file.is_file()), None)
