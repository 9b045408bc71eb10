"""`medseg data`: phantoms and preparation."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def command() -> None:
    """Make phantoms, prepare data sets."""


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
def prepare(root: Path, out: Path, structures: tuple[str, ...]) -> None:
    """Merge the masks of the data set in ROOT into one label map a case, and write OUT for training.

    OUT gets images/, labels/, datalist.json (MONAI's Decathlon keys) and label_map.json. Where masks overlap,
    the structure that is smaller in an adult has the voxel; what gave way is counted below.
    """
    from medseg.data import prepare as run

    made = run(root, out, list(structures) or "all")
    click.echo(f"{len(made.cases)} cases in {out}")
    for (winner, loser), voxels in sorted(made.overlaps.items(), key=lambda pair: -pair[1])[:20]:
        click.echo(f"  overlap: {winner} over {loser}, {voxels} voxels")
    click.echo(f"Train on it: medseg train unet2d --data {out}")
