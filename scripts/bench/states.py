"""What a change costs: the jobs of the other scripts, of this checkout and of another one, in turns in the same run.

    git worktree add ../before COMMIT
    python scripts/bench/states.py ../before

Needs Linux and an environment with medseg and its extras `fast` and `store`. Every job runs in a process of its own, of
each checkout with its own scripts; they are asked in turns, so that what else the machine does hits both alike. Every
ratio is this checkout's time to the other's, the median of the ratios of the rounds. Writes docs/benchmarks/states.json
and prints a table.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import data as data_bench
import inference as inference_bench
import metrics as metrics_bench
import torch

ROOT = Path(__file__).resolve().parents[2]


class Job:
    """One job of one checkout, in a process of its own."""

    def __init__(self, checkout: Path, script: str, arguments: Sequence[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(checkout / "scripts" / "bench" / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout)},
        )
        self._line()

    def ask(self) -> dict[str, float]:
        """Return what one turn took: seconds, or a rate."""
        if self.process.stdin:
            print(file=self.process.stdin, flush=True)
        return self._line()

    def _line(self) -> dict[str, float]:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise SystemExit("a job died: its reason stands above")
        return dict(json.loads(line))

    def close(self) -> None:
        """End it."""
        self.process.communicate()


def jobs(work: Path) -> dict[str, tuple[str, list[str]]]:
    """Return script and arguments of each job; inputs are written to `work`, outputs by checkout to `work/<side>`."""
    data_bench.write_masks(work / "case")
    image = str(inference_bench.write_image(work / "image.npy", (136, 136, 100)))
    network = str(inference_bench.write_network(work / "network.pt", None))
    metrics_bench.volumes(work, (180, 140, 120))
    scan: dict[str, Any] = {"network": network, "image": image, "source": [200, 200, 100], "roi": [128, 128]}
    scan |= {"batch": 4, "out": "SIDE/labels.npy", "warm": 4}

    def step(overlay: str | None) -> str:
        return json.dumps({"who": "medseg", "allocator": True, "overlay": overlay})

    merge = {"case": str(work / "case"), "out": "SIDE/merged.npy", "write": True, "precedence": []}
    return {
        "merge 117 masks": ("data_jobs.py", ["merge_medseg", json.dumps(merge)]),
        "loss and gradient, fp32": ("training_jobs.py", ["loss", json.dumps({"who": "medseg"})]),
        "loss and gradient, bf16": ("training_jobs.py", ["loss", json.dumps({"who": "medseg", "dtype": "bfloat16"})]),
        "loss and gradient, torch": ("training_jobs.py", ["loss", json.dumps({"who": "torch"})]),
        "training step, fast_cpu": ("training_jobs.py", ["step", step("fast_cpu")]),
        "training step, default": ("training_jobs.py", ["step", step(None)]),
        "inference, fp32": ("inference_jobs.py", ["medseg", json.dumps({**scan, "precision": "fp32"})]),
        "inference, bf16": ("inference_jobs.py", ["medseg", json.dumps({**scan, "precision": "bf16"})]),
        "dice of 117 structures": ("metrics.py", ["--job", "dice", "--who", "medseg", "--folder", str(work)]),
        "surfaces of 117 structures": ("metrics.py", ["--job", "surface", "--who", "medseg", "--folder", str(work)]),
    }


def main() -> None:
    """Run what is asked for and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", action="append", help="words that occur in the name of a job")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "benchmarks" / "states.json")
    options = parser.parse_args()
    checkouts = {"after": ROOT, "before": options.before.resolve()}
    report: dict[str, Any] = {"cores": os.cpu_count(), "python": platform.python_version(), "torch": torch.__version__}
    rows: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (script, arguments) in jobs(Path(folder)).items():
            if options.only and not any(word in name for word in options.only):
                continue
            started = {}
            for side, checkout in checkouts.items():
                (Path(folder) / side).mkdir(exist_ok=True)
                placed = [argument.replace("SIDE", str(Path(folder) / side)) for argument in arguments]
                started[side] = Job(checkout, script, placed)
            turns = [{side: job.ask() for side, job in started.items()} for _ in range(options.rounds)]
            for job in started.values():
                job.close()
            wall, cpu = (
                [turn["after"][key] / turn["before"][key] for turn in turns if key in turn["after"]]
                for key in ("seconds" if "seconds" in turns[0]["after"] else "wall", "cpu")
            )
            rows[name] = {
                "times_wall": round(statistics.median(wall), 3),
                "range": [round(min(wall), 3), round(max(wall), 3)],
                **({"times_cpu": round(statistics.median(cpu), 3)} if cpu else {}),
            }
            print(name, json.dumps(rows[name]), flush=True)
    describe = ["git", "-C", str(options.before), "rev-parse", "--short", "HEAD"]
    report["before"] = subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    options.output.write_text(json.dumps({**report, "rounds": options.rounds, "jobs": rows}, indent=2) + "\n", "utf-8")
    print(f"Written to {options.output}")


if __name__ == "__main__":
    main()
