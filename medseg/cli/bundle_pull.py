"""`medseg bundle pull`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("source")
@click.option(
    "-o", "--output", default=".", show_default=True, type=click.Path(path_type=Path), help="The folder it goes to."
)
@click.option("--sha256", metavar="HEX", help="What the SHA-256 of the zip must be, as whoever packed it told you.")
def command(source: str, output: Path, sha256: str | None) -> None:
    """Fetch a packed bundle and hold it against its SHA-256; nothing of it is unpacked or run.

    SOURCE is hf://owner/model[@revision][/file.zip], a URL, a place that fsspec reaches, or a file. `medseg bundle
    install SOURCE` fetches and installs at once.

    \b
    medseg bundle pull hf://hospital/unet2d-liver
    medseg bundle inspect unet2d-liver.zip
    """
    from medseg.bundle.share import pull

    path = pull(source, output, sha256)
    click.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    click.echo(f"Look at it: medseg bundle inspect {path}")
    click.echo(f"Install it: medseg bundle install {path}")
