"""`medseg list`: which bundles, overlays, structures and keys there are; without importing torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from medseg.cli.info import channels_of
from medseg.cli.tables import console, table
from medseg.config.keys import keys_of, shown, wording
from medseg.config.merge import read_config
from medseg.config.paths import at
from medseg.runs.find import find_bundle
from medseg.search_path import METADATA, USES, bundles, overlays

_DEFAULT_WIDTH = 40
_SHOWN = 6  # keys of an overlay


@click.command(short_help="List the bundles, overlays, structures and keys there are.")
@click.argument("what", type=click.Choice(["bundles", "overlays", "structures", "keys"]))
@click.argument("bundle", required=False)
@click.option(
    "--config", "use", type=click.Choice(USES), default="train", show_default=True, help="Keys: of which config."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(what: str, bundle: str | None, use: str, as_json: bool) -> None:
    """List what there is: bundles, overlays (for --with), structures and groups, keys (for KEY=VALUE and --set).

    With BUNDLE, a name or a folder: its own overlays too, the structures it was made for, its keys. Without it: the
    overlays that fit every bundle, the structures of TotalSegmentator, the keys of unet2d.

    \b
    medseg list bundles
    medseg list keys unet2d
    medseg list structures --json
    """
    root = None if bundle is None else find_bundle(bundle)
    if what == "bundles":
        if bundle is not None:
            raise click.UsageError("medseg list bundles takes no name; medseg info BUNDLE shows one bundle.")
        rows = [{"name": name, **_about(folder)} for name, folder in sorted(bundles().items())]
    elif what == "overlays":
        rows = [
            {"name": name, "file": str(path), "keys": list(read_config(path))} for name, path in overlays(root).items()
        ]
    elif what == "structures":
        rows = _structures(root)
    else:
        rows = key_rows(root or find_bundle("unet2d"), use)
    if as_json:
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    columns = list(rows[0]) if rows else []
    cells = [[_as_text(row[column]) for column in columns] for row in rows]
    console().print(table("", columns, cells, left=range(len(columns))))


def key_rows(root: Path, use: str = "train") -> list[dict[str, Any]]:
    """Return for each key that a bundle describes its default, its values in words and JSON Schema, and its meaning."""
    metadata, path = read_config(root / METADATA), root / "configs" / f"{use}.json"
    config = read_config(path)
    rows = []
    for key, schema in keys_of(config, metadata).items():
        unit = f", {schema['unit']}" if "unit" in schema else ""
        default = _default(at(config, key))
        meaning = str(schema.get("description", ""))
        rows.append({"key": key, "default": default, "values": wording(schema) + unit, "meaning": meaning})
    return rows


def _default(value: Any) -> str:
    """Return a default as a user would type it, and what is computed as such."""
    if isinstance(value, Mapping):
        return str(value.get("_target_", "...")).rpartition(".")[2]
    return "computed" if isinstance(value, str) and value[:1] in ("$", "@") else shown(value, _DEFAULT_WIDTH)


def _about(folder: Path) -> dict[str, Any]:
    metadata = read_config(folder / METADATA)
    weights = "yes" if any((folder / "models").glob("model.*")) else "no"
    return {"version": metadata.get("version"), "weights": weights, "task": metadata.get("task"), "folder": str(folder)}


def _structures(root: Path | None) -> list[dict[str, Any]]:
    """Return the structures of a bundle, or those of TotalSegmentator with their groups."""
    if root is None:
        from medseg.catalogue import catalogue

        return [{"index": entry["index"], "name": entry["name"], "group": entry["group"]} for entry in catalogue()]
    channels = channels_of(read_config(root / METADATA))
    return [{"index": int(index), "name": name} for index, name in channels.items() if index != "0"]


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value[:_SHOWN]) + (", ..." if len(value) > _SHOWN else "")
    return "" if value is None else str(value)
