"""`medseg bundle verify`: what is wrong with a bundle, rule by rule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from medseg.findings import Finding

_STYLES = {"error": "red", "warning": "yellow", "note": "bright_black"}


@click.command("verify")
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--trust", is_flag=True, help="Go on where inspection finds code that it does not know to be safe.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(root: Path, trust: bool, as_json: bool) -> int:
    """Check that the bundle ROOT (a folder, a zip, or a name) is whole, consistent and does what it says.

    It is inspected first, and nothing of it is executed. Where that finds nothing unsafe, or with --trust, the rules
    follow: files and keys, metadata, packages, components with their arguments, references, the network against the
    metadata, weights, classes, and whether training, evaluation and inference agree. For these the bundle's components
    are imported and its network is built.

    The exit code is 1 where there are errors. Warnings and notes leave it at 0: warnings want a look, notes are facts.
    Each kind of finding is explained in docs/reference/bundle-findings.md.
    """
    from medseg.bundle import find_bundle
    from medseg.bundle.verify import verify_bundle
    from medseg.findings import SEVERITIES, worst

    root = root if root.exists() else find_bundle(root)
    findings = verify_bundle(root, trust)
    counts = {severity: sum(one.severity == severity for one in findings) for severity in SEVERITIES}
    if as_json:
        import json

        content = {"root": str(root), "counts": counts, "findings": [one.to_dict() for one in findings]}
        click.echo(json.dumps(content, indent=2))
    else:
        for one in findings:
            click.echo(_lines(one))
        said = ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items())
        click.echo(f"{root}: {said if findings else 'nothing found'}")
    return 1 if worst(findings) == "error" else 0


def _lines(one: Finding) -> str:
    from medseg.findings import printable

    head = click.style(f"{one.severity} {one.code}", fg=_STYLES[one.severity])
    location, message, fix = (printable(text, len(text)) for text in (one.location, one.message, one.fix))
    return f"{head}  {location}\n    {message}" + (f"\n    {fix}" if fix else "")
