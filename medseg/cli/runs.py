"""`medseg runs`: what there is, how it goes, side by side. The commands that change something are in `runs_control`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from medseg.cli import runs_control

_LATEST = 20


@click.group(invoke_without_command=True)
@click.option("--all", "everything", is_flag=True, help="All runs, not the latest 20 and those that are running.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@runs_control.with_runs
@click.pass_context
def command(context: click.Context, everything: bool, as_json: bool, runs: Path | None) -> None:
    """List runs, look at them, stop them, go on with them.

    RUN is the folder of a run, its name, or a part of its name that no other has. Without a command: the list.

    \b
    medseg runs
    medseg runs show demo
    medseg runs logs -f
    """
    context.obj = {**(context.obj or {}), "runs": runs}
    if context.invoked_subcommand is None:
        context.invoke(show_list, everything=everything, as_json=as_json, runs=runs)


@command.command("list", short_help="All runs, the latest first.")
@click.option("--all", "everything", is_flag=True, help="All runs, not the latest 20 and those that are running.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@runs_control.with_runs
@click.pass_context
def show_list(context: click.Context, everything: bool, as_json: bool, runs: Path | None) -> None:
    """All runs with state, epoch, best Dice and time left, the latest first."""
    from medseg.runs.find import all_runs
    from medseg.runs.record import RUNNING

    root = runs_control.root_of(context, runs)
    found = all_runs(root)
    printable = [one for index, one in enumerate(found) if everything or index < _LATEST or one.state == RUNNING]
    if as_json:
        _print_json([one.summary() for one in printable])
        return
    from medseg.cli import runs_show

    runs_show.show_list(printable, root, len(found))


@command.command(short_help="How a run goes.")
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="The facts as JSON.")
@runs_control.with_runs
@click.pass_context
def show(context: click.Context, run: str | None, as_json: bool, runs: Path | None) -> None:
    """How a run goes: curves, Dice by structure, warnings, settings, where its files are.

    Without RUN: the one that is running, or the latest.
    """
    from medseg.runs import Run
    from medseg.runs.find import pick

    folder = pick(run, runs_control.root_of(context, runs))
    if as_json:
        _print_json(Run(folder).summary())
        return
    from medseg.cli import runs_show

    runs_show.show_run(Run(folder))


@command.command(short_help="Runs side by side.")
@click.argument("names", nargs=-1, required=True, metavar="RUN RUN...")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@runs_control.with_runs
@click.pass_context
def compare(context: click.Context, names: tuple[str, ...], as_json: bool, runs: Path | None) -> None:
    """Runs side by side: the settings that differ, Dice by structure, speed."""
    from medseg.runs.compare import compare as of
    from medseg.runs.find import pick

    if len(names) < 2:
        raise click.UsageError("Name two runs or more, as: medseg runs compare RUN RUN")
    root = runs_control.root_of(context, runs)
    found = of([pick(name, root) for name in names])
    if as_json:
        _print_json({**found, "runs": [one.summary() for one in found["runs"]]})
        return
    from medseg.cli import runs_show

    runs_show.show_comparison(found)


def _print_json(content: Any) -> None:
    import json

    click.echo(json.dumps(content, indent=2, ensure_ascii=False, default=str))


for _one in (
    runs_control.logs,
    runs_control.stop,
    runs_control.resume,
    runs_control.watch,
    runs_control.sync,
    runs_control.monitor,
    runs_control.dashboard,
):
    command.add_command(_one)
