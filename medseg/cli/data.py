"""`medseg data`: make phantoms, check, prepare and convert data sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from medseg.cli import check
from medseg.cli.options import with_accept, with_binarize
from medseg.errors import command_line

WORKERS = "Processes. Default: one per core, at most 8."
STRUCTURES = "A structure or a group to keep; may be repeated. Default: all."


@click.group()
def command() -> None:
    """Make phantoms; check, prepare and convert data sets."""


command.add_command(check.command)


@command.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--train", default=8, show_default=True, help="Cases to train on.")
@click.option("--val", default=2, show_default=True, help="Cases to validate on.")
@click.option("--test", default=2, show_default=True, help="Cases for the test.")
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
    """Write a synthetic CT data set with all 117 structures to OUT, in the TotalSegmentator layout."""
    from medseg.data import PhantomSpec, write_phantom

    spec = PhantomSpec(train, val, test, seed, size, spacing, region)
    write_phantom(out, spec)
    click.echo(f"{train + val + test} phantoms in {out} ({train} train, {val} val, {test} test)")


@command.command()
@click.argument("root", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--structures", multiple=True, help=STRUCTURES)
@click.option("--precedence", type=click.Path(path_type=Path), help="A file: which structures win where masks overlap.")
@click.option("--spacing", type=float, nargs=3, help="Resample to this spacing, mm along x, y, z; -1 leaves an axis.")
@click.option("--crop", is_flag=True, help="Cut away what is not body.")
@click.option("--store", is_flag=True, help="Write a slice store, too, for training from the disk.")
@click.option("--axis", type=click.IntRange(0, 2), default=2, show_default=True, help="Axis of the store's slices.")
@click.option("--exclude", type=click.Path(path_type=Path), help="A list of cases to leave out, as check writes it.")
@with_binarize
@with_accept
@click.option("--workers", type=click.IntRange(min=0), help=WORKERS)
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
    binarize: float | None,
    accept: tuple[str, ...],
    workers: int | None,
) -> None:
    """Merge the masks of the data set in ROOT into one label map per case, and write OUT for training.

    OUT gets images/, labels/, datalist.json (MONAI's Decathlon keys), label_map.json, fingerprint.json and, with
    --store, store/. Where masks overlap, the structure that is smaller in an adult wins, unless
    --precedence names another (one name per line, the first wins); the lost voxels are counted below. The same command
    resumes where it was stopped, and writes only what changed.

    \b
    medseg data prepare ~/Totalsegmentator_dataset ~/prepared --spacing 1.5 1.5 -1 --store
    """
    from medseg.data import PrepareConfig, read_exclude
    from medseg.data import prepare as run
    from medseg.data.case_jobs import default_processes
    from medseg.data.case_list import read_names

    order = read_names(precedence) if precedence else ()
    config = PrepareConfig(structures or "all", order, spacing or None, crop, store, axis, binarize, accept)
    excluded = read_exclude(exclude) if exclude else None
    prepared = run(root, out, config, excluded, default_processes() if workers is None else workers)
    reused = f", {prepared.reused} of them from before" if prepared.reused else ""
    click.echo(f"{len(prepared.cases)} cases in {out}{reused}")
    _print_overlaps(prepared.overlaps)
    # A bundle resamples to its own spacing, which must be that of a store.
    lengths = [int(length) if length == int(length) else length for length in spacing or (-1, -1, -1)]
    at = [f"spacing={','.join(map(str, lengths))}"] if store or spacing else []
    click.echo(f"Train on it: {command_line('train', 'unet2d', '--data', out, *at)}")
    _print_failed(prepared.failed)
    if prepared.failed:
        click.echo(f"{len(prepared.failed)} cases failed; correct them and give the command again.", err=True)
        raise click.exceptions.Exit(1)


@command.command()
@click.argument("root", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--to",
    required=True,
    metavar="[nnunet|datalist]",
    help="nnunet: raw nnU-Net v2 with splits_final.json. datalist: the Medical Segmentation Decathlon's, for MONAI.",
)
@click.option("--structures", multiple=True, help=STRUCTURES)
@with_binarize
@with_accept
@click.option("--workers", type=click.IntRange(min=0), help=WORKERS)
def convert(
    root: Path,
    out: Path,
    to: str,
    structures: tuple[str, ...],
    binarize: float | None,
    accept: tuple[str, ...],
    workers: int | None,
) -> None:
    """Write the data set in ROOT to OUT in the layout that another tool reads.

    ROOT may be in any layout: TotalSegmentator, nnU-Net raw, a datalist, plain folders with label_map.json.
    Images are copied byte for byte, binary masks become one label map per case, and every voxel keeps its label.
    The same command resumes a conversion that was stopped.
    """
    from medseg.data import convert as run
    from medseg.data.case_jobs import default_processes

    workers = default_processes() if workers is None else workers
    converted = run(root, out, to, structures or "all", workers, binarize, accept)
    reused = f", {len(converted.reused)} of them from before" if converted.reused else ""
    click.echo(f"{len(converted.cases)} cases with {len(converted.labels) - 1} structures in {out}{reused}")
    _print_overlaps(converted.overlaps)
    if to == "nnunet":
        click.echo("Its split is splits_final.json; nnU-Net reads it from its preprocessed folder, so copy it there.")
    _print_failed(converted.failed)
    if converted.failed:
        raise click.exceptions.Exit(1)


def _print_overlaps(overlaps: Mapping[tuple[str, str], int]) -> None:
    for (winner, loser), voxels in sorted(overlaps.items(), key=lambda pair: -pair[1])[:20]:
        click.echo(f"  overlap: {winner} over {loser}, {voxels} voxels")


def _print_failed(failed: Mapping[str, str]) -> None:
    for id, message in failed.items():
        click.echo(f"Left out: {id}: {message}", err=True)
