"""`medseg predict` on pictures."""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click


def predict_slices(
    bundle: str,
    inputs: Sequence[Path],
    folder: Path,
    overrides: Mapping[str, Any],
    only: Sequence[str],
    overwrite: bool,
    trust: bool,
    show: bool,
) -> None:
    """Segment pictures, say what becomes of each, and where the table is; exits with 1 where one failed."""
    from contextlib import closing

    from tqdm import tqdm

    from medseg.bundle import Bundle, Predictor, SliceSegmentation
    from medseg.bundle.slices import MASKS, TABLE
    from medseg.bundle.trust import require_trust
    from medseg.data import slice_items
    from medseg.errors import ConfigError

    opened = Bundle.open(bundle)
    require_trust(opened.root, trust, "inference")
    context = overrides.get("context", opened.content("inference").get("context", 0))
    if not isinstance(context, int) or context < 0:
        raise ConfigError("context", "must be a whole number from 0 on", repr(context))
    inside = [path for path in inputs if folder.resolve() in (path.resolve(), *path.resolve().parents)]
    if inside:
        raise click.UsageError(f"{inside[0]} lies in the output folder itself. Choose another folder with -o.")
    items = slice_items(inputs, context, without=folder)
    predictor = Predictor(opened, dict(overrides), list(only) or None, pictures=True)
    work = SliceSegmentation(predictor, items, folder, overwrite)
    with closing(work.run()) as outcomes, tqdm(total=len(items), unit="slice", disable=None) as bar:
        for outcome in outcomes:
            bar.update()
            if outcome.error is not None:
                if show:
                    click.echo("".join(traceback.format_exception(outcome.error)), err=True)
                click.echo(f"Error: {outcome.error}", err=True)
    failed, kept = work.counts["failed"], work.counts["kept"]
    done = work.counts["done"] - kept
    said = f"{done} segmented, {kept} left as they were (--overwrite makes them again), {failed} failed."
    click.echo(f"{said} Masks in {folder / MASKS}, pixels and areas in {folder / TABLE}")
    if failed:
        raise click.exceptions.Exit(1)
