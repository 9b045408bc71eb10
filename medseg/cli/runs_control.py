"""`medseg runs stop|resume|watch|sync|monitor|dashboard`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medseg.cli.options import parse_pairs, with_trust
from medseg.errors import command_line

if TYPE_CHECKING:
    from medseg.runs.detach import Detached

with_runs = click.option(
    "--runs",
    type=click.Path(path_type=Path),
    help="The folder of the runs.  [default: MEDSEG_RUNS, else runs]",
)


def root_of(context: click.Context, runs: Path | None) -> Path:
    """Return the folder of the runs: that of this command, else of the group before it, else the usual one."""
    from medseg.runs.find import runs_root

    return runs_root(runs or (context.obj or {}).get("runs"))


def pick_run(context: click.Context, run: str | None, runs: Path | None) -> Path:
    """Return the folder of a run; without a name the running one, else the latest."""
    from medseg.runs.find import pick

    return pick(run, root_of(context, runs))


@click.command(short_help="Stop a run: it saves and ends.")
@click.argument("run", required=False)
@click.option("--now", is_flag=True, help="Kill it: what came after its last checkpoint is lost.")
@click.option("--timeout", default=120.0, show_default=True, help="Seconds to wait until it has saved.")
@with_runs
@click.pass_context
def stop(context: click.Context, run: str | None, now: bool, timeout: float, runs: Path | None) -> None:
    """Stop a run: it saves and ends. Without RUN: the one that is running."""
    from medseg.runs.find import pick_running
    from medseg.runs.record import RUNNING
    from medseg.runs.stop import describe
    from medseg.runs.stop import stop as stop_run

    folder = pick_running(run, root_of(context, runs))
    click.echo(f"Stopping {folder.name}" if now else f"Stopping {folder.name}, it saves first", err=True)
    last_line = 0.0

    def waiting(passed: float) -> None:
        nonlocal last_line
        if passed - last_line >= 5:
            last_line = passed
            click.echo(f"  waiting, {passed:.0f} s", err=True)

    stopped = stop_run(folder, timeout, now=now, waiting=waiting)
    click.echo(describe(folder, stopped))
    if stopped.state == RUNNING:
        context.exit(1)


@click.command(short_help="Resume a run from its last checkpoint.")
@click.argument("run", required=False)
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--detach", "detached", is_flag=True, help="Let it run on after this terminal closes.")
@with_trust
@with_runs
@click.pass_context
def resume(
    context: click.Context, run: str | None, pairs: tuple[str, ...], detached: bool, trust: bool, runs: Path | None
) -> None:
    """Resume a run that was stopped, failed or died, from its last checkpoint.

    KEY=VALUE changes a setting; one that cannot change in a run is refused. A finished run trains on with a larger
    max_epochs=N, unless its learning rate follows a schedule made for max_epochs. Without RUN: the latest that neither
    runs nor has finished.
    """
    from medseg.runs.find import pick_resumable
    from medseg.runs.resume import resume_detached, resume_here

    if run is not None and "=" in run and not Path(run).exists():
        pairs = (run, *pairs)
        run = None
    parse_pairs(pairs)
    folder = pick_resumable(run, root_of(context, runs))
    if run is None:
        click.echo(f"Resuming {folder.name}", err=True)
    if detached:
        follow_start(resume_detached(folder, pairs, trust))
    else:
        context.exit(resume_here(folder, pairs, trust))


def follow_start(detached: Detached) -> None:
    """Print what a detached process prints until its run has a folder, then where that is and what to do with it."""
    from medseg.runs.detach import PATIENCE_MINUTES, wait_for_run

    click.echo(f"Process {detached.pid} was detached. Waiting until its run has begun (Ctrl-C ends only the waiting).")
    last = b"\n"

    def show(piece: bytes) -> None:
        nonlocal last
        last = piece
        click.echo(piece, nl=False, err=True)

    try:
        folder = wait_for_run(detached, show)
    except KeyboardInterrupt:
        click.echo(f"\nIt runs on. What it prints until its run has begun: {detached.log}")
        return
    finally:
        detached.release()
    if not last.endswith(b"\n"):  # in the middle of a progress bar
        click.echo(err=True)
    if folder is None:
        click.echo(f"It has begun no run after {PATIENCE_MINUTES} min and runs on. What it prints: {detached.log}")
        return
    click.echo(f"Run: {folder}")
    for verb in ("logs -f", "show", "stop"):
        click.echo(f"  {command_line('runs', *verb.split(), folder.name)}")


@click.command(short_help="Restart a run when it dies, and send a message.")
@click.argument("names", nargs=-1, metavar="[RUN]...")
@click.option("--restarts", default=5, show_default=True, help="How often without any progress in between.")
@click.option(
    "--pauses",
    default="10,30,90,300,900",
    show_default=True,
    help="Seconds before the first restart, the second, ...; the last for all that follow.",
)
@click.option("--command", "program", help="Run by the shell with MEDSEG_RUN, MEDSEG_STATE and MEDSEG_REASON.")
@click.option(
    "--webhook", envvar="MEDSEG_WEBHOOK", help="Gets a JSON POST, as Slack takes it.  [default: MEDSEG_WEBHOOK]"
)
@click.option("--detach", "detached", is_flag=True, help="Keep watching after this terminal closes.")
@with_trust
@with_runs
@click.pass_context
def watch(
    context: click.Context,
    names: tuple[str, ...],
    restarts: int,
    pauses: str,
    program: str | None,
    webhook: str | None,
    detached: bool,
    trust: bool,
    runs: Path | None,
) -> None:
    """Restart a run when it dies, and send a message when it dies or ends.

    The watching ends when every RUN has finished, was stopped, or died too often. Ending it leaves the runs alone.
    Without RUN: the one that is running, else the latest.
    """
    from medseg.runs.notify import Notifier
    from medseg.runs.watch import WatchPolicy
    from medseg.runs.watch import watch as watch_runs

    try:
        seconds = tuple(float(pause) for pause in pauses.split(","))
    except ValueError as error:
        raise click.UsageError(f"--pauses '{pauses}' must be seconds with commas between them.") from error
    if restarts < 0 or min(seconds) < 0:
        raise click.UsageError("--restarts and --pauses must not be negative.")
    notifier = Notifier(program, webhook)
    folders = list(dict.fromkeys(pick_run(context, name, runs) for name in names or (None,)))
    if not detached:
        context.exit(0 if watch_runs(folders, WatchPolicy(restarts, seconds, notifier, trust)) else 1)
    _detach_watch(folders, restarts, pauses, program, webhook, trust)


def _detach_watch(
    folders: list[Path], restarts: int, pauses: str, program: str | None, webhook: str | None, trust: bool
) -> None:
    from medseg.runs.detach import detach, wait_for_run
    from medseg.runs.watch import WATCH_LOG

    options = ["--restarts", str(restarts), "--pauses", pauses]
    options += [*(["--command", program] if program else []), *(["--trust"] if trust else [])]
    command = [sys.executable, "-m", "medseg", "runs", "watch", *(str(folder.resolve()) for folder in folders)]
    # The address is a secret, and other users of the machine can read a command line.
    secret = {"MEDSEG_WEBHOOK": webhook} if webhook else {}
    process = detach([*command, *options], folders[0].resolve().parent.parent, environment=secret)
    try:
        folder = wait_for_run(process, lambda piece: click.echo(piece, nl=False, err=True), every=0.1)
    finally:
        process.release()
    log = process.log if folder is None else folder / WATCH_LOG
    click.echo(f"Process {process.pid} watches {', '.join(folder.name for folder in folders)} and prints to {log}")


@click.command(short_help="Send the rows of a run that its tracker lacks.")
@click.argument("names", nargs=-1, metavar="[RUN]...")
@click.option("--backend", help="wandb or trackio.  [default: the run's own, else trackio]")
@click.option("--offline", is_flag=True, help="With wandb: make its offline file again instead of asking its server.")
@with_runs
@click.pass_context
def sync(context: click.Context, names: tuple[str, ...], backend: str | None, offline: bool, runs: Path | None) -> None:
    """Send the rows of a run that its tracker lacks; afterwards each is there once. Without RUN: the latest."""
    from medseg.monitoring.control import sync as sync_run
    from medseg.runs.find import pick_latest

    root = root_of(context, runs)
    for folder in [pick_latest(name, root) for name in names or (None,)]:
        synced = sync_run(folder, backend, offline)
        counts = f"{synced.sent} of {synced.rows} rows were missing, {synced.images} images were sent"
        click.echo(f"{folder.name} with {synced.backend} ({synced.mode}): {counts}\n{synced.where}")


@click.command(short_help="Switch the live page of a run on or off.")
@click.argument("run")
@click.argument("switch", type=click.Choice(["on", "off"]))
@click.option("--backend", help="With on: wandb or trackio.  [default: the run's own, else trackio]")
@with_runs
@click.pass_context
def monitor(context: click.Context, run: str, switch: str, backend: str | None, runs: Path | None) -> None:
    """Switch the live page of a running run on or off; what was recorded before is shown, too."""
    from medseg.monitoring.control import switch_off, switch_on

    folder = pick_run(context, run, runs)
    if switch == "on":
        chosen = switch_on(folder, backend).backend
        show = command_line("runs", "show", folder.name)
        click.echo(f"{folder.name}: shown with {chosen} from now on; {show} has the link")
        return
    if backend:
        raise click.UsageError("--backend goes with on.")
    ended = switch_off(folder)
    click.echo(f"{folder.name}: not shown any more" + ("" if ended else "; the remaining rows are still being sent"))


@click.command(short_help="Serve the live page of the runs on this machine.")
@click.option("--port", type=int, help="The port.  [default: the last one, else the first free one from 7860 on]")
@with_runs
@click.pass_context
def dashboard(context: click.Context, port: int | None, runs: Path | None) -> None:
    """Serve the live page of the runs on this machine, until Ctrl-C."""
    from medseg.monitoring.dashboard import serve

    serve(root_of(context, runs), port, lambda link: click.echo(f"The runs are shown at {link}"))


COMMANDS = (stop, resume, watch, sync, monitor, dashboard)
