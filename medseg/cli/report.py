"""`medseg report`."""

from __future__ import annotations

from pathlib import Path

import click

from medseg.cli.options import with_overwrite


@click.command()
@click.argument("run")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The HTML file.  [default: report.html in the run's folder]"
)
@click.option("--csv", "tables", type=click.Path(path_type=Path), help="Write the metrics log as CSV into this folder.")
@click.option(
    "--runs", "root", type=click.Path(path_type=Path), help="The folder of the runs.  [default: MEDSEG_RUNS, else runs]"
)
@with_overwrite
def command(run: str, output: Path | None, tables: Path | None, root: Path | None, overwrite: bool) -> None:
    """Write a report of RUN as one HTML page: curves, Dice by structure, previews, machine, warnings, settings.

    RUN is the folder of a run, its name, or a part of the name that only one run has. The page needs no other file and
    no network. A running run is shown as it stands and continues undisturbed.

    \b
    medseg report runs/unet2d/20261122-144812-demo
    medseg report demo -o demo.html --csv series
    """
    from medseg.atomic import require_new
    from medseg.report import save_run_page, save_series
    from medseg.report.series import SERIES
    from medseg.runs import Run

    folder = _folder(run, root)
    if output is not None and output.is_dir():
        output = output / "report.html"
    series = [tables / f"{name}.csv" for name in (*SERIES, "histograms")] if tables is not None else []
    require_new([*([output] if output is not None else []), *series], overwrite)
    loaded = Run(folder)
    page = save_run_page(output or folder / "report.html", loaded)
    click.echo(f"Written: {page} ({page.stat().st_size / 1e6:.1f} MB)")
    if tables is not None:
        files = save_series(tables, loaded)
        click.echo(f"Written: {', '.join(file.name for file in files)} in {tables}")
    for note in loaded.notes:
        click.echo(note, err=True)


def _folder(run: str, root: Path | None) -> Path:
    """Return the run's folder: the path itself if it holds a run, else by name."""
    from medseg.runs.find import find_run, runs_root
    from medseg.runs.record import HISTORY, METRICS_LOG

    path = Path(run)
    if any((path / name).is_file() for name in (METRICS_LOG, HISTORY)):
        return path
    return find_run(path, runs_root(root))
