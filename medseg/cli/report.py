"""`medseg report`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The HTML file.  [default: report.html in the run's folder]"
)
@click.option(
    "--csv", "tables", type=click.Path(path_type=Path), help="Write every series as CSV into this folder besides."
)
@click.option(
    "--runs",
    "root",
    type=click.Path(path_type=Path),
    help="Where runs are looked for by name.  [default: MEDSEG_RUNS, else runs]",
)
def command(run: str, output: Path | None, tables: Path | None, root: Path | None) -> None:
    """Write what RUN did as one HTML page: curves, Dice by structure, pictures, machine, warnings, settings.

    RUN is the folder of a run, its name, or a part of the name that only one run has. The page needs no other file and
    no network. A run that is going on is shown as it stands and goes on undisturbed.

    \b
    medseg report runs/unet2d/20261122-144812-demo
    medseg report demo -o demo.html --csv series
    """
    from medseg.report import find_recipe, read_run, save_run_page, save_series

    folder = _folder(run, root)
    if output is not None and output.is_dir():
        output = output / "report.html"
    found = read_run(folder)
    page = save_run_page(output or folder / "report.html", found, find_recipe(found))
    click.echo(f"Written: {page} ({page.stat().st_size / 1e6:.1f} MB)")
    if tables is not None:
        files = save_series(tables, found)
        click.echo(f"Written: {', '.join(file.name for file in files)} in {tables}")
    for note in found.notes:
        click.echo(note, err=True)


def _folder(run: str, root: Path | None) -> Path:
    """The run's folder: the path itself where it holds anything of a run, else by name."""
    from medseg.runs.find import find_run, runs_root
    from medseg.runs.record import HISTORY, METRICS_LOG

    given = Path(run)
    if any((given / name).is_file() for name in (METRICS_LOG, HISTORY)):
        return given
    return find_run(given, runs_root(root))
