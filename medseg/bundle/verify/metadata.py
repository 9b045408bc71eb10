"""Check `metadata.json`: against its schema, against itself, and its packages against those installed here."""

from __future__ import annotations

import functools
import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from medseg.bundle.verify.bundle_files import METADATA, BundleFiles, as_mapping
from medseg.errors import quoted
from medseg.findings import Finding, error, note, warning
from medseg.labels import BACKGROUND
from medseg.optional import require

SCHEMA = Path(__file__).with_name("metadata_schema.json")
SCHEMA_URL = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
_CORE = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}
_DISTRIBUTIONS = {"pytorch": "torch", "ignite": "pytorch-ignite"}  # names that bundles use, and pip's
_LONGEST = 60  # characters of a wrong value that are shown


def check_metadata(bundle: BundleFiles) -> Iterator[Finding]:
    """Find entries of the metadata that go against its schema or against each other."""
    metadata = bundle.metadata
    if not metadata:
        return  # missing or unreadable, which was reported already
    for path, message in schema_errors(metadata):
        yield error("metadata-schema", bundle.location(METADATA, path), message, "MONAI's specification asks for it.")
    if not isinstance(metadata.get("schema"), str):
        message = "the address of MONAI's schema is missing, and MONAI's verify_metadata needs it"
        yield warning("schema-missing", bundle.location(METADATA, "schema"), message, f"Add it: {SCHEMA_URL}")
    version, changelog = metadata.get("version"), metadata.get("changelog")
    if isinstance(version, str) and (not isinstance(changelog, dict) or version not in changelog):
        versions = ", ".join(as_mapping(changelog)) or "no version"
        message = f"version {version} is missing, the changelog has {versions}"
        yield error("version-changelog", bundle.location(METADATA, "changelog"), message, "Say what is new in it.")
    data_format = as_mapping(metadata.get("network_data_format"))
    for side in ("inputs", "outputs"):
        for name, tensor in as_mapping(data_format.get(side)).items():
            location = bundle.location(METADATA, f"network_data_format#{side}#{name}#channel_def")
            yield from _channels(location, as_mapping(tensor))


@functools.cache
def metadata_schema() -> dict[str, Any]:
    """Return the schema of `metadata.json` that comes with medseg."""
    return dict(json.loads(SCHEMA.read_text(encoding="utf-8")))


def schema_errors(metadata: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what goes against the schema: the path of each entry, and what is wrong with it.

    Raises:
        MissingExtraError: jsonschema is not installed.
    """
    jsonschema = require("jsonschema", extra="share")
    problems: dict[tuple[str, str], None] = {}  # in their order, each once
    for problem in jsonschema.Draft202012Validator(metadata_schema()).iter_errors(metadata):
        parts = [str(part) for part in problem.absolute_path]
        value = repr(problem.instance)
        short = value if len(value) <= _LONGEST else f"{value[:_LONGEST]}..."
        message = problem.message.replace(value, short)
        if problem.validator == "required":
            parts.append(message.split("'")[1])
        problems["#".join(parts), message] = None
    return list(problems)


def _channels(location: str, tensor: Mapping[str, Any]) -> Iterator[Finding]:
    count, names = tensor.get("num_channels"), tensor.get("channel_def")
    if not isinstance(count, int) or not isinstance(names, dict):
        return
    # one channel may hold the indices of all classes
    fits = count == 1 or len(names) in {count, _with_background(names, count)}
    if list(names) != [str(number) for number in range(len(names))]:
        message = "the keys are not the numbers 0, 1, 2, ... in their order"
        yield error("channel-def", location, message, "Name each channel by its number.")
    elif not fits:
        message = f"it names {len(names)} channels, and num_channels is {count}"
        yield error("channel-def", location, message, "Correct the wrong one.")
    repeated = sorted({str(name) for name in names.values() if list(names.values()).count(name) > 1})
    if repeated:
        message = f"more than one channel has the name {', '.join(repeated)}"
        yield warning("channel-def", location, message, "Give each channel its own name.")


def _with_background(names: Mapping[str, str], count: int) -> int:
    """Return how many names are right too: independent channels have none for the background of their label map."""
    return count + 1 if str(names.get("0", "")).lower() == BACKGROUND else count


def check_packages(bundle: BundleFiles) -> Iterator[Finding]:
    """Find packages that are missing, or older than those the bundle was made with."""
    entries = [(key, name, bundle.metadata.get(key), True) for key, name in _CORE.items()]
    for key, is_required in (("required_packages_version", True), ("optional_packages_version", False)):
        packages = as_mapping(bundle.metadata.get(key))
        entries += [(f"{key}#{name}", name, version, is_required) for name, version in packages.items()]
    for key, name, version, is_required in entries:
        if isinstance(version, str):
            yield from _package(bundle.location(METADATA, key), name, version, is_required)


def _package(location: str, name: str, text: str, is_required: bool) -> Iterator[Finding]:
    try:
        needed = Version(text.strip().removeprefix("=="))
    except InvalidVersion:
        yield error("version-form", location, f"'{text}' is not a version", "Write one such as 1.6.1.")
        return
    version = installed(name)
    if version is None:
        report = error if is_required else note
        yield report("package-missing", location, f"{name} is not installed", _pip_install(name, text))
    elif version < needed:
        is_breaking = is_required and version.release[:2] < needed.release[:2]
        report = error if is_breaking else warning
        message = f"the bundle was made with {name} {needed}, and {version} is installed"
        yield report("package-old", location, message, _pip_install(name, f">={needed}"))


def installed(name: str) -> Version | None:
    """Return the version of an installed package, by pip's name or the name it is imported by; None for none."""
    name = _DISTRIBUTIONS.get(name.lower(), name)
    version = _version(name)
    if version is not None:
        return version
    distributions = importlib.metadata.packages_distributions().get(name.replace("-", "_"), ())  # slow: only if needed
    versions = (_version(distribution) for distribution in distributions)
    return next((version for version in versions if version is not None), None)


def _version(distribution: str) -> Version | None:
    try:
        return Version(importlib.metadata.version(distribution))
    except (importlib.metadata.PackageNotFoundError, InvalidVersion):
        return None


def _pip_install(name: str, version: str) -> str:
    """Return the command that installs a package: by the extra of medseg that brings it, or by its own name."""
    extras = extras_of(name)
    if extras:
        return f"pip install {quoted(f'medseg[{extras[0]}]')}"
    return f"pip install {quoted(name + (version if version[:1] in '<>=!~' else f'>={version}'))}"


def extras_of(name: str) -> list[str]:
    """Return the extras of medseg that bring a package, the developers' left out."""
    try:
        requirements = [Requirement(text) for text in importlib.metadata.requires("medseg") or ()]
    except importlib.metadata.PackageNotFoundError:
        return []
    extras = []
    for requirement in requirements:
        if canonicalize_name(requirement.name) == canonicalize_name(name) and requirement.marker is not None:
            extra = str(requirement.marker).rpartition("extra ==")[2].strip(" \"'")
            if extra and extra != "dev":
                extras.append(extra)
    return extras
