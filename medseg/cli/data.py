"""`medseg data`: phantoms, preparation and, from its own file, the check."""

from __future__ import annotations

from pathlib import Path

import click

from medseg.cli import check
from medseg.cli.convert import convert


@click.group()
def command() -> None:
    """Make phantoms, check and prepare data sets."""


command.add_command(check.command)


command.add_command(convert)


@command.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--train", default=8, show_default=True, help="Cases to train on.")
@click.option("--val", default=2, show_default=True, help="Cases to validate on.")
@click.option("--test", default=2, show_default=True, help="Cases held out.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same voxels.")
@click.option("--size", nargs=2, type=int, default=(136, 96), show_default=True, help="Voxels in the plane.")
@click.option("--spacing", nargs=3, type=float, default=(3.0, 3.0, 5.0), show_default=True, help="mm along x, y, z.")
@click.option("--region", default="mixed", show_default=True, help="trunk, abdomen, chest, head, body or mixed.")
def phantom(
    out: Path,
    train: int,
    val: int,
    test: int,
    seed: int,
    size: tuple[int, int],
    spacing: tuple[float, float, float],
    region: str,
) -> None:
    """Write a made-up CT data set with all 117 structures to OUT, in the TotalSegmentator layout."""
    from medseg.data import PhantomSpec, write_phantom

    spec = PhantomSpec(train, val, test, seed, size, spacing, region)
    write_phantom(out, spec)
    click.echo(f"{train + val + test} phantoms in {out} ({train} train, {val} val, {test} test)")


@command.command()
@click.argument("root", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--structures", multiple=True, help="A structure or a group to keep; may be given several times. Default: all."
)
@click.option("--precedence", type=click.Path(path_type=Path), help="A file: which structures win where masks overlap.")
@click.option("--spacing", type=float, nargs=3, help="Resample to this spacing, mm along x, y, z; -1 leaves an axis.")
@click.option("--crop", is_flag=True, help="Cut away what is not body.")
@click.option("--store", is_flag=True, help="Write a slice store, too, for training from the disk.")
@click.option("--axis", type=click.IntRange(0, 2), default=2, show_default=True, help="Axis of the store's slices.")
@click.option("--exclude", type=click.Path(path_type=Path), help="A list of cases to leave out, as check writes it.")
@click.option("--workers", type=click.IntRange(min=0), help="Processes. Default: one for each core, at most 8.")
def prepare(
    root: Path,
    out: Path,
    structures: tuple[str, ...],
    precedence: Path | None,
    spacing: tuple[float, float, float] | None,
    crop: bool,
    store: bool,
    axis: int,
    exclude: Path | None,
    workers: int | None,
) -> None:
    """Merge the masks of the data set in ROOT into one label map a case, and write OUT for training.

    OUT gets images/, labels/, datalist.json (MONAI's Decathlon keys), label_map.json, fingerprint.json and, with
    --store, store/. Where masks overlap, the structure that is smaller in an adult has the voxel, unless
    --precedence names another (one name a line, the first wins); what gave way is counted below. Given again it
    goes on where it stopped, and makes only what changed.

    \b
    medseg data prepare ~/Totalsegmentator_dataset ~/prepared --spacing 1.5 1.5 -1 --store
    """
    from medseg.data import PrepareConfig, read_exclude
    from medseg.data import prepare as run
    from medseg.data.case_list import read_names
    from medseg.data.parallel import default_workers

    how = PrepareConfig(
        structures or "all", read_names(precedence) if precedence else (), spacing or None, crop, store, axis
    )
    made = run(
        root, out, how, read_exclude(exclude) if exclude else None, default_workers() if workers is None else workers
    )
    click.echo(f"{len(made.cases)} cases in {out}" + (f", {made.kept} of them from before" if made.kept else ""))
    for (winner, loser), voxels in sorted(made.overlaps.items(), key=lambda pair: -pair[1])[:20]:
        click.echo(f"  overlap: {winner} over {loser}, {voxels} voxels")
    click.echo(f"Train on it: medseg train unet2d --data {out}")
    for id, reason in made.failed.items():
        click.echo(f"Left out: {id}: {reason}", err=True)
    if made.failed:
        click.echo(f"{len(made.failed)} cases failed; mend them and give the command again.", err=True)
        raise click.exceptions.Exit(1)
