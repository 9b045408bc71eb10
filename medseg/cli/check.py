"""`medseg data check`: findings on a data set on screen, as JSON, as a page and as a list of cases to leave out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from medseg.cli.options import with_binarize, with_overwrite

if TYPE_CHECKING:
    from PIL import Image
    from rich.table import Table

    from medseg.data.check import DatasetReport
    from medseg.data.checks.case import Preview
    from medseg.findings import Finding

EXCLUDE = "exclude.txt"
PREVIEWS = 100
_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
_EXAMPLES = 3


@click.command("check")
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all findings as JSON.")
@click.option("--html", "html_file", type=click.Path(path_type=Path), help="Write one page with images.")
@click.option(
    "--write-exclude",
    type=click.Path(path_type=Path),
    is_flag=False,
    flag_value=EXCLUDE,
    help=f"Write the ids of cases with an error, for training to leave out. Without a name: {EXCLUDE} here.",
)
@click.option("--workers", type=click.IntRange(min=0), help="Processes to read with. Default: by machine and set.")
@with_binarize
@with_overwrite
@click.option("--patient", help="2D slices: a pattern (re) that finds the patient in an image's name.")
@click.pass_context
def command(
    ctx: click.Context,
    root: Path,
    json_file: Path | None,
    html_file: Path | None,
    write_exclude: Path | None,
    workers: int | None,
    binarize: float | None,
    overwrite: bool,
    patient: str | None,
) -> int:
    """Look for faults in the data set in ROOT: its files, geometry, intensities, labels and split.

    Every file is read once and none is changed. Errors are what training cannot use or would learn wrongly from;
    warnings need a look; notes are facts. The exit code is 1 if there are errors.
    """
    from medseg.atomic import write_json
    from medseg.data import check_dataset
    from medseg.data import write_exclude as write

    for path in (json_file, html_file, write_exclude):
        _require_writable(path, root, overwrite)
    report = check_dataset(root, workers, PREVIEWS if html_file else 0, patient, binarize)
    print_report(report)
    if json_file:
        write_json(json_file, report.to_dict())
    if html_file:
        from medseg.report import save_dataset_page

        images = {id: render_preview(preview) for id, preview in report.previews.items()}
        save_dataset_page(html_file, report.to_dict(), images)
    if write_exclude:
        write(Path(write_exclude), report.excluded)
        count = len(report.excluded)
        click.echo(f"{count} {'case' if count == 1 else 'cases'} to leave out in {write_exclude}")
    return 1 if report.worst == "error" else 0


def _require_writable(path: Path | None, root: Path, overwrite: bool) -> None:
    """Refuse a report inside the data set, over a file or where nothing can be written, before hours of reading."""
    from medseg.atomic import require_new, writable_folder
    from medseg.errors import OutputError

    if path is None:
        return
    if Path(path).resolve().is_relative_to(root.resolve()):
        problem = f"a report must not lie inside the data set {root}"
        raise OutputError(path, problem, "", "Choose a path beside it.")
    require_new([Path(path)], overwrite)
    writable_folder(Path(path).parent)


def print_report(report: DatasetReport) -> None:
    """Print the findings: one row per kind, errors first, then overlaps and a summary."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(f"{report.root}: {len(report.checked)} cases, {report.kind}", markup=False)
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in report.findings:
        groups.setdefault((finding.severity, finding.code), []).append(finding)
    if groups:
        console.print(_findings_table(groups))
    if report.overlaps:
        console.print(_overlaps_table(report))
    counts = ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in report.counts().items())
    console.print(f"{counts}; {len(report.excluded)} of {len(report.checked)} cases have an error", markup=False)


def _findings_table(groups: dict[tuple[str, str], list[Finding]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    table.add_column("finding", no_wrap=True)
    table.add_column("n", justify="right")
    table.add_column("place and problem")
    for (severity, code), findings in groups.items():
        limit = _EXAMPLES if severity != "note" else 1
        text = Text("\n".join(_line(finding) for finding in findings[:limit]))
        if len(findings) > limit:
            text.append(f"\n... and {len(findings) - limit} more")
        if findings[0].fix:
            text.append(f"\n{findings[0].fix}", style="italic")
        table.add_row(Text(f"{severity}\n{code}", style=_STYLES[severity]), str(len(findings)), text)
    return table


def _line(finding: Finding) -> str:
    location = finding.location.removeprefix(finding.case).removeprefix("/") if finding.case else finding.location
    subject = ", ".join(part for part in (finding.case, location) if part)
    return f"{subject}: {finding.message}" if subject else finding.message


def _overlaps_table(report: DatasetReport) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title="Overlaps", box=box.SIMPLE, show_edge=False, pad_edge=False, title_justify="left")
    table.add_column("structures")
    table.add_column("voxels", justify="right")
    ordered = sorted(report.overlaps.items(), key=lambda item: -item[1])
    for pair, voxels in ordered[:10]:
        table.add_row(", ".join(pair), str(voxels))
    if len(ordered) > 10:
        table.add_row(f"... and {len(ordered) - 10} more pairs", str(sum(voxels for _, voxels in ordered[10:])))
    return table


def render_preview(preview: Preview) -> Image.Image:
    """Draw one slice with its structures in color, in the radiologist's view."""
    from medseg.labels import LabelMap
    from medseg.report import slice_image

    return slice_image(preview.hu, preview.label, preview.grid, LabelMap(preview.names or ("nothing",)))
