"""`medseg train`."""

from __future__ import annotations

from pathlib import Path

import click

from medseg.cli.options import parse_pairs, with_overlays


@click.command()
@click.argument("bundle")
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--data", type=click.Path(path_type=Path), help="The data set. Without it: the phantom that comes with medseg."
)
@with_overlays
@click.option("--fresh", is_flag=True, help="Start anew, even if the same run was begun before and did not finish.")
def command(bundle: str, pairs: tuple[str, ...], data: Path | None, overlays: tuple[str, ...], fresh: bool) -> None:
    """Train BUNDLE (a name, or a folder), with overlays and overrides.

    The same as `python -m monai.bundle run training` with the same settings. Every key is checked before
    anything starts. Giving the same command again goes on with a run that did not finish.

    \b
    medseg train unet2d --data ~/Totalsegmentator_dataset --with quick lr=5e-4
    medseg train unet2d --with fast_cpu --with demo
    """
    overrides = parse_pairs(pairs)
    if data is not None:
        if "dataset_dir" in overrides:
            raise click.UsageError("--data and dataset_dir= say the same; give one of them.")
        overrides["dataset_dir"] = str(data)
    if fresh:
        overrides["resume"] = False
    if data is not None and not data.exists():
        from medseg.errors import DataError

        raise DataError(data, "must be the folder of a data set", "no such folder")
    from medseg.bundle import Bundle, run_bundle

    run_bundle(Bundle.open(bundle), "training", "train", overlays, overrides)
