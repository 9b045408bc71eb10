"""`medseg runs logs|stop|resume|watch|sync|monitor|dashboard`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from medseg.cli.options import parse_pairs, with_trust

if TYPE_CHECKING:
    from medseg.runs.detach import Detached

with_runs = click.option(
    "--runs",
    type=click.Path(path_type=Path),
    help="The folder of the runs.  [default: MEDSEG_RUNS, or 'runs' here or beside the bundles]",
)


def root_of(context: click.Context, runs: Path | None) -> Path:
    """The folder of the runs: as this command was told, or the group before it, or the usual place."""
    from medseg.runs.find import runs_root

    return runs_root(runs or (context.obj or {}).get("runs"))


def _chosen(context: click.Context, run: str | None, runs: Path | None) -> Path:
    from medseg.runs.find import pick

    return pick(run, root_of(context, runs))


def _chosen_all(context: click.Context, names: tuple[str, ...], runs: Path | None) -> list[Path]:
    return [_chosen(context, name, runs) for name in names] or [_chosen(context, None, runs)]


@click.command(short_help="Print the log of a run, and follow it.")
@click.argument("run", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on printing until the run has ended.")
@click.option("-n", "--lines", default=20, show_default=True, help="How many of the last lines; 0: all.")
@click.option("--console", is_flag=True, help="What a detached run printed, bars and all, instead of its log.")
@with_runs
@click.pass_context
def logs(context: click.Context, run: str | None, follow: bool, lines: int, console: bool, runs: Path | None) -> None:
    """Print the log of a run. Without RUN: the one that is running, or the latest."""
    from medseg.errors import RunError
    from medseg.runs.record import CONSOLE, LOG
    from medseg.runs.run import run_state
    from medseg.runs.text_log import follow as pieces
    from medseg.runs.text_log import start_of_last_lines

    folder = _chosen(context, run, runs)
    path = folder / (CONSOLE if console else LOG)
    if not path.is_file() and not (follow and run_state(folder) == "running"):
        fix = "Only a detached run has one; its log is: medseg runs logs" if console else ""
        raise RunError(path, "the file is missing", fix=fix)
    try:
        for piece in pieces(folder, path, start_of_last_lines(path, lines), forever=follow):
            click.echo(piece, nl=False)
    except KeyboardInterrupt:
        click.echo(f"\n{folder.name}: {run_state(folder)}", err=True)
        return
    if follow:
        click.echo(f"{folder.name}: {run_state(folder)}", err=True)


@click.command(short_help="Stop a run: it saves and ends.")
@click.argument("run", required=False)
@click.option("--now", is_flag=True, help="Kill it: what came after its last checkpoint is lost.")
@click.option("--timeout", default=120.0, show_default=True, help="Seconds to wait until it has saved.")
@with_runs
@click.pass_context
def stop(context: click.Context, run: str | None, now: bool, timeout: float, runs: Path | None) -> None:
    """Stop a run: it saves and ends. Without RUN: the one that is running."""
    from medseg.runs.find import pick_running
    from medseg.runs.stop import describe
    from medseg.runs.stop import stop as stop_run

    folder = pick_running(run, root_of(context, runs))
    click.echo(f"Stopping {folder.name}" if now else f"Stopping {folder.name}, it saves first", err=True)
    said = 0.0

    def waiting(passed: float) -> None:
        nonlocal said
        if passed - said >= 5:
            said = passed
            click.echo(f"  waiting, {passed:.0f} s", err=True)

    done = stop_run(folder, timeout, now=now, waiting=waiting)
    click.echo(describe(folder, done))
    if done.state == "running":
        context.exit(1)


@click.command(short_help="Go on with a run from its last checkpoint.")
@click.argument("run", required=False)
@click.argument("pairs", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--detach", "detached", is_flag=True, help="Let it run on after this terminal closes.")
@with_trust
@with_runs
@click.pass_context
def resume(
    context: click.Context, run: str | None, pairs: tuple[str, ...], detached: bool, trust: bool, runs: Path | None
) -> None:
    """Go on with a run that was stopped, failed or died, from its last checkpoint.

    KEY=VALUE changes a setting on the way; what cannot be changed in a run is refused. A finished run trains on
    with a larger max_epochs=N, unless its learning rate follows a schedule made for max_epochs. Without RUN: the
    latest that neither runs nor has finished.
    """
    from medseg.runs.find import pick_resumable
    from medseg.runs.resume import resume_detached, resume_here

    if run is not None and "=" in run and not Path(run).exists():
        pairs, run = (run, *pairs), None
    parse_pairs(pairs)
    folder = pick_resumable(run, root_of(context, runs))
    if run is None:
        click.echo(f"Going on with {folder.name}", err=True)
    if detached:
        follow_start(resume_detached(folder, pairs, trust))
    else:
        context.exit(resume_here(folder, pairs, trust))


def follow_start(started: Detached) -> None:
    """Show what a detached process prints until its run has a folder, then where it is and what to do with it."""
    from medseg.runs.detach import PATIENCE_MINUTES, wait_for_run

    click.echo(
        f"Process {started.pid} runs on by itself. Waiting until its run has begun (Ctrl-C only ends the waiting)."
    )
    last = b"\n"

    def show(piece: bytes) -> None:
        nonlocal last
        last = piece
        click.echo(piece, nl=False, err=True)

    try:
        folder = wait_for_run(started, show)
    except KeyboardInterrupt:
        click.echo(f"\nIt goes on. What it prints until its run has begun: {started.log}")
        return
    finally:
        started.release()
    if not last.endswith(b"\n"):  # in the middle of a progress bar
        click.echo(err=True)
    if folder is None:
        click.echo(f"It goes on and has begun no run after {PATIENCE_MINUTES} min. What it prints: {started.log}")
        return
    name = folder.name
    click.echo(f"Run: {folder}")
    click.echo(f"  medseg runs logs -f {name}")
    click.echo(f"  medseg runs show {name}")
    click.echo(f"  medseg runs stop {name}")


@click.command(short_help="Start a run again when it dies, and tell somebody.")
@click.argument("names", nargs=-1, metavar="[RUN]...")
@click.option("--restarts", default=5, show_default=True, help="How often without having come further in between.")
@click.option(
    "--pauses",
    default="10,30,90,300,900",
    show_default=True,
    help="Seconds before the first restart, the second, ...; the last for all that follow.",
)
@click.option("--command", "program", help="Run by the shell with MEDSEG_RUN, MEDSEG_STATE and MEDSEG_REASON.")
@click.option(
    "--webhook",
    envvar="MEDSEG_WEBHOOK",
    help="Gets a JSON POST, as Slack takes it.  [default: MEDSEG_WEBHOOK]",
)
@click.option("--detach", "detached", is_flag=True, help="Let the watching go on after this terminal closes.")
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
    """Start a run again when it dies, and tell somebody when it dies or ends.

    It ends when every RUN has finished, was stopped, or died too often. Ending it leaves the runs alone. Without
    RUN: the one that is running, or the latest.
    """
    from medseg.runs.notify import Notifier
    from medseg.runs.watch import WatchPolicy
    from medseg.runs.watch import watch as watch_runs

    try:
        waits = tuple(float(one) for one in pauses.split(","))
    except ValueError as error:
        raise click.UsageError(f"--pauses '{pauses}' must be seconds with commas between them.") from error
    if restarts < 0 or min(waits) < 0:
        raise click.UsageError("--restarts and --pauses must not be negative.")
    notifier = Notifier(program, webhook)
    folders = list(dict.fromkeys(_chosen_all(context, names, runs)))
    if not detached:
        context.exit(0 if watch_runs(folders, WatchPolicy(restarts, waits, notifier, trust)) else 1)
    from medseg.runs.detach import detach, wait_for_run

    arguments = ["--restarts", str(restarts), "--pauses", pauses, *(["--command", program] if program else [])]
    arguments += ["--trust"] if trust else []
    line = [sys.executable, "-m", "medseg", "runs", "watch", *(str(one.resolve()) for one in folders), *arguments]
    secret = {"MEDSEG_WEBHOOK": webhook} if webhook else {}  # a command line can be read by others on the machine
    started = detach(line, folders[0].resolve().parent.parent, environment=secret)
    try:
        folder = wait_for_run(started, lambda piece: click.echo(piece, nl=False, err=True), every=0.1)
    finally:
        started.release()
    location = started.log if folder is None else folder / "watch.log"
    click.echo(f"Process {started.pid} watches {', '.join(one.name for one in folders)} and prints to {location}")


@click.command(short_help="Bring what a run has recorded to its tracker.")
@click.argument("names", nargs=-1, metavar="[RUN]...")
@click.option("--backend", help="wandb or trackio.  [default: the run's own, or trackio]")
@click.option("--offline", is_flag=True, help="With wandb: make its offline file anew instead of asking its server.")
@with_runs
@click.pass_context
def sync(context: click.Context, names: tuple[str, ...], backend: str | None, offline: bool, runs: Path | None) -> None:
    """Bring everything that a run has recorded to its tracker, each row once. Without RUN: the latest."""
    from medseg.monitoring.control import sync as sync_run
    from medseg.runs.find import pick_latest

    root = root_of(context, runs)
    for folder in [pick_latest(name, root) for name in names or (None,)]:
        done = sync_run(folder, backend, offline)
        counts = f"{done.sent} of {done.rows} rows were not there, {done.images} pictures went along"
        click.echo(f"{folder.name} with {done.backend} ({done.mode}): {counts}\n{done.where}")


@click.command(short_help="Switch the live page of a run on or off.")
@click.argument("run")
@click.argument("switch", type=click.Choice(["on", "off"]))
@click.option("--backend", help="With on: wandb or trackio.  [default: the run's own, or trackio]")
@with_runs
@click.pass_context
def monitor(context: click.Context, run: str, switch: str, backend: str | None, runs: Path | None) -> None:
    """Switch the live page of a run on or off while it goes; what was recorded before is shown, too."""
    from medseg.monitoring.control import switch_off, switch_on

    folder = _chosen(context, run, runs)
    if switch == "on":
        chosen = switch_on(folder, backend).backend
        click.echo(f"{folder.name}: shown with {chosen} from now on; medseg runs show {folder.name} has the link")
        return
    if backend:
        raise click.UsageError("--backend goes with on.")
    ended = switch_off(folder)
    click.echo(f"{folder.name}: not shown any more" + ("" if ended else "; what is left to send is being sent"))


@click.command(short_help="Serve the live page of the runs here.")
@click.option("--port", type=int, help="The port on this machine.")
@with_runs
@click.pass_context
def dashboard(context: click.Context, port: int | None, runs: Path | None) -> None:
    """Serve the live page of the runs on this machine, until Ctrl-C."""
    from medseg.monitoring.dashboard import serve

    serve(root_of(context, runs), port, lambda link: click.echo(f"The runs are shown at {link}"))
