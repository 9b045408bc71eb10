"""`medseg bundle`: inspect bundles, verify, pack, share and create them."""

from __future__ import annotations

import click

from medseg.cli.lazy import LazyGroup

VERBS = {
    "inspect": ("medseg.cli.bundle_check:inspect", "Show what a bundle is and would run, without running any of it."),
    "install": ("medseg.cli.bundle_share:install", "Check a packed bundle, unpack it and run its self-test."),
    "new": ("medseg.cli.bundle_new:new", "Create a bundle for your own classes from an existing one."),
    "pack": ("medseg.cli.bundle_share:pack", "Write a bundle with its weights as one zip to share."),
    "pull": ("medseg.cli.bundle_share:pull", "Fetch a packed bundle from the Hugging Face Hub or another place."),
    "push": ("medseg.cli.bundle_share:push", "Copy a packed bundle to the Hugging Face Hub or another place."),
    "verify": ("medseg.cli.bundle_check:verify", "Check that a bundle is complete, consistent and does what it says."),
}


@click.group(cls=LazyGroup, table=VERBS)
def command() -> None:
    """Inspect bundles, verify, pack, share and create them.

    \b
    medseg bundle inspect from-a-colleague.zip
    medseg bundle pack runs/unet2d/20261122-120000-demo -o demo.zip
    medseg bundle install demo.zip
    """
