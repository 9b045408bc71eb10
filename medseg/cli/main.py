"""The group of all commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import logging
import os
import sys

import click

import medseg
from medseg.cli.lazy import LazyGroup
from medseg.errors import MedsegError

COMMANDS = {
    "bundle": ("medseg.cli.bundle", "Look into bundles, check them, pack, share and make them."),
    "data": ("medseg.cli.data", "Make phantoms, check and prepare data sets."),
    "demo": ("medseg.cli.demo", "Learn organs on a made-up data set and segment two volumes, in minutes."),
    "evaluate": ("medseg.cli.evaluate", "Hold predictions against the truth, and two evaluations against each other."),
    "predict": ("medseg.cli.predict", "Segment scans with a trained bundle or a run."),
    "report": ("medseg.cli.report", "Write what a run did as one HTML page, and its series as CSV."),
    "runs": ("medseg.cli.runs", "List runs, look at them, stop them, go on with them."),
    "train": ("medseg.cli.train", "Train a bundle."),
}
INTERRUPTED = 130
RESUMABLE = 75  # medseg.records.RESUMABLE, which would cost an import here


@click.group(cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(medseg.__version__, prog_name="medseg")
@click.option("--traceback", is_flag=True, help="Show where in the code an error arose.")
@click.pass_context
def cli(ctx: click.Context, traceback: bool) -> None:
    """Train, run and share medical image segmentation."""
    ctx.obj = {"traceback": traceback}
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    for name in ("ignite", "monai"):
        logging.getLogger(name).setLevel(logging.WARNING)


def ours(error: BaseException | None) -> MedsegError | None:
    """The error of medseg's own that caused `error`, through whatever libraries wrapped around it."""
    while error is not None:
        if isinstance(error, MedsegError):
            return error
        error = error.__cause__
    return None


def main(args: list[str] | None = None) -> None:
    """Run the command line; exit code 0 if all went well, 1 after an error, 2 for wrong use.

    A training that was stopped and saved ends with 75: the same command goes on. Anything else ends with 130 after
    Ctrl-C.
    """
    # Read once, when torch is imported. Its threads spin while they wait for each other, and beside other work on
    # the machine a step takes several times as long; spinning for a moment alone costs nothing on an idle machine
    # (docs/benchmarks/learning.md). libgomp's variable; other runtimes pass it over.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    try:
        code = cli.main(args, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(INTERRUPTED)
    except SystemExit as stop:
        if stop.code == RESUMABLE:
            click.echo("Saved and stopped. The same command goes on with it, and so does: medseg runs resume", err=True)
        raise
    except Exception as error:
        found = ours(error)
        if found is None or "--traceback" in (args if args is not None else sys.argv):
            raise
        click.echo(f"Error: {found}", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
