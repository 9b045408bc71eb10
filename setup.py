"""Find the files of the bundles and overlays for a wheel; everything else stands in setup.cfg."""

from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
# Not what a run or a prediction may have left there.
NAMES = ("LICENSE", "configs/*.json", "configs/*.conf", "docs/*.md")


def data_files() -> list[tuple[str, list[str]]]:
    """Return the files of each folder of a bundle, and of the overlays, by the folder that a wheel puts them in."""
    paths = [*ROOT.glob("configs/*.json"), *(path for name in NAMES for path in ROOT.glob(f"bundles/*/{name}"))]
    folders: dict[str, list[str]] = {}
    for path in sorted(path.relative_to(ROOT) for path in paths):
        folders.setdefault(f"share/medseg/{path.parent.as_posix()}", []).append(path.as_posix())
    return list(folders.items())


setup(data_files=data_files())
