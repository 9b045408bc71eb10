"""`medseg bundle push`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("where")
@click.option(
    "--public", is_flag=True, help="A repository that is made on the hub is for everybody, not for its owner alone."
)
def command(file: Path, where: str, public: bool) -> None:
    """Bring FILE, a packed bundle, to WHERE others find it, with its SHA-256 in a file beside it.

    WHERE is hf://owner/model (the model card becomes its README; HF_TOKEN or `hf auth login` says who you are), a
    folder, or a folder as a URL of fsspec (s3://, sftp://, ...). There it is whole or not there.

    \b
    medseg bundle push demo.zip hf://hospital/unet2d-liver
    medseg bundle push demo.zip /mnt/share/bundles
    """
    from medseg.bundle.share import push

    location = push(file, where, private=not public)
    click.echo(f"{file.name} is at {location}")
    click.echo(f"Whoever wants it: medseg bundle install {location}")
