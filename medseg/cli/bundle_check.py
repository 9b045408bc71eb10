"""`medseg bundle inspect` and `medseg bundle verify`: what a bundle would run, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from medseg.inspection import Inspection

_SHOWN = 8
_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
_COLORS = {"error": "red", "warning": "yellow", "note": "bright_black"}


@click.command(short_help="Show what a bundle is and would run, without running any of it.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option("--all", "show_all", is_flag=True, help="List also what is known to be safe.")
def inspect(path: Path, as_json: bool, show_all: bool) -> int:
    """Show what the bundle in PATH (a folder, a zip, or a name) is and would run, without running any of it.

    Every component and every expression of its configs is compared with the list of those that are known to be safe;
    pickles among its files, its logging settings and the zip itself are checked too. An error is what could do harm:
    medseg does not run such a bundle unless you give --trust. Warnings and notes are worth a look. The exit code is 1
    if there are errors.

    \b
    medseg bundle inspect from-a-colleague.zip
    medseg bundle inspect unet2d --json
    """
    from medseg.inspection import inspect_bundle

    inspection = inspect_bundle(_bundle_path(path))
    if as_json:
        click.echo(json.dumps(inspection.to_dict(), indent=2, ensure_ascii=True))
    else:
        show(inspection, show_all)
    return 0 if inspection.trusted else 1


def _bundle_path(path: Path) -> Path:
    """Return the path itself, or the folder of the bundle of that name."""
    from medseg.search_path import search_path

    candidates = [path, *(home / "bundles" / path for home in search_path())]
    return next((candidate for candidate in candidates if candidate.exists()), path)


def show(inspection: Inspection, show_all: bool = False) -> None:
    """Print what a bundle is, what it would run, and the findings."""
    from rich.text import Text

    from medseg.cli.tables import console, table
    from medseg.findings import printable

    screen = console()
    heading = " ".join(part for part in (inspection.name, inspection.version) if part)
    screen.print(Text(f"{heading}  ({inspection.kind} {printable(str(inspection.path))})", style="bold"))
    for line in _summary(inspection):
        screen.print(Text(line))
    unknown = [part for part in inspection.parts if not part.allowed]
    counts = [
        f"{sum(part.kind == kind for part in inspection.parts)} {kind}s, "
        f"{sum(part.kind == kind for part in unknown)} of them not known to be safe"
        for kind in ("target", "expression")
    ]
    screen.print(Text("Would run: " + "; ".join(counts)))
    listed = inspection.parts if show_all else unknown
    if listed:
        rows = [
            [part.kind, printable(part.location, 60), printable(part.text, 60), printable(part.reason, 80)]
            for part in listed
        ]
        screen.print(table("", ["kind", "location", "text", "why it is not known"], rows, left=(0, 1, 2, 3)))
    for finding in inspection.findings:
        screen.print(Text(str(finding), style=_STYLES[finding.severity]))
    trusted = "Trusted: nothing in it is known to do harm." if inspection.trusted else "Not trusted."
    screen.print(Text(trusted))


def _summary(inspection: Inspection) -> list[str]:
    names = list(inspection.classes.values())
    more = ", ..." if len(names) > _SHOWN else ""
    size = sum(inspection.files.values())
    weights = [name for name in inspection.files if name.startswith("models/model.") or name == "checkpoints/best.pt"]
    lines = [
        inspection.description,
        f"License: {inspection.license or 'not given'}",
        f"Classes: {len(names)}" + (f" ({', '.join(names[:_SHOWN])}{more})" if names else ""),
        f"Weights: {', '.join(weights) or 'none'}",
        f"Files: {len(inspection.files)}, {size / 1e6:.1f} MB",
        "Metrics: " + (", ".join(f"{key} {value}" for key, value in inspection.metrics.items()) or "not stated"),
    ]
    return [line for line in lines if line]


@click.command()
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--trust", is_flag=True, help="Apply the rules even if inspection finds code not known to be safe.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def verify(root: Path, trust: bool, as_json: bool) -> int:
    """Check that the bundle ROOT (a folder, a zip, or a name) is complete, consistent and does what it says.

    It is inspected first, which runs nothing of it. If that finds nothing unsafe, or with --trust, the rules follow:
    files and keys, metadata, packages, components with their arguments, references, the network against the metadata,
    weights, classes, and whether training, evaluation and inference agree. For these the bundle's components are
    imported and its network is built.

    The exit code is 1 if there are errors, and 0 with warnings and notes. docs/reference/bundle-findings.md explains
    each kind of finding.

    \b
    medseg bundle verify bundles/lesions
    medseg bundle verify from-a-colleague.zip --json
    """
    from medseg.bundle.verify import verify_bundle
    from medseg.findings import SEVERITIES, printable, worst
    from medseg.runs.find import find_bundle

    root = root if root.exists() else find_bundle(root)
    findings = verify_bundle(root, trust)
    counts = {severity: sum(finding.severity == severity for finding in findings) for severity in SEVERITIES}
    if as_json:
        content = {"root": str(root), "counts": counts, "findings": [finding.to_dict() for finding in findings]}
        click.echo(json.dumps(content, indent=2))
    else:
        for finding in findings:
            texts = (finding.location, finding.message, finding.fix)
            location, message, fix = (printable(text, len(text)) for text in texts)
            head = click.style(f"{finding.severity} {finding.code}", fg=_COLORS[finding.severity])
            click.echo(f"{head}  {location}\n    {message}" + (f"\n    {fix}" if fix else ""))
        summary = ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items())
        click.echo(f"{root}: {summary if findings else 'no findings'}")
    return 1 if worst(findings) == "error" else 0
