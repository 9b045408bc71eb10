"""The packages that a bundle names: whether they are installed, and new enough."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from medseg.bundle.verify.opened import METADATA, Opened, mapping
from medseg.findings import Finding, error, note, warning

_CORE = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}
_DISTRIBUTIONS = {"pytorch": "torch", "ignite": "pytorch-ignite"}  # what bundles call them


def check(bundle: Opened) -> Iterator[Finding]:
    """Findings on packages that are missing or older than the bundle was made with."""
    wanted = [(key, name, bundle.metadata.get(key), True) for key, name in _CORE.items()]
    for key, required in (("required_packages_version", True), ("optional_packages_version", False)):
        wanted += [(f"{key}#{name}", name, said, required) for name, said in mapping(bundle.metadata.get(key)).items()]
    for key, name, said, required in wanted:
        if isinstance(said, str):
            yield from _one(bundle.location(METADATA, key), name, said, required)


def _one(location: str, name: str, said: str, required: bool) -> Iterator[Finding]:
    try:
        asked = Version(said.strip().removeprefix("=="))
    except InvalidVersion:
        yield error("version-form", location, f"'{said}' is no version", "Write one such as 1.6.1.")
        return
    found = installed(name)
    if found is None:
        say = error if required else note
        yield say("package-missing", location, f"{name} is not installed", f"pip install {_requirement(name, said)}")
    elif found < asked:
        breaking = required and found.release[:2] < asked.release[:2]
        say = error if breaking else warning
        yield say(
            "package-old",
            location,
            f"the bundle was made with {name} {asked}, and {found} is installed",
            f"pip install {_requirement(name, f'>={asked}')}",
        )


def installed(name: str) -> Version | None:
    """The version of a package, by its distribution's name or by the name that it is imported by; None for none."""
    name = _DISTRIBUTIONS.get(name.lower(), name)
    found = _version(name)
    if found is not None:
        return found
    brought = importlib.metadata.packages_distributions().get(name.replace("-", "_"), ())  # slow: only when needed
    return next((version for one in brought if (version := _version(one)) is not None), None)


def _version(distribution: str) -> Version | None:
    try:
        return Version(importlib.metadata.version(distribution))
    except (importlib.metadata.PackageNotFoundError, InvalidVersion):
        return None


def _requirement(name: str, version: str) -> str:
    """What to give to pip: the extra of medseg that brings the package, or the package itself."""
    extra = _extra(name)
    return f"'medseg[{extra}]'" if extra else f"'{name}{version if version[:1] in '<>=!~' else f'>={version}'}'"


def _extra(name: str) -> str | None:
    try:
        asked = importlib.metadata.requires("medseg") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for text in asked:
        requirement = Requirement(text)
        if canonicalize_name(requirement.name) == canonicalize_name(name) and requirement.marker is not None:
            extra = str(requirement.marker).rpartition("extra ==")[2].strip(" \"'")
            if extra and extra != "dev":
                return extra
    return None
