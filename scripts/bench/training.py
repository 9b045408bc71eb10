"""What the loss and a training step cost, beside MONAI and nnU-Net, in the same run.

    python scripts/bench/training.py --rivals ENVIRONMENT

Needs Linux, an environment with medseg and its extra `fast`, and for nnU-Net an environment of its own (--rivals, as
data.py makes it). The jobs are in training_jobs.py, each in a process of its own; they are asked in turns, and each
ratio is the median of the ratios of the rounds. Batch 8, 256x256, 118 classes. Writes docs/benchmarks/training.json.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import UNet

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


class Job:
    """One job in a process of its own."""

    def __init__(self, python: str, name: str, arguments: Mapping[str, Any]) -> None:
        self.name = f"{name} {arguments}"
        folders = {name: tempfile.gettempdir() for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        self.process = subprocess.Popen(
            [python, str(HERE / "training_jobs.py"), name, json.dumps(arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **folders, "PYTHONPATH": str(ROOT) if python == sys.executable else ""},
        )  # fmt: skip
        self._line()

    def _line(self) -> dict[str, float]:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise SystemExit(f"{self.name} died: its reason stands above")
        return dict(json.loads(line))

    def ask(self) -> dict[str, float]:
        """One turn."""
        if self.process.stdin:
            print(file=self.process.stdin, flush=True)
        return {key: round(value, 4) for key, value in self._line().items()}

    def close(self) -> None:
        """End it."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()


def table(wanted: Mapping[str, tuple[str, str, dict[str, Any]]], rounds: int) -> dict[str, Any]:
    """Medians of all jobs, and their share of the first one's, round by round."""
    jobs = {title: Job(*what) for title, what in wanted.items()}
    answers: dict[str, list[dict[str, float]]] = {title: [] for title in jobs}
    try:
        for number in range(rounds):
            for title, job in jobs.items():
                answers[title].append(job.ask())
                print(f"round {number + 1}: {title} {json.dumps(answers[title][-1])}", flush=True)
    finally:
        for job in jobs.values():
            job.close()
    first = answers[next(iter(answers))]
    found = {}
    for title, runs in answers.items():
        shares = {
            f"share_{key}": [one[key] / other[key] for one, other in zip(runs, first, strict=True)]
            for key in ("wall", "cpu")
        }
        found[title] = {
            **{key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]},
            **{key: round(statistics.median(values), 3) for key, values in shares.items()},
            "share_cpu_by_round": [round(value, 3) for value in shares["share_cpu"]],
        }
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("loss", "fast_cpu", "default"), action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rivals", type=Path, default=ROOT / ".rivals", help="environment with nnU-Net")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "benchmarks" / "training.json")
    options = parser.parse_args(arguments)
    own, theirs = sys.executable, str(options.rivals / "bin" / "python")
    report = json.loads(options.output.read_text()) if options.output.is_file() else {}
    names = ("torch", "monai", "numba", "numpy")
    report["machine"] = {
        "cores": os.cpu_count(), "threads": torch.get_num_threads(), "python": platform.python_version(),
        **{name: version(name) for name in names},
    }  # fmt: skip
    only = options.only or ["loss", "fast_cpu", "default"]
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "fast_cpu.trace"
        network = UNet(2, 1, 118, (32, 64, 128, 256), (2, 2, 2), num_res_units=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.trace(network, torch.zeros(1, 1, 64, 64)).save(trace)  # type: ignore[no-untyped-call]
        if "loss" in only:
            rows: dict[str, tuple[str, str, dict[str, Any]]] = {
                "MONAI": (own, "loss", {"who": "monai"}),
                "medseg": (own, "loss", {"who": "medseg"}),
                "medseg, channels last": (own, "loss", {"who": "medseg", "last": True}),
                "medseg, bfloat16 logits": (own, "loss", {"who": "medseg", "dtype": "bfloat16"}),
                "medseg without numba": (own, "loss", {"who": "torch"}),
            }
            if options.rivals.is_dir():
                rows["nnU-Net"] = (theirs, "loss", {"who": "nnunet"})
            report["loss"] = table(rows, options.rounds)
        for overlay in ("fast_cpu", "default"):
            if overlay not in only:
                continue
            with_it = {"overlay": overlay if overlay == "fast_cpu" else None}
            ours = {"who": "medseg", "allocator": True, **with_it}
            fp32 = {"train#inferer#precision": "fp32"}
            rows = {
                "MONAI": (own, "step", {"who": "monai", **with_it}),
                "medseg, as it is": (own, "step", ours),
                "medseg, fp32": (own, "step", {**ours, **fp32}),
                "medseg, fp32, plain allocator": (own, "step", {**ours, **fp32, "allocator": False}),
            }
            if overlay == "fast_cpu" and options.rivals.is_dir():
                rows["nnU-Net"] = (theirs, "step", {"who": "nnunet", "trace": str(trace)})
            report[f"step, {overlay}"] = table(rows, options.rounds)
            options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {options.output}")


if __name__ == "__main__":
    main()
