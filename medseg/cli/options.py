"""What several commands take: KEY=VALUE pairs, overlays, --trust."""

from __future__ import annotations

import ast
import json
from typing import Any

import click


def parse_pairs(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`KEY=VALUE` to a dictionary; a value is JSON or a Python literal where it is one, else text.

    Raises:
        click.UsageError: a pair without '=', or one key twice.

    >>> parse_pairs(("lr=5e-4", "patch_size=[128, 96]", "device=cpu", "resume=False"))
    {'lr': 0.0005, 'patch_size': [128, 96], 'device': 'cpu', 'resume': False}
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise click.UsageError(
                f"'{pair}' must be KEY=VALUE, for example lr=5e-4 or train#handler_set#history#folder=x."
            )
        if key in found:
            raise click.UsageError(f"'{key}' is given twice.")
        found[key] = parse_value(text)
    return found


def parse_value(text: str) -> Any:
    """JSON, else a Python literal, else the text itself."""
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

with_trust = click.option(
    "--trust",
    is_flag=True,
    help="Run the bundle even where it could do more than what is known to be harmless; see medseg bundle inspect.",
)
