"""Write down the package versions that a bundle was trained and packed with, for people and for pip."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import medseg
from medseg.bundle.verify.metadata import extras_of
from medseg.runs.record import read_record

LOCK = "requirements.lock"
METADATA_KEYS = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}


def versions(root: Path, others: Iterable[str] = ()) -> dict[str, str]:
    """Return the versions that a run was trained with, without their builds; those installed here where it has none.

    Args:
        root: the folder of a bundle or a run.
        others: further packages to include.
    """
    recorded = read_record(root).get("versions", {})
    package_versions = {str(name): _without_build(str(version)) for name, version in recorded.items()}
    package_versions.setdefault("medseg", medseg.__version__)
    for name in (*METADATA_KEYS.values(), *others):
        if name not in package_versions:
            with contextlib.suppress(metadata.PackageNotFoundError):
                package_versions[name] = _without_build(metadata.version(name))
    return package_versions


def locked(roots: Iterable[str]) -> dict[str, str]:
    """Return packages and everything they need as installed here, name to version.

    Args:
        roots: names of packages, or requirements with extras; one that is not installed is left out.
    """
    waiting = [Requirement(root) for root in roots]
    visited: set[tuple[str, frozenset[str]]] = set()
    installed: dict[str, str] = {}
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in visited:
            continue
        visited.add((name, extras))
        try:
            distribution = metadata.distribution(requirement.name)
        except metadata.PackageNotFoundError:
            continue
        installed[name] = _without_build(distribution.version)
        for text in distribution.requires or ():
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append(needed)
    return dict(sorted(installed.items()))


def lock_text(description: dict[str, Any]) -> str:
    """Return the text of `requirements.lock`: what medseg needs here, and what the metadata names besides.

    Args:
        description: the bundle's metadata.
    """
    named = [*description.get("required_packages_version", {}), *description.get("optional_packages_version", {})]
    extras = sorted({extra for name in named for extra in extras_of(name)})
    packages = locked([f"medseg[{','.join(extras)}]" if extras else "medseg", "monai", "torch", "numpy", *named])
    packages.pop("medseg", None)
    system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    lines = [
        f"# What this bundle was packed with ({system}), besides medseg {medseg.__version__}.",
        f"# pip install -r {LOCK}, or: pip install medseg -c {LOCK}",
        *(f"{name}=={version}" for name, version in packages.items()),
    ]
    return "\n".join(lines) + "\n"


def _without_build(version: str) -> str:
    """Return a version without its build such as `+cu128`: pip takes the build that the platform has."""
    return version.partition("+")[0]
