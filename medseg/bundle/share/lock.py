"""The versions of all packages that a bundle was packed with, for pip."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement

import medseg

LOCK = "requirements.lock"


def locked(roots: Iterable[str]) -> dict[str, str]:
    """The packages that these need, with what those need in turn, as they are installed here: name to version.

    Args:
        roots: names of packages, or requirements with extras; one that is not installed is left out.
    """
    waiting = [Requirement(root) for root in roots]
    seen: set[tuple[str, frozenset[str]]] = set()
    found: dict[str, str] = {}
    while waiting:
        wanted = waiting.pop()
        name, extras = _normal(wanted.name), frozenset(wanted.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            installed = metadata.distribution(wanted.name)
        except metadata.PackageNotFoundError:
            continue
        found[name] = installed.version.partition("+")[0]  # pip takes the build that the platform has
        for text in installed.requires or ():
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append(needed)
    return dict(sorted(found.items()))


def lock_text(description: dict[str, Any]) -> str:
    """`requirements.lock` of a bundle: what medseg needs here, and what its metadata names beside it.

    Args:
        description: the bundle's metadata.
    """
    named = [*description.get("required_packages_version", {}), *description.get("optional_packages_version", {})]
    extras = sorted({extra for name in named for extra in _extras(name)})
    roots = [f"medseg[{','.join(extras)}]" if extras else "medseg", "monai", "torch", "numpy", *named]
    versions = locked(roots)
    versions.pop("medseg", None)
    system = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    head = [
        f"# What this bundle was packed with ({system}), beside medseg {medseg.__version__}.",
        f"# pip install -r {LOCK}, or: pip install medseg -c {LOCK}",
    ]
    return "\n".join([*head, *(f"{name}=={version}" for name, version in versions.items())]) + "\n"


def _extras(name: str) -> list[str]:
    """The extras of medseg that bring a package."""
    try:
        needs = [Requirement(text) for text in metadata.requires("medseg") or ()]
    except metadata.PackageNotFoundError:
        return []
    found = []
    for need in needs:
        said = re.search(r"extra == ['\"]([\w-]+)['\"]", str(need.marker or ""))
        if said and _normal(need.name) == _normal(name) and said[1] != "dev":
            found.append(said[1])
    return found


def _normal(name: str) -> str:
    """A package's name as PyPI compares it.

    >>> _normal("Huggingface_Hub")
    'huggingface-hub'
    """
    return re.sub(r"[-_.]+", "-", name).lower()
