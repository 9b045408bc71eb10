"""`medseg bundle pack`, `install`, `push` and `pull`: bundles as one file that others get."""

from __future__ import annotations

import json
from pathlib import Path

import click

from medseg.cli.options import with_overwrite
from medseg.errors import command_line

_SHA256 = click.option("--sha256", metavar="HEX", help="Require this SHA-256 of the zip, as who packed it told you.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.command()
@click.argument("root")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The zip to write.")
@click.option("--name", help="What the bundle is called.  [default: of a run RECIPE-START, else its own name]")
@click.option("--torchscript", is_flag=True, help="Add the traced network: models/model.ts.")
@click.option("--onnx", is_flag=True, help="Add the network as ONNX: models/model.onnx; needs medseg[onnx].")
@click.option(
    "--check-on",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="SCAN",
    help="Compare the exported network with the network on a scan of yours too; nothing of it goes into the zip.",
)
@click.option(
    "--metadata",
    "pairs",
    multiple=True,
    metavar="KEY=TEXT",
    help="Replace a text of metadata.json: version=1.2.0, authors='...', intended_use='...'. Repeat it for more.",
)
@click.option("--trust", is_flag=True, help="Pack a bundle from elsewhere that holds something unsafe.")
@with_overwrite
@_JSON
def pack(
    root: str,
    output: Path,
    name: str | None,
    torchscript: bool,
    onnx: bool,
    check_on: Path | None,
    pairs: tuple[str, ...],
    trust: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write ROOT, a bundle with weights or the folder of a run, as one zip to share.

    It holds the configs without paths and names of cases, weights (model.pt and safetensors), label map, docs and a
    model card, requirements.lock, a synthetic scan with the mask that the bundle gives of it, and the SHA-256 of every
    file. Previews, logs and checkpoints of a run stay behind. The same bundle gives the same bytes.

    \b
    medseg bundle pack runs/unet2d/20261122-120000-demo -o demo.zip
    medseg bundle pack runs/unet2d/20261122-120000-demo -o demo.zip --name demo --onnx --metadata version=1.0.0
    """
    texts: dict[str, str] = {} if name is None else {"name": name}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            raise click.UsageError(f"'{pair}' must be KEY=TEXT, for example version=1.2.0.")
        texts[key.strip()] = text
    from medseg.atomic import require_new

    require_new([output] if output.is_file() else [], overwrite)
    from medseg.bundle.share import pack_bundle
    from medseg.bundle.verify.manifest import sha256_of

    path = pack_bundle(root, output, torchscript=torchscript, onnx=onnx, check_on=check_on, metadata=texts, trust=trust)
    size, sha256 = path.stat().st_size, sha256_of(path)
    if as_json:
        click.echo(json.dumps({"path": str(path), "bytes": size, "sha256": sha256}, indent=2))
        return
    click.echo(f"{path} ({size / 1e6:.1f} MB)")
    click.echo(f"SHA-256 {sha256}")
    click.echo(f"Others install it with: {command_line('bundle', 'install', path.name, '--sha256', sha256)}")
    click.echo("Send them that command another way than the file.")


@click.command()
@click.argument("source")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Becomes the bundle's folder.  [default: bundles/NAME, where it is found by its name]",
)
@_SHA256
@click.option("--trust", is_flag=True, help="Install a bundle that holds something unsafe.")
@click.option(
    "--self-test/--no-self-test",
    default=True,
    help="Run it on the scan that came with it, and refuse it if the mask differs here.",
)
@click.option("--device", help="For the self-test: cpu, cuda, ...  [default: what the bundle chooses]")
@_JSON
def install(
    source: str,
    output: Path | None,
    sha256: str | None,
    trust: bool,
    self_test: bool,
    device: str | None,
    as_json: bool,
) -> None:
    """Check SOURCE, a packed bundle, unpack it, and check that it does here what it did where it was packed.

    SOURCE is a zip, a URL, hf://owner/model[@revision][/file.zip], or a place that fsspec reaches. In this order: its
    files are compared with their SHA-256, it is inspected without running it, it is unpacked and
    verified, and its self-test says how many voxels differ. An error at any step leaves nothing behind.

    \b
    medseg bundle install demo.zip
    medseg bundle install hf://hospital/unet2d-liver -o bundles/liver
    medseg predict bundles/liver scan.nii.gz -o masks
    """
    from medseg.bundle.share import install_bundle
    from medseg.bundle.share.self_test import coverage_text

    installed = install_bundle(source, output, trust=trust, sha256=sha256, self_test=self_test, device=device)
    test = installed.test
    if installed.hides:
        click.echo(
            f"In this folder the name {installed.hides} now means this bundle, not medseg's own. "
            "To keep both, install it with -o, such as -o bundles/another-name.",
            err=True,
        )
    if not installed.has_manifest:
        click.echo("It has no manifest, so its files could not be checked.", err=True)
    covered = coverage_text(test.covered, test.structures) if test is not None else ""
    if test is None:
        click.echo("The self-test was skipped." if not self_test else "It came without a self-test.", err=True)
    elif not covered:
        click.echo("The self-test proves nothing: the mask that came with it is all background.", err=True)
    if as_json:
        content: dict[str, object] = {"root": str(installed.root), "name": installed.name, "version": installed.version}
        if test is not None:
            content |= {"reproduced": test.reproduced, "differing": test.differing, "dice": dict(test.dice)}
        click.echo(json.dumps(content, indent=2))
        return
    click.echo(f"{installed.name} {installed.version} is installed in {installed.root}")
    if test is not None:
        result = "the mask that came with it" if test.reproduced else "a similar mask, with more than rounding between"
        click.echo(f"Self-test: this machine gives {result}: {test}")
    if covered:
        click.echo(f"It covers {covered}, and says nothing of others.")
    thing, files = ("images", "IMAGES") if installed.kind == "slices" else ("a scan", "SCAN.nii.gz")
    click.echo(f"Segment {thing}: {command_line('predict', installed.root, tail=f'{files} -o masks')}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("target")
@click.option("--public", is_flag=True, help="Create a repository on the hub that everyone sees, not only you.")
def push(file: Path, target: str, public: bool) -> None:
    """Copy FILE, a packed bundle, to TARGET where others fetch it, with its SHA-256 in a file beside it.

    TARGET is hf://owner/model (the model card becomes its README; HF_TOKEN or `hf auth login` says who you are), a
    folder, or a folder as a URL of fsspec (s3://, sftp://, ...). There the file is complete or not there.

    \b
    medseg bundle push demo.zip hf://hospital/unet2d-liver
    medseg bundle push demo.zip /mnt/share/bundles
    """
    from medseg.bundle.share import push as push_bundle

    location = push_bundle(file, target, private=not public)
    click.echo(f"{file.name} is at {location}")
    click.echo(f"Others install it with: {command_line('bundle', 'install', location)}")


@click.command()
@click.argument("source")
@click.option(
    "-o",
    "--output",
    default=".",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The folder to put it in, or a name that ends in .zip.",
)
@_SHA256
def pull(source: str, output: Path, sha256: str | None) -> None:
    """Fetch a packed bundle and check its SHA-256; nothing of it is unpacked or run.

    SOURCE is hf://owner/model[@revision][/file.zip], a URL, a place that fsspec reaches, or a file. `medseg bundle
    install SOURCE` fetches and installs at once.

    \b
    medseg bundle pull hf://hospital/unet2d-liver
    medseg bundle inspect unet2d-liver.zip
    """
    from medseg.bundle.share import pull as pull_bundle

    path = pull_bundle(source, output, sha256)
    click.echo(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    click.echo(f"Look into it: {command_line('bundle', 'inspect', path)}")
    click.echo(f"Install it: {command_line('bundle', 'install', path)}")
