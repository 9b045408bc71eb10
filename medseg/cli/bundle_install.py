"""`medseg bundle install`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("source")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Becomes the bundle's folder.  [default: bundles/NAME, where it is found by its name]",
)
@click.option("--sha256", metavar="HEX", help="What the SHA-256 of the zip must be, as whoever packed it told you.")
@click.option("--trust", is_flag=True, help="Install it though it would run what is not known to be safe.")
@click.option(
    "--self-test/--no-self-test",
    default=True,
    help="Whether to run it on the scan that came with it, and refuse it if its mask is another one here.",
)
@click.option("--device", help="For the self-test: cpu, cuda, ...  [default: what the bundle chooses]")
def command(
    source: str, output: Path | None, sha256: str | None, trust: bool, self_test: bool, device: str | None
) -> None:
    """Unpack SOURCE, a packed bundle, having looked at it first, and see that it does here what it did there.

    SOURCE is a zip, a URL, hf://owner/model[@revision][/file.zip], or a place that fsspec reaches. In this order: its
    files are held against their SHA-256, what it would run is looked at without running anything, it is unpacked and
    verified, and its self-test says how many voxels differ. An error at any of these leaves nothing behind.

    \b
    medseg bundle install demo.zip
    medseg bundle install hf://hospital/unet2d-liver -o bundles/liver
    medseg predict bundles/liver scan.nii.gz -o masks
    """
    from medseg.bundle.share import install_bundle

    made = install_bundle(source, output, trust=trust, sha256=sha256, self_test=self_test, device=device)
    click.echo(f"{made.name} {made.version} installed in {made.root}")
    if made.hides:
        click.echo(
            f"In this folder it hides medseg's own {made.hides}: that name means this bundle now. "
            "Install it elsewhere with -o, such as -o bundles/another-name, to have both.",
            err=True,
        )
    if not made.listed:
        click.echo("It has no manifest: nothing says whether its files are those that were packed.", err=True)
    if made.test is not None:
        from medseg.bundle.share.self_test import covers

        said = "gives" if made.test.reproduced else "nearly gives, with more than rounding between them,"
        click.echo(f"Self-test: this machine {said} the mask that came with it: {made.test}")
        covered = covers(made.test.covered, made.test.structures)
        if covered:
            click.echo(f"It covers {covered}; of others it says nothing.")
        else:
            click.echo("It says nothing: the mask that came with it is all background.", err=True)
    else:
        click.echo("No self-test was run." if not self_test else "It came without a self-test.", err=True)
    click.echo(f"Segment a scan: medseg predict {made.root} SCAN.nii.gz -o masks")
