"""In place of a training: keeps a run's folder as one does, saves when it is asked to stop, goes on where it was."""

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from medseg.atomic import write_json
from medseg.runs.detach import redirect_output_to
from medseg.runs.metrics_log import append_row, read_rows
from medseg.runs.record import RESUMABLE, STOP, read_record, this_process


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("batches", type=int)
    parser.add_argument("--die-at", type=int, default=-1)
    parser.add_argument("--pause", type=float, default=0.02)
    parser.add_argument("--slow-to-save", type=float, default=0)
    options = parser.parse_args()
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)

    def record(**fields: object) -> None:
        write_json(folder / "run.json", {**read_record(folder), **fields})

    def stopped(number: int, frame: object) -> None:
        time.sleep(options.slow_to_save)
        record(state="interrupted")
        sys.exit(RESUMABLE)

    sys.stdout.write("early\n")
    signal.signal(signal.SIGTERM, stopped)
    record(bundle="unet2d", state="running", error=None, command=sys.argv, **this_process())
    redirect_output_to(folder)
    sys.stdout.write("late\n")
    done = max((row["iteration"] for _, row in read_rows(folder)), default=0)
    for iteration in range(done + 1, options.batches + 1):
        if iteration == options.die_at:
            os._exit(9)
        append_row(folder, {"kind": "batch", "time": time.time(), "epoch": 1, "iteration": iteration})
        time.sleep(options.pause)
        if (folder / STOP).exists():  # as a signal, on systems without them
            (folder / STOP).unlink()
            stopped(0, None)
    record(state="finished")


if __name__ == "__main__":
    main()
