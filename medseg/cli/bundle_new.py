"""`medseg bundle new`: a bundle for your own structures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from medseg.errors import command_line

if TYPE_CHECKING:
    from medseg.bundle import Bundle


@click.command()
@click.argument("name")
@click.option(
    "--from", "source", default="unet2d", show_default=True, help="The bundle to start from, by name or folder."
)
@click.option("--structures", "classes", metavar="A,B,...", help="The structures to learn, without the background.")
@click.option(
    "--label-map",
    type=click.Path(path_type=Path),
    help="A label_map.json, instead of --structures.",
)
@click.option(
    "--channels", type=click.IntRange(min=1), help="Channels of the input: 3 is a slice and its two neighbors."
)
@click.option(
    "--spacing", type=float, nargs=3, help="Spacing to resample to, in mm along x, y, z; -1 leaves an axis as it is."
)
@click.option("--authors", help="Who made it, for its metadata.")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    default=Path("bundles"),
    show_default=True,
    help="The folder to create it in; bundles in ./bundles are found by name.",
)
@click.option("--trust", is_flag=True, help="Start from a bundle that came from elsewhere.")
def new(
    name: str,
    source: str,
    classes: str | None,
    label_map: Path | None,
    channels: int | None,
    spacing: tuple[float, float, float] | None,
    authors: str | None,
    into: Path,
    trust: bool,
) -> None:
    """Create the bundle NAME for your own structures from an existing one.

    On a terminal it asks for what is missing. They are names of TotalSegmentator's structures or groups, or
    your own, as your dataset has them.

    \b
    medseg bundle new livers --structures liver,spleen
    medseg bundle new lesions --structures "liver,liver tumor" --channels 3 --spacing 1 1 -1
    """
    if classes is not None and label_map is not None:
        raise click.UsageError("--structures and --label-map say the same: give only one of them.")
    is_interactive = sys.stdin is not None and sys.stdin.isatty()
    if classes is None and label_map is None and not is_interactive:
        raise click.UsageError("Give the structures: --structures A,B,... or --label-map FILE.")
    from medseg.bundle import Bundle
    from medseg.bundle.scaffold import new_bundle
    from medseg.labels import LabelMap

    model = Bundle.open(source, trust)
    model.require_trust("train")
    if label_map is not None:
        names = list(LabelMap.load(label_map).structures)
    else:
        names = (classes if classes is not None else _ask("Structures, separated by commas", None)).split(",")
    if is_interactive:
        channels, spacing = _ask_for_input(model, channels, spacing)
    root = new_bundle(name, model, names, channels, spacing, into, authors)
    channel_names = Bundle(root).metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    structures = ", ".join(list(channel_names.values())[1:9]) + (", ..." if len(channel_names) > 9 else "")
    click.echo(f"{root}: {len(channel_names) - 1} structures: {structures}")
    is_found_by_name = root.parent.resolve() == Path("bundles").resolve()
    train = command_line("train", name if is_found_by_name else root, tail="--data FOLDER")
    click.echo(f"Train it: {train}")


def _ask(question: str, default: Any) -> str:
    return str(click.prompt(question, default=default, type=str, err=True))


def _ask_for_input(
    model: Bundle, channels: int | None, spacing: tuple[float, float, float] | None
) -> tuple[int | None, tuple[float, float, float] | None]:
    """Ask for channels and spacing if they are not given; an empty answer takes the model's."""
    if channels is None:
        default = model.metadata["network_data_format"]["inputs"]["image"]["num_channels"]
        channels = click.prompt("Channels of the input", default=default, type=click.IntRange(min=1), err=True)
    if spacing is None and "spacing" in model.content("train"):
        default = " ".join(f"{step:g}" for step in model.content("train")["spacing"])
        words = _ask("Spacing in mm along x, y, z; -1 leaves an axis as it is", default).replace(",", " ").split()
        try:
            x, y, z = (float(word) for word in words)
        except ValueError:
            raise click.UsageError(f"Spacing is three numbers (got '{' '.join(words)}').") from None
        spacing = (x, y, z)
    return channels, spacing
