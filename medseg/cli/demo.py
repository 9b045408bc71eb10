"""`medseg demo`: from nothing to two segmented volumes, in minutes on two cores."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from medseg.cli.options import with_trust
from medseg.errors import command_line

OVERLAYS = ("fast_cpu", "demo")
LARGE = 500  # voxels from which on a structure counts for the mean


@click.command()
@click.option("-o", "--output", "folder", type=click.Path(path_type=Path), default=Path("runs/demo"), show_default=True)
@click.option("--bundle", default="unet2d", show_default=True, help="The bundle that learns.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Override a key of the bundle's train.json.")
@with_trust
def command(folder: Path, bundle: str, pairs: tuple[str, ...], trust: bool) -> None:
    """Make phantoms, learn 24 organs, segment two volumes that were held out, and show how well.

    Writes the masks, a preview of each and result.json to the output folder, and the run beside them.
    """
    from medseg.cli.options import parse_pairs

    result = run_demo(folder, bundle, parse_pairs(pairs), trust)
    click.echo(f"\nMean Dice of the structures of at least {LARGE} voxels: {result['mean_dice']:.3f}")
    click.echo(f"Training {result['train_seconds']:.0f} s, segmenting {result['infer_seconds']:.0f} s")
    click.echo(f"Look at {result['previews'][0]}")
    click.echo(f"Everything is named in {folder / 'result.json'}")
    scan = "SCAN.nii.gz -o masks --preview"
    click.echo(f"\nSegment a scan of your own: {command_line('predict', result['bundle'], tail=scan)}")


def run_demo(folder: Path, name: str, overrides: dict[str, Any], trust: bool = False) -> dict[str, Any]:
    """The demo; gives what `result.json` holds."""
    from medseg.atomic import claim_folder, write_json
    from medseg.bundle import Bundle, Predictor, run_bundle
    from medseg.data import PhantomSpec, write_phantom
    from medseg.errors import ConfigError

    bundle = Bundle.open(name, trust)
    spec = PhantomSpec(**bundle.resolve("train", overrides, OVERLAYS)["data#phantom"])
    folder = claim_folder(folder, "medseg demo", folder, bundle=name)
    cases = list(spec.cases())
    held_out = [id for id, side, _ in cases if side == "test"]

    _say(1, f"Making {len(cases)} phantoms with 117 structures each, all different")
    data = write_phantom(folder / f"phantom-{spec.digest()}", spec)

    _say(2, f"Training {name} on {spec.train} of them, validating on {spec.val}; {spec.test} are kept for testing")
    overrides = {"dataset_dir": str(data), "output_dir": str(folder), **overrides}
    began = time.perf_counter()
    started = run_bundle(bundle, "training", "train", OVERLAYS, overrides)
    train_seconds = time.perf_counter() - began
    if started is None:
        raise ConfigError(f"bundle '{name}'", "its train.json starts no run", "", "Use unet2d for the demo.")
    run = started.folder

    _say(3, f"Segmenting the test cases {', '.join(held_out)}")
    began = time.perf_counter()
    predictor = Predictor(Bundle.open(run, trust))
    results = [_segment(predictor, data / id, folder, id) for id in held_out]
    infer_seconds = time.perf_counter() - began

    _say(4, "Comparing with the truth")
    dice = _mean_by_structure([case["dice"] for case in results])
    large = [score for case in results for name, score in case["dice"].items() if case["voxels"][name] >= LARGE]
    _show(dice, results)
    result = {
        "mean_dice": round(sum(large) / len(large), 4) if large else None,
        "dice": dice,
        "train_seconds": round(train_seconds, 1),
        "infer_seconds": round(infer_seconds, 1),
        "bundle": str(run),
        "masks": [case["mask"] for case in results],
        "previews": [case["preview"] for case in results],
        "cases": {
            id: {key: case[key] for key in ("dice", "voxels", "invented")}
            for id, case in zip(held_out, results, strict=True)
        },
        "dataset": str(data),
    }
    write_json(folder / "result.json", result)
    return result


def _segment(predictor: Any, case: Path, folder: Path, id: str) -> dict[str, Any]:
    """Segment one phantom and compare: Dice and voxels by structure, and the paths of what was written."""
    import numpy as np

    from medseg.data import merge_masks
    from medseg.data.layouts.totalsegmentator import IMAGE, MASKS
    from medseg.metrics import dice_by_structure
    from medseg.report import save_overview

    image = case / IMAGE
    prediction = predictor.predict_case(image)
    labels = prediction.labels
    mask = prediction.save(folder / f"{id}.nii.gz")
    preview = save_overview(folder / f"{id}.png", prediction.image, prediction.label, prediction.grid, labels, id)
    truth = merge_masks(image, {name: case / MASKS / f"{name}.nii.gz" for name in labels}, labels).label
    scores = dice_by_structure(prediction.label, truth, labels, id)
    voxels, predicted = (np.bincount(label.ravel(), minlength=len(labels)) for label in (truth, prediction.label))
    there = {name: int(voxels[labels.index(name)]) for name in labels}
    return {
        # A Dice of 0 would say nothing of how much was predicted where the structure is not.
        "dice": {name: round(score, 4) if there[name] else None for name, score in scores.items()},
        "voxels": there,
        "invented": {name: int(predicted[labels.index(name)]) * (not there[name]) for name in labels},
        "mask": str(mask),
        "preview": str(preview),
    }


def _mean_by_structure(cases: list[dict[str, float | None]]) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for name in cases[0]:
        present = [score for case in cases if (score := case[name]) is not None]
        means[name] = round(sum(present) / len(present), 4) if present else None
    return means


def _say(step: int, text: str) -> None:
    click.secho(f"\n[{step}/4] {text}", bold=True, err=True)


def _show(dice: dict[str, float | None], results: list[dict[str, Any]]) -> None:
    """Dice by structure as a table with bars; small structures are marked, they do not count for the mean."""
    from rich.console import Console
    from rich.table import Table

    from medseg.units import invented

    table = Table(title="Dice on the volumes that were held out")
    for column in ("structure", "voxels", "Dice", ""):
        table.add_column(column, justify="right" if column in ("voxels", "Dice") else "left")
    for name, score in sorted(dice.items(), key=lambda pair: -(pair[1] if pair[1] is not None else -1.0)):
        voxels = max(case["voxels"][name] for case in results)
        style = None if voxels >= LARGE else "dim"
        bar = "█" * round(20 * (score or 0.0))
        extra = sum(case["invented"][name] for case in results)
        absent = invented(extra) if extra else "absent"
        table.add_row(name, str(voxels), absent if score is None else f"{score:.3f}", bar, style=style)
    Console().print(table)
