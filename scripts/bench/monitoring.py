"""What monitoring costs: CPU time of its handlers and of the tracker's process, as a share of training's.

    python scripts/bench/monitoring.py --phantom
    python scripts/bench/monitoring.py --data ../shared/data/totalseg_mini

Trains unet2d with its defaults (batch 8, 256x256, 118 classes; monitoring at its default rates, pictures included) for
a few epochs, in this process. Each call of a monitoring handler is timed in CPU time of its thread, and the whole
training step, all threads, in CPU time of the process. Writes docs/benchmarks/monitoring.json and .md.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from monai.engines.utils import IterationEvents

ROOT = Path(__file__).resolve().parents[2]
FEED = "medseg.monitoring.uploader"
STARTUP_SECONDS = 15.0
NOTES = """\
A step lasts from the request for a batch to the end of the optimizer's step, in CPU time of all threads
(`num_workers` 0, so reading is included); validation is not included. Handlers are timed by the CPU time of their
thread at every event, also in validation and in the check before the first epoch. Their time is divided by the number
of steps: with the default of 16 slices per case, 8 cases are 16 steps per epoch. Work that is done once per epoch
(previews, the summary) costs less per step if there are more cases: these few cases are the worst case. The first 15
seconds of the tracker's process are its start, which happens once per run; its own figure is what it used after that.
"""


class Timed:
    """CPU seconds of monitoring's handlers, by module and by what they hang on."""

    def __init__(self) -> None:
        self.seconds: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))

    def follow(self, engine: Any) -> None:
        """Time what lies in `medseg.monitoring` and hangs on an engine's events."""
        for event, held in engine._event_handlers.items():
            held[:] = [(self.timed(one, str(event)), *rest) for one, *rest in held]

    def follow_steps(self) -> None:
        """And what will be hung on steps of an optimizer."""
        register = torch.optim.Optimizer.register_step_pre_hook

        def timed(optimizer: torch.optim.Optimizer, look: Callable[..., Any]) -> Any:
            return register(optimizer, self.timed(look, "step"))

        torch.optim.Optimizer.register_step_pre_hook = timed  # type: ignore[method-assign, assignment]

    def timed(self, handler: Callable[..., Any], event: str) -> Callable[..., Any]:
        """The handler with its CPU time taken, if it is one of monitoring's."""
        package, _, name = str(getattr(handler, "__module__", "")).rpartition(".")
        if package != "medseg.monitoring":
            return handler
        name = "history" if name in ("throughput", "gradients", "running_mean") else name

        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return handler(*args, **kwargs)
            finally:
                self.seconds[name][event] += time.thread_time() - began

        return call


class Children:
    """CPU seconds of the tracker's processes, looked at again and again, for they may end before this one."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.first: dict[int, float] = {}
        self.latest: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Children":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.5):
            for one in psutil.process_iter(["pid", "cmdline"]):
                words = one.info["cmdline"] or []
                if FEED in words and any(self.folder in word for word in words):
                    try:
                        cpu = one.cpu_times()
                    except psutil.Error:
                        continue
                    age = time.time() - one.create_time()
                    spent = cpu.user + cpu.system + cpu.children_user + cpu.children_system
                    if age < STARTUP_SECONDS:
                        self.first[one.pid] = spent
                    self.latest[one.pid] = spent


def measure(data: Path | None, epochs: int, folder: Path, overrides: dict[str, Any]) -> dict[str, Any]:
    """Train and measure."""
    timed = Timed()
    timed.follow_steps()
    settings: dict[str, Any] = {"max_epochs": epochs, "output_dir": str(folder), "device": "cpu", **overrides}
    if data is not None:
        settings["dataset_dir"] = str(data)
    config = str(ROOT / "bundles" / "unet2d" / "configs" / "train.json")
    workflow = ConfigWorkflow(config, workflow_type="train", logging_file=False, **settings)
    workflow.initialize()
    trainer = workflow.parser.get_parsed_content("train#trainer")
    evaluator = workflow.parser.get_parsed_content("validate#evaluator")
    timed.follow(trainer)
    timed.follow(evaluator)
    marks: dict[str, float] = {}
    spent: dict[str, list[float]] = {"steps": [], "epochs": [], "validations": []}

    def began(_: Engine, name: str) -> None:
        marks[name] = time.process_time()

    def ended(_: Engine, name: str) -> None:
        if name in marks:
            spent[name].append(time.process_time() - marks[name])

    trainer.add_event_handler(Events.GET_BATCH_STARTED, began, "steps")
    trainer.add_event_handler(IterationEvents.MODEL_COMPLETED, ended, "steps")
    evaluator.add_event_handler(Events.STARTED, began, "validations")
    evaluator.add_event_handler(Events.COMPLETED, ended, "validations")
    with Children(folder) as children:
        workflow.run()
        time.sleep(1)
    length = trainer.state.epoch_length
    steps = trainer.state.iteration
    return report(timed, children, spent, steps, length, epochs)


def report(
    timed: Timed, children: Children, spent: dict[str, list[float]], steps: int, length: int, epochs: int
) -> dict[str, Any]:
    """Shares of a step's CPU time."""
    step = sum(spent["steps"]) / len(spent["steps"])
    handlers = {name: sum(events.values()) for name, events in timed.seconds.items()}
    start = sum(children.first.values())
    feed = sum(children.latest.values()) - start
    return {
        "steps": steps,
        "epochs": epochs,
        "steps_an_epoch": length,
        "cpu_seconds_a_step": round(step, 4),
        "validations": len(spent["validations"]),
        "cpu_seconds_a_validation": round(sum(spent["validations"]) / max(1, len(spent["validations"])), 3),
        "handlers_cpu_seconds": {name: round(value, 4) for name, value in sorted(handlers.items())},
        "handlers_by_event": {
            name: {event: round(value, 4) for event, value in events.items()} for name, events in timed.seconds.items()
        },
        "feed_processes": len(children.latest),
        "feed_cpu_seconds_starting": round(start, 3),
        "feed_cpu_seconds_after": round(feed, 3),
        "handlers_share": round(sum(handlers.values()) / steps / step, 5),
        "feed_share": round(feed / steps / step, 5),
        "share": round((sum(handlers.values()) + feed) / steps / step, 5),
        "share_with_start": round((sum(handlers.values()) + feed + start) / steps / step, 5),
    }


def page(found: dict[str, Any]) -> str:
    """The figures as a page."""
    machine = found["machine"]
    lines = [
        "# Monitoring: what it costs",
        "",
        "    python scripts/bench/monitoring.py --phantom",
        "    python scripts/bench/monitoring.py --data ../shared/data/totalseg_mini",
        "",
        f"unet2d with its defaults (batch 8, 256x256, 118 classes): a row every 10 batches, two previews per "
        f"validation, the state of the machine every 30 s, no histograms. {machine['cores']} cores, "
        f"Python {machine['python']}, torch {machine['torch']}.",
        "",
        "| data | steps | steps per epoch | CPU s per step | handlers, CPU s in all | tracker's process, CPU s | "
        "share of a step | with the tracker's start |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, run in found["runs"].items():
        lines.append(
            f"| {name} | {run['steps']} | {run['steps_an_epoch']} | {run['cpu_seconds_a_step']:.2f} | "
            f"{sum(run['handlers_cpu_seconds'].values()):.2f} | {run['feed_cpu_seconds_after']:.2f} + "
            f"{run['feed_cpu_seconds_starting']:.2f} to start | {run['share']:.2%} | {run['share_with_start']:.2%} |"
        )
    lines += ["", "CPU seconds by handler, in all:", ""]
    names = sorted({name for run in found["runs"].values() for name in run["handlers_cpu_seconds"]})
    lines += [f"| data | {' | '.join(names)} |", f"|{'---|' * (len(names) + 1)}"]
    for name, run in found["runs"].items():
        cells = " | ".join(f"{run['handlers_cpu_seconds'].get(one, 0):.3f}" for one in names)
        lines.append(f"| {name} | {cells} |")
    return "\n".join([*lines, "", NOTES])


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", type=Path, help="a data set; by default the bundle's own phantom")
    options.add_argument("--phantom", action="store_true", help="train on the bundle's phantom")
    options.add_argument("--epochs", type=int, default=2)
    options.add_argument("--set", nargs="*", default=[], metavar="KEY=JSON", help="overrides of the config")
    options.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "benchmarks" / "monitoring.json")
    given = options.parse_args()
    if bool(given.data) == given.phantom:
        sys.exit("Say either --phantom or --data FOLDER.")
    extra = {key: json.loads(value) for key, value in (one.split("=", 1) for one in given.set)}
    result = json.loads(given.output.read_text()) if given.output.is_file() else {"runs": {}}
    result["machine"] = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    with tempfile.TemporaryDirectory() as work:
        name = given.data.name if given.data else "phantom"
        result["runs"][name] = measure(given.data, given.epochs, Path(work), {"num_workers": 0, **extra})
    given.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    given.output.with_suffix(".md").write_text(page(result), encoding="utf-8")
    print(json.dumps(result["runs"][name], indent=2))
