"""`medseg bundle`: look into bundles, check them, pack, share and make them; one file for each verb."""

from __future__ import annotations

import click

from medseg.cli.lazy import LazyGroup

VERBS = {
    "inspect": ("medseg.cli.bundle_inspect", "Say what a bundle is and would run, without running anything of it."),
    "install": ("medseg.cli.bundle_install", "Unpack a packed bundle safely, check it and run its self-test."),
    "new": ("medseg.cli.bundle_new", "Make a bundle of your own from one that is there."),
    "pack": ("medseg.cli.bundle_pack", "Write a bundle with its weights as one zip to share."),
    "pull": ("medseg.cli.bundle_pull", "Fetch a packed bundle from the Hugging Face Hub or any other place."),
    "push": ("medseg.cli.bundle_push", "Bring a packed bundle to the Hugging Face Hub or any other place."),
    "verify": ("medseg.cli.bundle_verify", "Check that a bundle is whole, consistent and does what it says."),
}


@click.group(cls=LazyGroup, table=VERBS)
def command() -> None:
    """Look into bundles, check them, pack, share and make them.

    \b
    medseg bundle inspect from-a-colleague.zip
    medseg bundle pack runs/unet2d/20261122-120000-demo -o demo.zip
    medseg bundle install demo.zip
    """
