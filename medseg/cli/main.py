"""The group of all commands, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import click

import medseg
from medseg.cli.lazy import LazyGroup
from medseg.cli.options import explain_option
from medseg.errors import medseg_error

COMMANDS = {
    "bundle": ("medseg.cli.bundle", "Inspect, verify, pack, install, share and make bundles."),
    "data": ("medseg.cli.data", "Check, prepare and convert data sets; make phantoms."),
    "demo": ("medseg.cli.demo", "Train on phantoms and segment two volumes, in minutes."),
    "evaluate": ("medseg.cli.evaluate", "Score predictions against the truth; compare evaluations."),
    "info": ("medseg.cli.info", "Show what is installed, or what a bundle or a run is."),
    "list": ("medseg.cli.list", "List the bundles, overlays, structures and keys there are."),
    "predict": ("medseg.cli.predict", "Segment scans with a trained bundle or a run."),
    "report": ("medseg.cli.report", "Write an HTML page and CSV files about a run."),
    "runs": ("medseg.cli.runs", "List, show, compare, stop, resume and watch runs."),
    "train": ("medseg.cli.train", "Train a bundle."),
}
INTERRUPTED = 130
RESUMABLE = 75  # medseg.runs.record.RESUMABLE, which would cost an import here


@click.group(cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(medseg.__version__, prog_name="medseg")
@click.option("--traceback", is_flag=True, help="Show the Python traceback of an error.")
@click.pass_context
def cli(ctx: click.Context, traceback: bool) -> None:
    """Train, run and share medical image segmentation."""
    ctx.obj = {"traceback": traceback}
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S", stream=sys.stderr)
    for name in ("ignite", "monai", "numexpr"):
        logging.getLogger(name).setLevel(logging.WARNING)


def main(args: list[str] | None = None) -> None:
    """Run the command line, and exit with a code of the table in docs/reference/command-line.md.

    0: done. 1: an error, a failed scan or an error finding. 2: wrong use. 75: a training was stopped and has saved;
    the same command resumes it. 130: interrupted.
    """
    _guard_imports()
    try:
        code = cli.main(args, standalone_mode=False)
    except click.ClickException as error:
        shown = explain_option(error) if isinstance(error, click.NoSuchOption) else error
        shown.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(INTERRUPTED)
    except SystemExit as stop:
        if stop.code == RESUMABLE:
            click.echo("Saved and stopped. Resume it with the same command, or with: medseg runs resume", err=True)
        raise
    except Exception as error:
        cause = medseg_error(error)
        if cause is None or "--traceback" in (args if args is not None else sys.argv):
            raise
        click.echo(f"Error: {cause}", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def _guard_imports() -> None:
    """Let no process that is started from here import from the working directory, which may be a stranger's.

    Python's `-m`, and its own helpers of `multiprocessing`, would look there first.
    """
    os.environ["PYTHONSAFEPATH"] = "1"
    home = Path(medseg.__file__).resolve().parents[1]
    if Path.cwd() == home:  # a checkout that is perhaps not installed: its children need it too
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(home), os.environ.get("PYTHONPATH", "")]))
