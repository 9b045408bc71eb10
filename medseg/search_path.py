"""The folders in which bundles, overlays and runs are looked for by name, and what lies there."""

from __future__ import annotations

import functools
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from medseg.errors import ConfigError, did_you_mean

METADATA = "configs/metadata.json"
USES = ("train", "evaluate", "inference")  # the configs of a bundle; what else lies beside them are overlays
_SHARED = "share/medseg"


def search_path() -> list[Path]:
    """Return the folders that may hold `bundles`, `configs` and `runs`.

    These are the working directory, the checkout that this package lies in, and the folder where a wheel puts them.
    """
    return [Path(), Path(__file__).resolve().parents[1], installed()]


@functools.cache
def installed() -> Path:
    """Return the folder into which the wheel was installed with its bundles and overlays.

    That is below `sys.prefix`, unless pip was told `--user`, `--target` or `--prefix`: then its list of files tells.
    """
    folder = Path(sys.prefix, _SHARED)
    if folder.is_dir():
        return folder
    try:
        listed = [file for file in files("medseg") or () if f"{_SHARED}/configs/" in file.as_posix()]
    except PackageNotFoundError:  # a checkout that is not installed
        return folder
    return Path(str(listed[0].locate())).resolve().parents[1] if listed else folder


def find_recipe(name: str, config: str = "train") -> Path | None:
    """Return the config of the bundle of that name, None where no such bundle is on the search path."""
    configs = [root / "bundles" / Path(name).name / "configs" / f"{config}.json" for root in search_path()]
    return next((file for file in configs if file.is_file()), None)


def bundles() -> dict[str, Path]:
    """Return the folders of the bundles that have a name here; the first of each name."""
    folders: dict[str, Path] = {}
    for home in search_path():
        for path in sorted(home.glob(f"bundles/*/{METADATA}")):
            folder = path.parents[1]
            if not folder.name.startswith("."):  # an install that has not ended
                folders.setdefault(folder.name, folder)
    return folders


def overlays(root: Path | None = None) -> dict[str, Path]:
    """Return the overlays that have a name: those of a bundle, and those that fit every bundle.

    Args:
        root: the folder of the bundle; None for the common ones alone.
    """
    folders = [*([] if root is None else [root / "configs"]), *(home / "configs" for home in search_path())]
    by_name: dict[str, Path] = {}
    for path in (path for folder in folders for path in sorted(folder.glob("*.json"))):
        by_name.setdefault(path.stem, path)
    return {name: path for name, path in by_name.items() if name not in {*USES, "metadata", "tracking"}}


def find_overlay(name: str | Path, root: Path) -> Path:
    """Return the file of an overlay: a path, or a name in the bundle's `configs` or in the common `configs`.

    Raises:
        ConfigError: there is none; the error lists the names there are.
    """
    path = Path(name)
    file_name = path.name if path.suffix == ".json" else f"{path.name}.json"
    here, *others = search_path()
    # A name means medseg's own overlay before one of the working directory, which may be anyone's.
    folders = [root / "configs", *(home / "configs" for home in (*others, here))]
    files = [path, *(home / path for home in others)] if path.suffix == ".json" else []
    for file in [*files, *(folder / file_name for folder in folders)]:
        if file.is_file():
            return file
    names = sorted(overlays(root))
    fix = did_you_mean(path.stem, names, f"There are: {', '.join(names)}." if names else "")
    raise ConfigError(f"overlay '{name}'", "there is no JSON file or overlay of that name", fix=fix)
