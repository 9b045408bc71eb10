"""`medseg train`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from medseg.cli.options import parse_pairs, with_overlays, with_trust


class _WithKeys(click.Command):
    """A command whose help lists the keys of the bundle that stands beside `--help`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Remember the bundle: the help is printed before arguments are looked at."""
        ctx.meta["bundle"] = next((word for word in args if not word.startswith("-")), None)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the keys."""
        super().format_options(ctx, formatter)
        if ctx.meta["bundle"] is None:
            formatter.write("\nKeys: medseg train BUNDLE --help, or medseg list keys BUNDLE.\n")
            return
        from medseg.cli.list import key_rows
        from medseg.runs.find import find_bundle

        with formatter.section(f"Keys of {ctx.meta['bundle']}"):
            rows = key_rows(find_bundle(ctx.meta["bundle"]))
            lines = [(row["key"], f"{row['meaning']}: {row['values']}  [default: {row['default']}]") for row in rows]
            formatter.write_dl(lines)


@click.command(cls=_WithKeys)
@click.argument("bundle")
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--data", type=click.Path(path_type=Path), help="The data set. Without it: the phantom that comes with medseg."
)
@with_overlays
@click.option("--fresh", is_flag=True, help="Start anew, even if the same run was begun before and did not finish.")
@click.option("--backup", metavar="URL", help="Keep a copy of the run off this machine: a folder, s3://..., ssh://...")
@click.option("--detach", is_flag=True, help="Let it run on after this terminal closes; see medseg runs.")
@with_trust
def command(
    bundle: str,
    pairs: tuple[str, ...],
    data: Path | None,
    overlays: tuple[str, ...],
    fresh: bool,
    backup: str | None,
    detach: bool,
    trust: bool,
) -> None:
    """Train BUNDLE (a name, or a folder), with overlays and overrides.

    The same as `python -m monai.bundle run training` with the same settings. Every key is checked before
    anything starts. The same command again resumes a run that did not finish.

    \b
    medseg train unet2d --data ~/Totalsegmentator_dataset --with poly lr=5e-4
    medseg train unet2d --with fast_cpu --with demo
    """
    overrides = parse_pairs(pairs)
    for option, key, value in (("--data", "dataset_dir", data), ("--backup", "backup", backup)):
        if value is not None:
            if key in overrides:
                raise click.UsageError(f"{option} and {key}= say the same; give one of them.")
            overrides[key] = str(value)
    if fresh:
        overrides["resume"] = False
    if data is not None and not data.exists():
        from medseg.errors import DataError

        raise DataError(data, "there is no such folder or datalist", fix="Give the folder of a data set.")
    from medseg.config.check import check_command
    from medseg.runs.find import find_bundle

    check_command(find_bundle(bundle), "train", overlays, overrides)
    if detach:
        words = [bundle, *(part for overlay in overlays for part in ("--with", overlay))]
        words += [*(["--data", str(data)] if data is not None else []), *(["--backup", backup] if backup else [])]
        _detach(
            [*words, *(["--fresh"] if fresh else []), *(["--trust"] if trust else []), *pairs],
            overrides.get("output_dir"),
        )
        return
    click.echo(f"Training {bundle}: loading PyTorch and MONAI, which takes some seconds", err=True)
    from medseg.bundle import Bundle, run_bundle
    from medseg.bundle.run import update_from_backup

    opened = Bundle.open(bundle, trust)
    opened.require_trust("train")  # before anything is fetched from a backup that it names
    if isinstance(overrides.get("resume"), str) and update_from_backup(opened.root, overrides):
        opened = Bundle.open(opened.root, trust)
    run_bundle(opened, "training", "train", overlays, overrides)


def _detach(arguments: list[str], runs: str | None) -> None:
    """Give the same command in a process of its own."""
    from medseg.cli.runs_control import follow_start
    from medseg.runs.detach import detach
    from medseg.runs.find import runs_root

    follow_start(detach([sys.executable, "-m", "medseg", "train", *arguments], runs_root(runs)))
