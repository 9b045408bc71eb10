"""`medseg bundle new`: a bundle of one's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from medseg.bundle import Bundle


@click.command()
@click.argument("name")
@click.option("--from", "source", default="unet2d", show_default=True, help="The bundle to start from, name or folder.")
@click.option("--classes", metavar="A,B,...", help="The structures to learn, the background left out.")
@click.option("--label-map", type=click.Path(path_type=Path), help="A label_map.json with the classes, instead.")
@click.option("--channels", type=click.IntRange(min=1), help="Channels of the input: 3 for a slice between two others.")
@click.option("--spacing", type=float, nargs=3, help="Spacing to resample to, mm along x, y, z; -1 leaves an axis.")
@click.option("--authors", help="Who it is by, for its metadata.")
@click.option(
    "--into",
    type=click.Path(path_type=Path),
    default=Path("bundles"),
    show_default=True,
    help="Where its folder is made; bundles in ./bundles are found by name.",
)
@click.option("--trust", is_flag=True, help="Start from a bundle that may run any code.")
def command(
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
    """Make the bundle NAME for your own classes from one that is there.

    On a terminal it asks for what is not given. The classes are names of TotalSegmentator's structures or groups, or
    your own, as your data set calls them.

    \b
    medseg bundle new livers --classes liver,spleen
    medseg bundle new lesions --classes "liver,liver tumour" --channels 3 --spacing 1 1 -1
    """
    if classes is not None and label_map is not None:
        raise click.UsageError("--classes and --label-map say the same; give one of them.")
    asking = sys.stdin is not None and sys.stdin.isatty()
    if classes is None and label_map is None and not asking:
        raise click.UsageError("Say which classes it learns: --classes A,B,... or --label-map FILE.")
    from medseg.bundle import Bundle
    from medseg.bundle.scaffold import new_bundle
    from medseg.bundle.trust import require_trust
    from medseg.labels import LabelMap

    model = Bundle.open(source)
    if not model.is_ours:
        require_trust(model.root, trust)
    if label_map is not None:
        names = list(LabelMap.load(label_map).structures)
    else:
        names = (classes if classes is not None else _ask("Classes, a comma between them", None)).split(",")
    if asking:
        channels, spacing = _ask_for_the_rest(model, channels, spacing)
    made = new_bundle(name, model, names, channels, spacing, into, authors)
    outputs = Bundle(made).metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
    printable = ", ".join(list(outputs.values())[1:9]) + (", ..." if len(outputs) > 9 else "")
    click.echo(f"{made}: {len(outputs) - 1} classes: {printable}")
    known = made.parent.resolve() == Path("bundles").resolve()
    click.echo(f"Train it: medseg train {name if known else made} --data FOLDER")


def _ask(question: str, default: Any) -> str:
    return str(click.prompt(question, default=default, type=str, err=True))


def _ask_for_the_rest(
    model: Bundle, channels: int | None, spacing: tuple[float, float, float] | None
) -> tuple[int | None, tuple[float, float, float] | None]:
    """Channels and spacing, where they are not given; an empty answer takes the model's."""
    if channels is None:
        there = model.metadata["network_data_format"]["inputs"]["image"]["num_channels"]
        channels = click.prompt("Channels of the input", default=there, type=click.IntRange(min=1), err=True)
    if spacing is None and "spacing" in model.content("train"):
        there = " ".join(f"{step:g}" for step in model.content("train")["spacing"])
        words = _ask("Spacing in mm along x, y, z; -1 leaves an axis", there).replace(",", " ").split()
        try:
            x, y, z = (float(word) for word in words)
        except ValueError:
            raise click.UsageError(f"Spacing must be three numbers, but found '{' '.join(words)}'.") from None
        spacing = (x, y, z)
    return channels, spacing
