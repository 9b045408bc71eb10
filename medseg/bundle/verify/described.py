"""What the metadata says: against its schema, and against itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medseg.bundle.verify.opened import METADATA, Opened, mapping
from medseg.bundle.verify.schema import metadata_schema, problems
from medseg.findings import Finding, error, warning
from medseg.labels import BACKGROUND

SCHEMA_URL = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"


def check(bundle: Opened) -> Iterator[Finding]:
    """Findings on `configs/metadata.json`."""
    metadata = bundle.metadata
    if not metadata:
        return  # that it is missing or unreadable has been said
    whole = metadata_schema()
    for path, message in problems(metadata, whole, whole):
        yield error("metadata-schema", bundle.location(METADATA, path), message, "MONAI's specification says so.")
    if not isinstance(metadata.get("schema"), str):
        yield warning(
            "schema-missing",
            bundle.location(METADATA, "schema"),
            "the address of MONAI's schema is not there, and verify_metadata of MONAI refuses that",
            f"Name it: {SCHEMA_URL}",
        )
    version, changelog = metadata.get("version"), metadata.get("changelog")
    if isinstance(version, str) and (not isinstance(changelog, dict) or version not in changelog):
        known = ", ".join(mapping(changelog)) or "none"
        yield error(
            "version-changelog",
            bundle.location(METADATA, "changelog"),
            f"version {version} is not in it, only {known}",
            "Say there what is new in it.",
        )
    for side in ("inputs", "outputs"):
        for name, value in mapping(mapping(metadata.get("network_data_format")).get(side)).items():
            yield from _channels(bundle, f"network_data_format#{side}#{name}", mapping(value))


def _channels(bundle: Opened, path: str, value: Any) -> Iterator[Finding]:
    channels, names = value.get("num_channels"), value.get("channel_def")
    if not isinstance(channels, int) or not isinstance(names, dict):
        return
    if list(names) != [str(number) for number in range(len(names))]:
        yield error(
            "channel-def",
            bundle.location(METADATA, f"{path}#channel_def"),
            "its keys are not the numbers 0, 1, 2 and on in their order",
            "Name each channel by its number.",
        )
    elif len(names) not in {channels, _with_background(names, channels)} and channels != 1:
        # one channel may hold the numbers of all
        yield error(
            "channel-def",
            bundle.location(METADATA, f"{path}#channel_def"),
            f"it names {len(names)} channels, and num_channels says {channels}",
            "One of them is wrong.",
        )
    twice = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
    if twice:
        yield warning(
            "channel-def",
            bundle.location(METADATA, f"{path}#channel_def"),
            f"more than one channel is called {', '.join(map(str, twice))}",
            "Give each a name of its own.",
        )


def _with_background(names: Mapping[str, str], channels: int) -> int:
    """How many names there may be besides: independent channels have none for the background of their label map."""
    return channels + 1 if str(names.get("0", "")).lower() == BACKGROUND else channels
