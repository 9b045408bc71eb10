"""`medseg data check`: the dataset doctor on screen, as JSON, as a page and as a list of what to leave out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from PIL import Image
    from rich.table import Table

    from medseg.data.check import DatasetReport
    from medseg.data.checks.case import CaseSlice
    from medseg.findings import Finding

EXCLUDE = "exclude.txt"
PICTURES = 100
_STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}
_EXAMPLES = 3


@click.command("check")
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write everything that was found as JSON.")
@click.option("--html", "html_file", type=click.Path(path_type=Path), help="Write one page with pictures.")
@click.option(
    "--write-exclude",
    type=click.Path(path_type=Path),
    is_flag=False,
    flag_value=EXCLUDE,
    help=f"Write the ids of cases with an error, for training to leave out. Without a name: {EXCLUDE} here.",
)
@click.option("--workers", type=click.IntRange(min=0), help="Processes to read with. Default: by machine and set.")
@click.option("--patient", help="2D slices: a pattern (re) that finds the patient in a picture's name.")
@click.pass_context
def command(
    ctx: click.Context,
    root: Path,
    json_file: Path | None,
    html_file: Path | None,
    write_exclude: Path | None,
    workers: int | None,
    patient: str | None,
) -> int:
    """Look for faults in the data set in ROOT: its files, geometry, intensities, labels and split.

    Every file is read once and none is changed. Errors are what training cannot use or would learn wrongly from;
    warnings want a look; notes are facts. The exit code is 1 where there are errors.
    """
    from medseg.atomic import write_json
    from medseg.data import check_dataset
    from medseg.data import write_exclude as write

    for path in (json_file, html_file, write_exclude):
        _outside(path, root)
    report = check_dataset(root, workers=workers, pictures=PICTURES if html_file else 0, patient=patient)
    show(report)
    if json_file:
        write_json(json_file, report.to_dict())
    if html_file:
        from medseg.report import save_dataset_page

        save_dataset_page(html_file, report.to_dict(), {id: picture(one) for id, one in report.pictures.items()})
    if write_exclude:
        write(Path(write_exclude), report.excluded)
        count = len(report.excluded)
        click.echo(f"{count} {'case' if count == 1 else 'cases'} to leave out in {write_exclude}")
    return 1 if report.worst == "error" else 0


def _outside(path: Path | None, root: Path) -> None:
    """See that a report can be written there, before hours of reading, and that it is not in the data set."""
    from medseg.atomic import writable_folder
    from medseg.errors import OutputError

    if path is None:
        return
    if Path(path).resolve().is_relative_to(root.resolve()):
        raise OutputError(path, "must not lie inside the data set", str(root), "Choose a place beside it.")
    writable_folder(Path(path).parent)


def show(report: DatasetReport) -> None:
    """Print what was found: one row a kind of finding, errors first, then overlaps and a last line."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(f"{report.root}: {len(report.checked)} cases, {report.kind}", markup=False)
    groups: dict[tuple[str, str], list[Finding]] = {}
    for finding in report.findings:
        groups.setdefault((finding.severity, finding.code), []).append(finding)
    if groups:
        console.print(_findings(groups))
    if report.overlaps:
        console.print(_overlaps(report))
    counts = report.counts()
    said = ", ".join(f"{count} {name}{'' if count == 1 else 's'}" for name, count in counts.items())
    console.print(f"{said}; {len(report.excluded)} of {len(report.checked)} cases have an error", markup=False)


def _findings(groups: dict[tuple[str, str], list[Finding]]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, show_edge=False, pad_edge=False)
    table.add_column("finding", no_wrap=True)
    table.add_column("n", justify="right")
    table.add_column("where and what")
    for (severity, code), found in groups.items():
        most = _EXAMPLES if severity != "note" else 1
        text = Text("\n".join(_line(one) for one in found[:most]))
        if len(found) > most:
            text.append(f"\n... and {len(found) - most} more")
        if found[0].fix:
            text.append(f"\n{found[0].fix}", style="italic")
        table.add_row(Text(f"{severity}\n{code}", style=_STYLES[severity]), str(len(found)), text)
    return table


def _line(one: Finding) -> str:
    location = one.location.removeprefix(one.case).removeprefix("/") if one.case else one.location
    where = ", ".join(part for part in (one.case, location) if part)
    return f"{where}: {one.message}" if where else one.message


def _overlaps(report: DatasetReport) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title="Overlaps", box=box.SIMPLE, show_edge=False, pad_edge=False, title_justify="left")
    table.add_column("structures")
    table.add_column("voxels", justify="right")
    ordered = sorted(report.overlaps.items(), key=lambda item: -item[1])
    for (one, other), voxels in ordered[:10]:
        table.add_row(f"{one}, {other}", str(voxels))
    if len(ordered) > 10:
        table.add_row(f"... and {len(ordered) - 10} pairs more", str(sum(voxels for _, voxels in ordered[10:])))
    return table


def picture(one: CaseSlice) -> Image.Image:
    """One slice with its structures in colour, in the radiologist's view."""
    from medseg.labels import LabelMap
    from medseg.report import slice_image

    return slice_image(one.hu, one.label, one.grid, LabelMap(one.names or ("nothing",)))
