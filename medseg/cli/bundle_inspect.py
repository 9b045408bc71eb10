"""`medseg bundle inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from medseg.inspection import Inspection

_SHOWN = 8
_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


@click.command(short_help="Say what a bundle is and would run, without running anything of it.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--all", "everything", is_flag=True, help="List what is known to be harmless, too.")
def command(path: Path, as_json: bool, everything: bool) -> int:
    """Say what the bundle in PATH (a folder, a zip, or a name) is and would run, without running anything of it.

    Every component and every expression of its configs is held against the list of those that are known to be
    harmless; so are pickles among its files, its logging settings, and the zip itself. An error is what could do harm:
    medseg does not run such a bundle unless --trust is given. Warnings and notes want a look. The exit code is 1 where
    there are errors.

    \b
    medseg bundle inspect from-a-colleague.zip
    medseg bundle inspect unet2d --json
    """
    from medseg.inspection import inspect_bundle

    found = inspect_bundle(_located(path))
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=True))
    else:
        show(found, everything)
    return 0 if found.trusted else 1


def _located(path: Path) -> Path:
    """The path itself, or the folder of a bundle of that name where bundles lie."""
    from medseg.search_path import search_path

    places = [path, *(home / "bundles" / path for home in search_path())]
    return next((location for location in places if location.exists()), path)


def show(found: Inspection, everything: bool = False) -> None:
    """Print what a bundle is, what it would run, and what was found."""
    from rich.text import Text

    from medseg.cli.tables import console, table
    from medseg.findings import printable

    screen = console()
    heading = " ".join(part for part in (found.name, found.version) if part)
    screen.print(Text(f"{heading}  ({found.kind} {printable(str(found.path))})", style="bold"))
    for line in _about(found):
        screen.print(Text(line))
    unknown = [part for part in found.parts if not part.allowed]
    counts = [
        f"{sum(part.kind == kind for part in found.parts)} {kind}s, "
        f"{sum(part.kind == kind for part in unknown)} of them not known to be harmless"
        for kind in ("target", "expression")
    ]
    screen.print(Text("Would run: " + "; ".join(counts)))
    listed = found.parts if everything else unknown
    if listed:
        rows = [
            [
                part.kind,
                printable(part.location, 60),
                printable(part.text, 60),
                printable(part.reason, 80),
            ]
            for part in listed
        ]
        screen.print(table("", ["kind", "place", "what", "why it is not known"], rows, left=(0, 1, 2, 3)))
    for one in found.findings:
        screen.print(Text(str(one), style=_STYLES[one.severity]))
    screen.print(Text("Trusted: nothing was found that could do harm." if found.trusted else "Not trusted."))


def _about(found: Inspection) -> list[str]:
    names = list(found.classes.values())
    more = ", ..." if len(names) > _SHOWN else ""
    size = sum(found.files.values())
    lines = [
        found.description,
        f"License: {found.license or 'not given'}",
        f"Classes: {len(names)}" + (f" ({', '.join(names[:_SHOWN])}{more})" if names else ""),
        f"Files: {len(found.files)}, {size / 1e6:.1f} MB",
        "Metrics: " + (", ".join(f"{key} {value}" for key, value in found.metrics.items()) or "none are named"),
    ]
    return [line for line in lines if line]
