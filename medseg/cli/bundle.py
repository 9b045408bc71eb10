"""`medseg bundle`: look into bundles, check them, pack, share and make them; one file for each verb."""

from __future__ import annotations

import importlib

import click

VERBS = {
    "inspect": ("medseg.cli.bundle_inspect", "Say what a bundle is and would run, without running anything of it."),
    "install": ("medseg.cli.bundle_install", "Unpack a packed bundle safely, check it and run its self-test."),
    "new": ("medseg.cli.bundle_new", "Make a bundle of your own from one that is there."),
    "pack": ("medseg.cli.bundle_pack", "Write a bundle with its weights as one zip to share."),
    "pull": ("medseg.cli.bundle_pull", "Fetch a packed bundle from the Hugging Face Hub or any other place."),
    "push": ("medseg.cli.bundle_push", "Bring a packed bundle to the Hugging Face Hub or any other place."),
    "verify": ("medseg.cli.bundle_verify", "Check that a bundle is whole, consistent and does what it says."),
}


class _Verbs(click.Group):
    """Verbs are imported when they are called; help goes by the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(VERBS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, VERBS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=_Verbs)
def command() -> None:
    """Look into bundles, check them, pack, share and make them.

    \b
    medseg bundle inspect from-a-colleague.zip
    medseg bundle pack runs/unet2d/20261122-120000-demo -o demo.zip
    medseg bundle install demo.zip
    """
