"""Options that several commands share: KEY=VALUE pairs, overlays, --trust."""

from __future__ import annotations

import ast
import contextlib
import json
from typing import Any

import click


def parse_pairs(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return `KEY=VALUE` pairs as a dictionary; values are parsed by `parse_value`.

    Raises:
        click.UsageError: a pair without '=', or a key that is given twice.

    Example:
        >>> parse_pairs(("lr=5e-4", "patch_size=[128, 96]", "device=cpu", "resume=False"))
        {'lr': 0.0005, 'patch_size': [128, 96], 'device': 'cpu', 'resume': False}
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise click.UsageError(
                f"'{pair}' must be KEY=VALUE, for example lr=5e-4 or train#handler_set#history#folder=x."
            )
        if key in values:
            raise click.UsageError(f"'{key}' is given twice.")
        values[key] = parse_value(text)
    return values


def parse_value(text: str) -> Any:
    """Return a value from JSON, or else from a Python literal, or else the text itself; `1,2` is a list."""
    for parse in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError):
            value = parse(text)
            return list(value) if isinstance(value, tuple) else value
    return text


# Options that say the same as a key; all other keys are given as KEY=VALUE.
_OPTIONS = {"dataset_dir": "--data", "output_dir": "--output", "num_workers": "--workers", "exclude": "--write-exclude"}


def explain_option(error: click.NoSuchOption) -> click.UsageError:
    """Return the error of an unknown option with the option or the key that its word means."""
    if error.ctx is None:
        return error
    from medseg.config.keys import common_keys, meant_key
    from medseg.errors import did_you_mean

    parameters = error.ctx.command.get_params(error.ctx)
    options = [name for parameter in parameters if isinstance(parameter, click.Option) for name in parameter.opts]
    key = meant_key(error.option_name, common_keys())
    same = _OPTIONS.get(str(key), f"--{key}".replace("_", "-"))
    fix = did_you_mean(error.option_name, options)
    if key is not None and same in options:
        fix = f"Did you mean '{same}'?"
    elif key is not None and any(parameter.name == "pairs" for parameter in parameters):
        way = "--set " if "--set" in options else ""
        if not way or key in _inference_keys():
            fix = f"Did you mean {way}{key}=VALUE?"
    return click.UsageError(f"There is no option '{error.option_name}'. {fix}".strip(), error.ctx)


def _inference_keys() -> set[str]:
    from medseg.cli.list import key_rows
    from medseg.runs.find import find_bundle

    return {row["key"] for row in key_rows(find_bundle("unet2d"), "inference")}


with_overlays = click.option(
    "--with",
    "overlays",
    multiple=True,
    metavar="OVERLAY",
    help="A JSON file, or the name of one in configs/ or the bundle's configs/. Several may be given; later ones win.",
)

with_binarize = click.option(
    "--binarize",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Take masks of 0 and 255, or with soft edges: above this share of the full value a voxel counts, as in 0.5.",
)

with_overwrite = click.option("--overwrite", is_flag=True, help="Replace files of these names that exist already.")
with_accept = click.option(
    "--accept",
    multiple=True,
    metavar="CODE",
    help="Read scans that break this rule, such as no-geometry or shear; docs/reference/inputs.md says how.",
)

with_trust = click.option(
    "--trust",
    is_flag=True,
    help="Run whatever a bundle from elsewhere holds: training always needs it; see medseg bundle inspect.",
)
