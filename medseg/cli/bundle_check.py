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
def inspect(path: Path, as_json: bool) -> int:
    """Show what the bundle in PATH (a folder, a zip, or a name) is, holds and would need, without running any of it.

    It says whether the bundle predicts without --trust, and if not, why: only literals, references and components that
    are listed run then. It looks into weights, pickles, arrays, programs and the zip itself. An error is what is unsafe
    to handle: such a bundle is not installed without --trust. Warnings and notes are worth a look. The exit code is 1
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
        show(inspection)
    return 0 if inspection.is_safe else 1


def _bundle_path(path: Path) -> Path:
    """Return the path itself, or the folder of the bundle of that name."""
    from medseg.search_path import search_path

    candidates = [path, *(home / "bundles" / path for home in search_path())]
    return next((candidate for candidate in candidates if candidate.exists()), path)


def show(inspection: Inspection) -> None:
    """Print what a bundle is, what needs trust, and the findings."""
    from rich.text import Text

    from medseg.cli.tables import console
    from medseg.errors import printable
    from medseg.runs.origin import is_own

    screen = console()
    heading = " ".join(part for part in (inspection.name, inspection.version) if part)
    screen.print(Text(f"{heading}  ({inspection.kind} {printable(str(inspection.path))})", style="bold"))
    for line in _summary(inspection):
        screen.print(Text(line))
    own = inspection.kind == "folder" and is_own(inspection.path)
    for use, reason in inspection.needs_trust.items() if not own else ():
        screen.print(Text(f"Needs --trust to {use}: {reason}"))
    if own:
        screen.print(Text("It is your own, and needs no --trust."))
    elif "configs/inference.json" in inspection.files and "predict" not in inspection.needs_trust:
        screen.print(Text("Predicts without --trust."))
    for finding in inspection.findings:
        screen.print(Text(str(finding), style=_STYLES[finding.severity]))


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
@click.option("--trust", is_flag=True, help="Let the rules import and evaluate what a bundle from elsewhere names.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def verify(root: Path, trust: bool, as_json: bool) -> int:
    """Check that the bundle ROOT (a folder, a zip, or a name) is complete, consistent and does what it says.

    It is inspected first, which runs nothing of it. If that finds nothing unsafe, or with --trust, the rules follow:
    files and keys, metadata, packages, components with their arguments, references, the network against the metadata,
    weights, classes, and whether training, evaluation and inference agree. For these the network is built; only of a
    bundle of your own, or with --trust, its other components are imported and its expressions evaluated.

    The exit code is 1 if there are errors, and 0 with warnings and notes. docs/reference/bundle-findings.md explains
    each kind of finding.

    \b
    medseg bundle verify bundles/lesions
    medseg bundle verify from-a-colleague.zip --json
    """
    from medseg.bundle.verify import verify_bundle
    from medseg.errors import printable
    from medseg.findings import SEVERITIES, worst
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
