"""`medseg data convert`: a data set in the layout of another tool."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("root", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--to",
    required=True,
    metavar="[nnunet|datalist]",
    help="nnunet: raw nnU-Net v2 with splits_final.json. datalist: the Medical Segmentation Decathlon's, for MONAI.",
)
@click.option(
    "--structures", multiple=True, help="A structure or a group to keep; may be given several times. Default: all."
)
@click.option("--workers", type=click.IntRange(min=0), help="Processes. Default: one for each core, at most 8.")
@click.pass_context
def convert(
    ctx: click.Context, root: Path, out: Path, to: str, structures: tuple[str, ...], workers: int | None
) -> None:
    """Write the data set in ROOT to OUT in the layout that another tool reads.

    ROOT may be in any layout: TotalSegmentator, nnU-Net raw, a datalist, plain folders with label_map.json.
    Images are copied byte for byte, binary masks become one label map a case, and every voxel keeps its label.
    The same command goes on with a conversion that was stopped.
    """
    from medseg.data import convert as run
    from medseg.data.parallel import default_workers

    made = run(root, out, to, structures or "all", default_workers() if workers is None else workers)
    kept = f", {len(made.kept)} of them there already" if made.kept else ""
    click.echo(f"{len(made.cases)} cases with {len(made.labels) - 1} structures in {out}{kept}")
    for (winner, loser), voxels in sorted(made.overlaps.items(), key=lambda pair: -pair[1])[:20]:
        click.echo(f"  overlap: {winner} over {loser}, {voxels} voxels")
    for id, message in made.failed.items():
        click.echo(f"  left out: {id}: {message}", err=True)
    if to == "nnunet":
        click.echo("Its split is splits_final.json; nnU-Net reads it from its preprocessed folder, so copy it there.")
    if made.failed:
        ctx.exit(1)
