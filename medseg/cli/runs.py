"""`medseg runs list|show|compare|logs`, and the group; the commands that change something are in `runs_control`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from medseg.cli import runs_control
from medseg.cli.runs_control import pick_run, root_of, with_runs

_LATEST = 20

with_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
with_all = click.option("--all", "everything", is_flag=True, help="List all runs, not the latest 20 and the running.")


@click.group(invoke_without_command=True)
@with_all
@with_json
@with_runs
@click.pass_context
def command(context: click.Context, everything: bool, as_json: bool, runs: Path | None) -> None:
    """List, show, compare, stop, resume and watch runs.

    RUN is the folder of a run, its name, or a part of its name that no other run has. Without a command: the list.

    \b
    medseg runs
    medseg runs show demo
    medseg runs logs -f
    """
    context.obj = {**(context.obj or {}), "runs": runs}
    if context.invoked_subcommand is None:
        context.invoke(show_list, everything=everything, as_json=as_json, runs=runs)


@command.command("list", short_help="List the runs, the latest first.")
@with_all
@with_json
@with_runs
@click.pass_context
def show_list(context: click.Context, everything: bool, as_json: bool, runs: Path | None) -> None:
    """List the runs with state, epoch, best Dice and time left, the latest first."""
    from medseg.runs.find import all_runs
    from medseg.runs.record import RUNNING

    root = root_of(context, runs)
    loaded = all_runs(root)
    shown = [run for index, run in enumerate(loaded) if everything or index < _LATEST or run.state == RUNNING]
    if as_json:
        _print_json([run.summary() for run in shown])
        return
    from medseg.cli import runs_show

    runs_show.show_list(shown, root, len(loaded))


@command.command(short_help="Show the state of a run.")
@click.argument("run", required=False)
@with_json
@with_runs
@click.pass_context
def show(context: click.Context, run: str | None, as_json: bool, runs: Path | None) -> None:
    """Show the state of a run: curves, Dice by structure, warnings, settings, files.

    Without RUN: the one that is running, else the latest.
    """
    from medseg.runs import Run

    loaded = Run(pick_run(context, run, runs))
    if as_json:
        _print_json(loaded.summary())
        return
    from medseg.cli import runs_show

    runs_show.show_run(loaded)


@command.command(short_help="Compare runs side by side.")
@click.argument("names", nargs=-1, required=True, metavar="RUN RUN...")
@with_json
@with_runs
@click.pass_context
def compare(context: click.Context, names: tuple[str, ...], as_json: bool, runs: Path | None) -> None:
    """Compare runs side by side: the settings that differ, Dice by structure, speed."""
    from medseg.runs.compare import compare as compare_runs

    if len(names) < 2:
        raise click.UsageError("Name two runs or more, for example: medseg runs compare RUN RUN")
    comparison = compare_runs([pick_run(context, name, runs) for name in names])
    if as_json:
        _print_json({**comparison, "runs": [run.summary() for run in comparison["runs"]]})
        return
    from medseg.cli import runs_show

    runs_show.show_comparison(comparison)


@command.command(short_help="Print the log of a run, and follow it.")
@click.argument("run", required=False)
@click.option("-f", "--follow", is_flag=True, help="Keep printing until the run has ended.")
@click.option("-n", "--lines", default=20, show_default=True, help="How many of the last lines; 0: all.")
@click.option("--console", is_flag=True, help="Print what a detached run printed, with progress bars, not its log.")
@with_runs
@click.pass_context
def logs(context: click.Context, run: str | None, follow: bool, lines: int, console: bool, runs: Path | None) -> None:
    """Print the log of a run. Without RUN: the one that is running, else the latest."""
    from medseg.errors import RunError
    from medseg.runs import text_log
    from medseg.runs.record import CONSOLE, LOG, RUNNING
    from medseg.runs.run import run_state

    folder = pick_run(context, run, runs)
    path = folder / (CONSOLE if console else LOG)
    if not path.is_file() and not (follow and run_state(folder) == RUNNING):
        fix = "Only a detached run has one. The log of this run: medseg runs logs" if console else ""
        raise RunError(path, "the file is missing", fix=fix)
    try:
        for piece in text_log.follow(folder, path, text_log.start_of_last_lines(path, lines), forever=follow):
            click.echo(piece, nl=False)
    except KeyboardInterrupt:
        click.echo(f"\n{folder.name}: {run_state(folder)}", err=True)
        return
    if follow:
        click.echo(f"{folder.name}: {run_state(folder)}", err=True)


def _print_json(content: Any) -> None:
    import json

    click.echo(json.dumps(content, indent=2, ensure_ascii=False, default=str))


for _command in runs_control.COMMANDS:
    command.add_command(_command)
