"""`medseg predict`."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medseg.cli.options import parse_pairs, with_trust

if TYPE_CHECKING:
    from medseg.bundle import Bundle, Segmentation
    from medseg.bundle.segmenting import Segmented
    from medseg.labels import LabelMap
    from medseg.monitoring.inference_log import InferenceLog


@click.command()
@click.argument("bundle")
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="INPUT...")
@click.option("-o", "--output", "folder", required=True, type=click.Path(path_type=Path), help="Where the masks go.")
@click.option(
    "--roi-subset",
    "only",
    multiple=True,
    metavar="NAME",
    help="Only this structure or group (organs, ribs, ...) comes out; may be given several times.",
)
@click.option(
    "--coarse-first",
    is_flag=True,
    help="With --roi-subset: run a coarse pass first, then the full network only around what it finds.",
)
@click.option(
    "--allow-shear", is_flag=True, help="Take scans whose axes are not perpendicular by their voxel axes, as they lie."
)
@click.option("--split", is_flag=True, help="Write one binary mask for each structure, too: OUT/SCAN/STRUCTURE.nii.gz.")
@click.option(
    "--stats", is_flag=True, help="Write volume, mean HU, voxels and confidence of each structure as JSON and CSV."
)
@click.option("--preview", is_flag=True, help="Write a PNG with three planes beside each mask.")
@click.option(
    "--monitor",
    "backend",
    metavar="BACKEND",
    help="Log times, volumes and pictures of the scans to trackio (stays on this machine) or wandb; brings --preview.",
)
@click.option("--overwrite", is_flag=True, help="Segment scans again whose mask is there already and whole.")
@click.option(
    "--memory",
    "budget",
    metavar="SIZE",
    help="Hold to so much RAM, and so much GPU memory where one is used: 6GB, 800MB. Default: what is free.",
)
@click.option(
    "--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Override a key of the bundle's inference.json."
)
@with_trust
@click.pass_context
def command(
    context: click.Context,
    bundle: str,
    inputs: tuple[Path, ...],
    folder: Path,
    only: tuple[str, ...],
    coarse_first: bool,
    allow_shear: bool,
    split: bool,
    stats: bool,
    preview: bool,
    backend: str | None,
    overwrite: bool,
    budget: str | None,
    pairs: tuple[str, ...],
    trust: bool,
) -> None:
    """Segment scans with BUNDLE, a trained bundle or the folder of a run.

    INPUT is a NIfTI file, a folder of them, or a DICOM folder that holds one CT series. Each mask is called
    after its scan (after its folder, where the scan is just ct.nii.gz), and has exactly its shape and affine.
    Masks that are there and whole are left as they are. One scan that fails stops no other; the exit code is
    then 1.

    A bundle of 2D slices (segformer2d) also takes pictures and folders of pictures: OUT gets masks/ (class
    indices), colours/, overlays/ and pixels.csv (pixels and mm2 of each structure in each slice).

    \b
    medseg predict runs/unet2d/20261122-120000-demo scan.nii.gz -o masks --preview
    medseg predict runs/unet2d/20261122-120000-demo dicom/ -o masks --stats --roi-subset liver --roi-subset ribs
    """
    overrides = parse_pairs(pairs)
    if coarse_first and not only:
        raise click.UsageError("--coarse-first needs --roi-subset: what is to be looked for.")
    from medseg.atomic import writable_folder
    from medseg.data.scans import find_scans, holds_pictures, scan_name

    pictures = [path for path in inputs if holds_pictures(path)]
    if pictures:
        volumes: dict[str, object] = {"--coarse-first": coarse_first, "--allow-shear": allow_shear, "--split": split}
        volumes |= {"--stats": stats, "--preview": preview, "--monitor": backend, "--memory": budget}
        given = [name for name, value in volumes.items() if value]
        if len(pictures) < len(inputs) or given:
            other = given or [str(path) for path in inputs if path not in pictures]
            raise click.UsageError(f"{pictures[0]} holds pictures, and {other[0]} is for volumes.")
        from medseg.cli.predict_slices import predict_slices

        show = bool((context.obj or {}).get("traceback"))
        predict_slices(bundle, inputs, folder, overrides, only, overwrite, trust, show)
        return
    scans = find_scans(inputs, dicom=True)
    targets = {scan: folder / f"{scan_name(scan)}.nii.gz" for scan in scans}
    for scan, target in targets.items():
        if target.exists() and target.samefile(scan):
            raise click.UsageError(
                f"The mask of {scan} would overwrite the scan itself. Choose another folder with -o."
            )
    from medseg.bundle import Bundle, Outputs, Predictor, Segmentation
    from medseg.bundle.trust import require_trust
    from medseg.resources import parse_bytes

    try:
        limit = parse_bytes(budget) if budget is not None else None
    except ValueError:
        raise click.UsageError(f"--memory takes an amount such as 6GB or 800MB, not '{budget}'.") from None
    opened = Bundle.open(bundle)
    require_trust(opened.root, trust, "inference")
    writable_folder(folder)
    log = _log(opened, folder, backend) if backend is not None else None
    predictor = Predictor(opened, overrides, only, coarse_first, allow_shear)
    outputs = Outputs(split, stats, preview or log is not None)
    work = Segmentation(predictor, targets, outputs, overwrite, limit, True)
    if work.need is not None:
        click.echo(f"Needs about {work.need}, beside what the program takes.")
    if log is not None:
        log.start(len(scans))
    failed = _run(work, bool((context.obj or {}).get("traceback")), log)
    if log is not None:
        _say(log.end(failed))
    if failed:
        click.echo(f"{failed} of {len(scans)} scans failed.", err=True)
        raise click.exceptions.Exit(1)


def _log(bundle: Bundle, folder: Path, backend: str) -> InferenceLog:
    """The log of this prediction, beside the training runs of the same project."""
    from medseg.monitoring.inference_log import InferenceLog
    from medseg.runs.find import runs_dir
    from medseg.runs.record import RECORD

    root = bundle.root
    runs = root.parent.parent if (root / RECORD).is_file() else Path(runs_dir(str(root)))
    return InferenceLog(folder, bundle.name, backend, runs.resolve() / ".trackio")


def _record(log: InferenceLog, done: Segmented, labels: LabelMap) -> None:
    """One scan that was segmented: what it took, ml of each structure in its mask, its picture."""
    import numpy as np

    from medseg.data import read_volume
    from medseg.data.nifti import stem

    label, grid = read_volume(done.mask)
    counts = np.bincount(np.asarray(label).ravel(), minlength=len(labels))
    ml = {name: round(int(counts[labels.index(name)]) * grid.voxel_ml, 3) for name in labels.structures}
    picture = next((path for path in done.beside if path.suffix == ".png"), None)
    log.case(stem(done.mask), done.seconds or 0.0, {name: volume for name, volume in ml.items() if volume}, picture)


def _say(state: dict[str, object]) -> None:
    """One line: where the tracker has it."""
    if state.get("mode") == "offline":
        click.echo(f"Logged offline: {state.get('why')}.", err=True)
    elif state.get("error"):
        click.echo(f"Not logged: {state['error']}", err=True)
    elif state:
        where = state.get("url") if state.get("mode") == "online" else "medseg runs dashboard shows it"
        click.echo(
            f"Logged to {state.get('backend')}, project {state.get('project')}, run {state.get('name')}: {where}"
        )


def _run(work: Segmentation, show: bool, log: InferenceLog | None = None) -> int:
    """Segment, say what becomes of each scan, and at the end of all; the number that failed."""
    from contextlib import closing

    from tqdm import tqdm

    segmented = kept = failed = 0
    with closing(work.run()) as outcomes, tqdm(total=len(work.targets), unit="scan", disable=None) as bar:
        for outcome in outcomes:
            bar.update()
            if outcome.result is None:
                failed += 1
                if show and outcome.error is not None:
                    click.echo("".join(traceback.format_exception(outcome.error)), err=True)
                click.echo(f"Error: {outcome.error}", err=True)
                continue
            done = outcome.result
            if done.seconds is None:
                kept += 1
                click.echo(f"{done.mask} is there already, left as it is (--overwrite makes it again)")
            else:
                segmented += 1
                click.echo(f"{outcome.item} -> {done.mask} ({done.seconds:.1f} s)")
                if log is not None:
                    _record(log, done, work.predictor.labels)
            if done.beside:
                more = f" and {len(done.beside) - 3} more" if len(done.beside) > 3 else ""
                click.echo(f"  {', '.join(str(path) for path in done.beside[:3])}{more}")
    if len(work.targets) > 1:
        click.echo(f"{segmented} segmented, {kept} left as they were, {failed} failed.")
    return failed
