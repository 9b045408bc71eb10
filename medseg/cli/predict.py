"""`medseg predict`."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medseg.cli.options import parse_pairs, with_accept, with_trust

if TYPE_CHECKING:
    from medseg.bundle import BatchPredictor, Bundle, ScanResult
    from medseg.errors import DataError
    from medseg.monitoring.inference_log import InferenceLog


@click.command()
@click.argument("bundle")
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="INPUT...")
@click.option(
    "-o", "--output", "folder", required=True, type=click.Path(path_type=Path), help="The folder for the masks."
)
@click.option(
    "--structures",
    "only",
    multiple=True,
    metavar="NAME",
    help="Segment only this structure or group (organs, ribs, ...): A,B or several times.",
)
@click.option(
    "--coarse-first",
    is_flag=True,
    help="With --structures: run a coarse pass first, then the full network only around what it finds.",
)
@with_accept
@click.option("--split", is_flag=True, help="Also write one binary mask for each structure: OUT/SCAN/STRUCTURE.nii.gz.")
@click.option(
    "--stats", is_flag=True, help="Write volume, mean HU, voxels and confidence of each structure as JSON and CSV."
)
@click.option(
    "--preview",
    is_flag=True,
    help="Write a PNG with three planes beside each mask; of images, a panel.",
)
@click.option(
    "--monitor",
    "backend",
    metavar="BACKEND",
    help="Log times, volumes and previews to trackio (stays on this machine) or wandb; implies --preview.",
)
@click.option("--recursive", is_flag=True, help="Also take the volume files in all folders below an input folder.")
@click.option(
    "--submission",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.csv",
    help="2D images: also write the masks as run lengths, as Kaggle's GI tract competition takes them.",
)
@click.option("--overwrite", is_flag=True, help="Segment scans again that have a complete mask already.")
@click.option(
    "--memory",
    "budget",
    metavar="SIZE",
    help="Use at most this much RAM, and GPU memory if there is a GPU: 6GB, 800MB. Default: what is free.",
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
    accept: tuple[str, ...],
    split: bool,
    stats: bool,
    preview: bool,
    backend: str | None,
    recursive: bool,
    submission: Path | None,
    overwrite: bool,
    budget: str | None,
    pairs: tuple[str, ...],
    trust: bool,
) -> None:
    """Segment scans with BUNDLE, a trained bundle or the folder of a run.

    INPUT is a NIfTI, NRRD or MetaImage file, a folder of them, or a folder that holds one CT series in DICOM. Each
    mask is named after its scan (after its folder, if the scan is just ct.nii.gz), and has exactly its shape and
    affine. Scans that have a complete mask are not segmented again. An error of one scan or folder stops no other;
    the exit code is then 1.

    A bundle of 2D slices (segformer2d) also takes images and folders of images: OUT gets masks/ (class indices),
    colors/, overlays/ and pixels.csv (pixels and mm2 of each structure in each slice).

    \b
    medseg predict runs/unet2d/20261122-120000-demo scan.nii.gz -o masks --preview
    medseg predict runs/unet2d/20261122-120000-demo dicom/ -o masks --stats --structures liver,ribs
    """
    overrides = parse_pairs(pairs)
    if overrides:
        from medseg.config.check import check_command
        from medseg.runs.find import find_bundle

        check_command(find_bundle(bundle), "inference", (), overrides)
    if coarse_first and not only:
        raise click.UsageError("--coarse-first needs --structures NAME: the structures to search for.")
    from medseg.data.scan_files import holds_images_2d
    from medseg.data.slice_items import require_known_format

    for path in inputs:
        require_known_format(path)
    show_traceback = bool((context.obj or {}).get("traceback"))
    images = [path for path in inputs if holds_images_2d(path)]
    if images:
        options: dict[str, object] = {"--coarse-first": coarse_first, "--accept": accept, "--split": split}
        options |= {"--stats": stats, "--monitor": backend, "--memory": budget}
        conflicts = [name for name, value in options.items() if value] or [str(p) for p in inputs if p not in images]
        if conflicts:
            raise click.UsageError(f"{images[0]} holds 2D images, and {conflicts[0]} is for volumes.")
        _predict_slices(bundle, inputs, folder, overrides, only, overwrite, trust, show_traceback, preview, submission)
        return
    if submission:
        raise click.UsageError("--submission is for 2D images, and these are volumes.")
    targets, empty = _targets(bundle, inputs, folder, recursive)
    from medseg.atomic import writable_folder
    from medseg.bundle import BatchPredictor, Bundle, Outputs, Predictor, VolumeWriter
    from medseg.resources import parse_bytes

    try:
        limit = parse_bytes(budget) if budget is not None else None
    except ValueError:
        raise click.UsageError(f"--memory takes an amount such as 6GB or 800MB, not '{budget}'.") from None
    opened = Bundle.open(bundle, trust)
    opened.require_trust("inference")
    writable_folder(folder)
    log = _open_log(opened, folder, backend) if backend is not None else None
    predictor = Predictor(opened, overrides, only, coarse_first, accept)
    outputs = Outputs(split, stats, preview or log is not None)
    writer = VolumeWriter(targets, predictor.labels, outputs, predictor.only, predictor.accept)
    batch = BatchPredictor(predictor, writer, overwrite, limit, progress=True)
    if batch.need is not None:
        click.echo(f"This needs about {batch.need}, besides what the program takes.")
    if log is not None:
        log.start(len(targets))
    _run(batch, "scan", show_traceback, log)
    if log is not None:
        _report_log(log.end(batch.counts["failed"]))
    if len(targets) > 1:
        counts = batch.counts
        click.echo(f"{counts['segmented']} segmented, {counts['existing']} unchanged, {counts['failed']} failed.")
    if batch.counts["failed"]:
        click.echo(f"{batch.counts['failed']} of {len(targets)} scans failed.", err=True)
    for error in empty:
        click.echo(f"Error: {error}", err=True)
    if batch.counts["failed"] or empty:
        raise click.exceptions.Exit(1)


def _targets(
    bundle: str, inputs: Sequence[Path], folder: Path, recursive: bool
) -> tuple[dict[Path, Path], list[DataError]]:
    """Return the mask of each scan, and an error for each input without scans; raise it if no input has any."""
    from medseg.bundle import Bundle
    from medseg.data import slice_items
    from medseg.data.scan_files import find_scans, scan_name, without_namesakes
    from medseg.errors import DataError

    scans: list[Path] = []
    errors = []
    for path in inputs:
        try:
            scans += find_scans(path, dicom=True, recursive=recursive)
        except DataError as error:
            errors.append(error)
    if not scans:
        if inputs[0].is_dir() and Bundle.open(bundle).takes_slices:
            slice_items(inputs)  # says what it lacks, and which pictures are not read
        raise errors[0]
    targets = {scan: folder / f"{scan_name(scan)}.nii.gz" for scan in without_namesakes(scans)}
    for scan, target in targets.items():
        if target.exists() and target.samefile(scan):
            raise click.UsageError(
                f"The mask of {scan} would overwrite the scan itself. Choose another folder with -o."
            )
    return targets, errors


def _predict_slices(
    bundle: str,
    inputs: Sequence[Path],
    folder: Path,
    overrides: Mapping[str, Any],
    only: Sequence[str],
    overwrite: bool,
    trust: bool,
    show_traceback: bool,
    previews: bool,
    submission: Path | None,
) -> None:
    """Segment 2D images, and print what becomes of each and where the table is."""
    from medseg.atomic import require_new

    require_new([submission] if submission is not None else [], overwrite)
    from medseg.bundle import BatchPredictor, Bundle, Predictor, SliceWriter
    from medseg.bundle.slice_writer import LABELS, MASKS, TABLE
    from medseg.data import slice_items
    from medseg.data.intensity_reference import check_phantoms
    from medseg.errors import ConfigError
    from medseg.labels import LabelMap

    opened = Bundle.open(bundle, trust)
    opened.require_trust("inference")
    neighbors = overrides.get("context", opened.content("inference").get("context", 0))
    if not isinstance(neighbors, int) or neighbors < 0:
        raise ConfigError("context", "the number of neighbors must be a whole number, 0 or more", f"got {neighbors!r}")
    inside = [path for path in inputs if folder.resolve() in (path.resolve(), *path.resolve().parents)]
    if inside:
        raise click.UsageError(f"{inside[0]} is in the output folder itself. Choose another folder with -o.")
    names = opened.root / LABELS
    structures = LabelMap.load(names).structures if names.is_file() else ()
    items = slice_items(inputs, neighbors, without=folder, structures=structures)
    predictor = Predictor(opened, dict(overrides), list(only) or None, slices=True)
    writer = SliceWriter.of(predictor, folder, items, previews=previews, submission=submission)
    for problem in check_phantoms(Path(str(items[0]["image"])), predictor.training_images):
        click.echo(f"warning {problem.code}: {problem.message}. {problem.fix}")
    batch = BatchPredictor(predictor, writer, overwrite)
    _run(batch, "slice", show_traceback)
    counts = batch.counts
    unchanged = f"{counts['existing']} unchanged (--overwrite segments them again)"
    click.echo(f"{counts['segmented']} segmented, {unchanged}, {counts['failed']} failed.", nl=False)
    if counts["segmented"] + counts["existing"] == 0:
        click.echo("")
        raise click.exceptions.Exit(1)
    click.echo(f" Masks are in {folder / MASKS}, pixels and areas in {folder / TABLE}")
    if submission:
        click.echo(f"Run lengths are in {submission}")
    if counts["failed"]:
        raise click.exceptions.Exit(1)


def _run(batch: BatchPredictor, unit: str, show_traceback: bool, log: InferenceLog | None = None) -> None:
    """Segment all, and print what becomes of each volume and of each error."""
    from contextlib import closing

    from tqdm import tqdm

    with closing(batch.run()) as outcomes, tqdm(total=len(batch.writer.items), unit=unit, disable=None) as bar:
        for outcome in outcomes:
            bar.update()
            if outcome.result is None:
                if show_traceback and outcome.error is not None:
                    click.echo("".join(traceback.format_exception(outcome.error)), err=True)
                click.echo(f"Error: {outcome.error}", err=True)
            elif unit == "scan":
                _report_scan(outcome.item, outcome.result)
                if log is not None and outcome.result.is_new:
                    _log_scan(log, outcome.result)


def _report_scan(scan: Path, result: ScanResult) -> None:
    from medseg.bundle import Prediction

    if result.is_new:
        click.echo(f"{scan} -> {result.mask} ({result.prediction.seconds:.1f} s)")
    else:
        click.echo(f"{result.mask} is complete already (--overwrite segments it again)")
    if isinstance(result.prediction, Prediction):
        for problem in result.prediction.warnings:
            click.echo(f"  warning {problem.code}: {problem.message}. {problem.fix}".rstrip())
    if result.files:
        more = f" and {len(result.files) - 3} more" if len(result.files) > 3 else ""
        click.echo(f"  {', '.join(str(path) for path in result.files[:3])}{more}")


def _open_log(bundle: Bundle, folder: Path, backend: str) -> InferenceLog:
    """Return the log of this prediction, beside the training runs of the same project."""
    from medseg.monitoring.inference_log import InferenceLog
    from medseg.runs.find import runs_dir
    from medseg.runs.record import RECORD

    root = bundle.root
    runs = root.parent.parent if (root / RECORD).is_file() else Path(runs_dir(str(root)))
    return InferenceLog(folder, bundle.name, backend, runs.resolve() / ".trackio")


def _log_scan(log: InferenceLog, result: ScanResult) -> None:
    """Log the seconds, the ml of each structure, and the preview of one scan."""
    import numpy as np

    from medseg.bundle import Prediction
    from medseg.file_names import stem

    prediction = result.prediction
    if isinstance(prediction, Prediction):
        labels = prediction.labels
        counts = np.bincount(prediction.label.ravel(), minlength=len(labels))
        ml = {name: round(int(counts[labels.index(name)]) * prediction.grid.voxel_ml, 3) for name in labels.structures}
        preview = next((path for path in result.files if path.suffix == ".png"), None)
        present = {name: volume for name, volume in ml.items() if volume}
        log.case(stem(result.mask), prediction.seconds, present, preview)


def _report_log(state: Mapping[str, object]) -> None:
    """Print where the tracker has the log."""
    if state.get("mode") == "offline":
        click.echo(f"Logged offline: {state.get('why')}.", err=True)
    elif state.get("error"):
        click.echo(f"Not logged: {state['error']}", err=True)
    elif state:
        address = state.get("url") if state.get("mode") == "online" else "medseg runs dashboard shows it"
        run = f"project {state.get('project')}, run {state.get('name')}"
        click.echo(f"Logged to {state.get('backend')}, {run}: {address}")
