"""`medseg predict`."""

from __future__ import annotations

from pathlib import Path

import click

from medseg.cli.options import parse_pairs


@click.command()
@click.argument("bundle")
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="INPUT...")
@click.option("-o", "--output", "folder", required=True, type=click.Path(path_type=Path), help="Where the masks go.")
@click.option("--preview", is_flag=True, help="Write a PNG with three planes beside each mask.")
@click.option("--overwrite", is_flag=True, help="Segment scans again whose mask is there already.")
@click.option(
    "--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Override a key of the bundle's inference.json."
)
def command(
    bundle: str, inputs: tuple[Path, ...], folder: Path, preview: bool, overwrite: bool, pairs: tuple[str, ...]
) -> None:
    """Segment scans with BUNDLE, a trained bundle or the folder of a run.

    INPUT is a NIfTI file, or a folder of them. Each mask is called after its scan (after its folder, where
    the scan is just ct.nii.gz), and has exactly its shape and affine.

    \b
    medseg predict runs/unet2d/20261122-120000-demo scan.nii.gz -o masks --preview
    """
    overrides = parse_pairs(pairs)
    from medseg.atomic import writable_folder
    from medseg.data.scans import find_scans, scan_name

    scans = find_scans(inputs)
    targets = {scan: folder / f"{scan_name(scan)}.nii.gz" for scan in scans}
    for scan, target in targets.items():
        if target.exists() and target.samefile(scan):
            raise click.UsageError(
                f"The mask of {scan} would overwrite the scan itself. Choose another folder with -o."
            )
    writable_folder(folder)
    todo = [scan for scan in scans if overwrite or not targets[scan].exists()]
    for scan in scans:
        if scan not in todo:
            click.echo(f"{targets[scan]} is there already, left as it is (--overwrite makes it again)")
    if not todo:
        return
    failed = _segment(bundle, overrides, {scan: targets[scan] for scan in todo}, preview)
    if failed:
        click.echo(f"{len(failed)} of {len(todo)} scans failed.", err=True)
        raise click.exceptions.Exit(1)


def _segment(bundle: str, overrides: dict[str, object], targets: dict[Path, Path], preview: bool) -> list[Path]:
    from tqdm import tqdm

    from medseg.bundle import Bundle, Predictor
    from medseg.data import read_volume, scan_name
    from medseg.errors import MedsegError
    from medseg.report import save_overview

    predictor = Predictor(Bundle.open(bundle), overrides)
    failed = []
    for scan, target in tqdm(targets.items(), desc="Segmenting", unit="scan", disable=None):
        try:
            prediction = predictor.predict_case(scan)
            prediction.save(target)
            click.echo(f"{scan} -> {target} ({prediction.seconds:.1f} s)")
            if preview:
                name = scan_name(scan)
                picture = target.with_name(f"{name}.png")
                save_overview(picture, read_volume(scan)[0], prediction.label, prediction.grid, prediction.labels, name)
                click.echo(f"  {picture}")
        except MedsegError as error:
            failed.append(scan)
            click.echo(f"Error: {error}", err=True)
    return failed
