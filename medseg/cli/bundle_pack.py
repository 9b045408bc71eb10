"""`medseg bundle pack`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("root")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The zip.")
@click.option("--torchscript", is_flag=True, help="Put the traced network in, too: models/model.ts.")
@click.option("--onnx", is_flag=True, help="Put the network in as ONNX, too: models/model.onnx; needs medseg[onnx].")
@click.option("--with-wheel", is_flag=True, help="Put medseg's own wheel in, too: wheels/.")
@click.option(
    "--check-on",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="SCAN",
    help="Hold the traced network against the network on a scan of your own as well; nothing of it goes in.",
)
@click.option(
    "--metadata",
    "pairs",
    multiple=True,
    metavar="KEY=TEXT",
    help="Another text of metadata.json: version=1.2.0, authors='...', intended_use='...'. May be given several times.",
)
@click.option("--trust", is_flag=True, help="Pack it though it would run what is not known to be safe.")
def command(
    root: str,
    output: Path,
    torchscript: bool,
    onnx: bool,
    with_wheel: bool,
    check_on: Path | None,
    pairs: tuple[str, ...],
    trust: bool,
) -> None:
    """Write ROOT, a bundle with weights or the folder of a run, as one zip to share.

    In it: configs without places and names of cases, weights (model.pt and safetensors), label map, docs and a model
    card, requirements.lock, a made-up scan with the mask that the bundle gives of it, and the SHA-256 of every file.
    Of a run, previews, logs and checkpoints stay at home. The same bundle gives the same bytes.

    \b
    medseg bundle pack runs/unet2d/20261122-120000-demo -o demo.zip
    medseg bundle pack runs/unet2d/20261122-120000-demo -o demo.zip --with-wheel --onnx --metadata version=1.0.0
    """
    texts: dict[str, str] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise click.UsageError(f"'{pair}' must be KEY=TEXT, for example version=1.2.0.")
        texts[key.strip()] = text
    from medseg.bundle.share import pack_bundle
    from medseg.bundle.verify.manifest import sha256_of

    path = pack_bundle(
        root,
        output,
        torchscript=torchscript,
        onnx=onnx,
        with_wheel=with_wheel,
        check_on=check_on,
        metadata=texts,
        trust=trust,
    )
    click.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    click.echo(f"SHA-256 {sha256_of(path)}")
    click.echo(f"Whoever gets it: medseg bundle install {path.name} --sha256 (the figure above, told another way)")
