"""Options that several commands share: KEY=VALUE pairs, overlays, --trust."""

from __future__ import annotations

import ast
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
    """Return a value from JSON, or else from a Python literal, or else the text itself."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError):
            continue
    return text


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

with_trust = click.option(
    "--trust",
    is_flag=True,
    help="Run the bundle even if it could do more than what is known to be harmless; see medseg bundle inspect.",
)
