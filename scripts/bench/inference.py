"""What inference costs beside the network alone, MONAI and nnU-Net, in the same run.

    python scripts/bench/inference.py --weights trained.pt --only slices

Needs Linux, an environment with medseg and its extra `fast`, and for nnU-Net an environment of its own (--rivals, as
data.py makes it). Weights: those that --weights names (MONAI UNet 2D (32, 64, 128, 256), 118 classes, trained on the
phantom with all structures, see docs/benchmarks/inference.md) and random ones. The jobs are in inference_jobs.py. All
light ones run at the same time and are asked in turns; the heavy ones are started for each of their turns and ended
after it. Every ratio is the median of the ratios of the rounds. Writes docs/benchmarks/inference.json.
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

import numpy as np
import torch
from monai.networks.nets import BasicUNet, UNet

from medseg.data.phantom import PhantomSpec, make_body

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
CLASSES = 118
Answers = dict[str, list[dict[str, float]]]


class Job:
    """One job in a process of its own, started when it is first asked."""

    def __init__(
        self, python: str, name: str, out: Path, warm: int, heavy: bool, rounds: int, **arguments: Any
    ) -> None:
        self.heavy, self.rounds, self.out = heavy, rounds, out
        plain = {key: str(value) if isinstance(value, Path) else value for key, value in arguments.items()}
        text = json.dumps({**plain, "out": str(out), "warm": warm})
        self.command = [python, str(HERE / "inference_jobs.py"), name, text]
        self.own = python == sys.executable
        self.process: subprocess.Popen[str] | None = None

    def ask(self) -> dict[str, float]:
        """One turn."""
        if self.process is None:
            folders = {name: tempfile.gettempdir() for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
            path = {"PYTHONPATH": str(ROOT) if self.own else ""}
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                env={**os.environ, **folders, **path},
            )  # fmt: skip
            self._line()
        if self.process.stdin:
            print(file=self.process.stdin, flush=True)
        answer = {key: round(float(value), 3) for key, value in self._line().items()}
        if self.heavy:
            self.close()
        return answer

    def _line(self) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process and self.process.stdout else ""
        if not line:
            raise SystemExit(f"{self.command} died: its reason stands above")
        return dict(json.loads(line))

    def close(self) -> None:
        """End it."""
        if self.process and self.process.stdin:
            self.process.stdin.close()
            self.process.wait()
        self.process = None


def in_turns(jobs: Mapping[str, Job]) -> Answers:
    """Ask all, one after the other, round by round."""
    answers: Answers = {name: [] for name in jobs}
    try:
        for number in range(max(job.rounds for job in jobs.values())):
            for name, job in jobs.items():
                if number < job.rounds:
                    answers[name].append(job.ask())
                    print(f"round {number + 1}: {name} {json.dumps(answers[name][-1])}", flush=True)
    finally:
        for job in jobs.values():
            job.close()
    return answers


def summary(answers: Answers, floors: Mapping[str, str]) -> dict[str, Any]:
    """Medians, and what each takes of the floor it is held against, round by round."""
    table = {}
    for name, runs in answers.items():
        floor = answers[floors[name]]
        pairs = list(zip(runs, floor, strict=False))
        table[name] = {
            **{key: round(statistics.median(run[key] for run in runs), 2) for key in ("wall", "cpu")},
            "peak_mb_above_base": round(max(run["mb"] for run in runs)),
            "against": floors[name],
            "times_wall": round(statistics.median(one["wall"] / other["wall"] for one, other in pairs), 3),
            "times_cpu": round(statistics.median(one["cpu"] / other["cpu"] for one, other in pairs), 3),
            "rounds": len(runs),
            "times_cpu_by_round": [round(one["cpu"] / other["cpu"], 2) for one, other in pairs],
        }
    return table


def agreement(one: Path, other: Path) -> float | None:
    """Share of voxels with the same label."""
    if not (one.is_file() and other.is_file()):
        return None
    return round(float((np.load(one) == np.load(other)).mean()), 6)


# Inputs


def write_image(path: Path, shape: Sequence[int]) -> Path:
    """A phantom's trunk on a grid of that shape, HU mapped as the bundle maps them."""
    body = make_body(PhantomSpec(seed=7, size=(136, 96), region="trunk"), 0)
    hu = np.pad(body.hu, ((0, 0), (20, 20), (0, 0)), constant_values=-1000)
    mapped = torch.from_numpy(np.interp(hu, [-1000, -200, 300, 1200], [0, 0.2, 0.8, 1]).astype(np.float32))
    np.save(
        path, torch.nn.functional.interpolate(mapped[None, None], size=tuple(shape), mode="trilinear")[0, 0].numpy()
    )
    return path


def write_network(path: Path, weights: Path | None, dims: int = 2) -> Path:
    """The network as it is, and its trace beside it."""
    torch.manual_seed(0)
    if dims == 2:
        net = UNet(2, 1, CLASSES, (32, 64, 128, 256), (2, 2, 2), num_res_units=0)
    else:
        net = BasicUNet(3, 1, CLASSES, (16, 16, 32, 64, 128, 16))
    if weights is not None:
        net.load_state_dict(torch.load(weights, weights_only=True))
    torch.save(net.eval(), path)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        trial = torch.zeros(1, 1, *[64] * dims)
        torch.jit.trace(net, trial).save(path.with_suffix(".trace"))  # type: ignore[no-untyped-call]
    return path


# Tables


def slices(
    work: Path, network: Path, rivals: str | None, shape: list[int], source: list[int], options: argparse.Namespace
) -> dict[str, Any]:
    """A volume in slices: medseg in both precisions beside the network alone, MONAI and nnU-Net."""
    image, own = write_image(work / "image.npy", shape), sys.executable
    common: dict[str, Any] = {"network": network, "image": image, "source": source, "roi": [256, 256]}
    batched = {**common, "batch": options.batch}
    jobs: dict[str, Job] = {}
    floors: dict[str, str] = {}

    def add(title: str, floor: str, python: str, name: str, rounds: int, heavy: bool = False, **arguments: Any) -> None:
        out = work / f"{len(jobs)}.npy"
        jobs[title], floors[title] = Job(python, name, out, 4, heavy, rounds, **arguments), floor

    for precision in ("fp32", "bf16"):
        alone = f"network alone, {precision}"
        more = {"precision": precision, **batched}
        if source != shape:
            add(f"{alone}, as torch comes", alone, own, "alone", options.rounds, **more)
        add(alone, alone, own, "alone", options.rounds, keep=True, **more)
        add(f"medseg, {precision}", alone, own, "medseg", options.rounds, keep=True, **more)
    if options.heavy and source != shape:
        add("MONAI, linear", "medseg, fp32", own, "monai", options.heavy, True, linear=True, **batched)
        add("MONAI, argmax first", "medseg, fp32", own, "monai", options.heavy, True, linear=False, **batched)
        if rivals:
            theirs = {**common, "network": network.with_suffix(".trace")}
            add("nnU-Net", "medseg, fp32", rivals, "nnunet", options.heavy, True, **theirs)
    answers = in_turns(jobs)
    table = summary(answers, floors)
    for title in ("MONAI, linear", "MONAI, argmax first", "nnU-Net", "medseg, bf16"):
        if title in jobs:
            table[title]["labels_as_medseg_fp32"] = agreement(jobs[title].out, jobs["medseg, fp32"].out)
        if title in jobs and title != "medseg, bf16":
            pairs = zip(answers[title], answers["medseg, bf16"], strict=False)
            table[title]["times_medseg_bf16"] = round(statistics.median(a["wall"] / b["wall"] for a, b in pairs), 2)
    return {"network_grid": shape, "source_grid": source, "batch": options.batch, "table": table}


def depth(work: Path, network: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Memory from 100 to 800 slices."""
    found = {}
    for layers in (100, 800):
        image = write_image(work / f"deep{layers}.npy", [256, 256, layers])
        job = Job(sys.executable, "medseg", work / "deep.out.npy", 4, True, 1, network=network, image=image, keep=True,
                  source=[300, 300, layers], precision="bf16", batch=options.batch, roi=[256, 256])  # fmt: skip
        found[str(layers)] = in_turns({f"{layers} slices": job})[f"{layers} slices"][0]
    return {**found, "output_mb": {"100": 9.0, "800": 72.0}}


def long(work: Path, network: Path, options: argparse.Namespace) -> dict[str, Any]:
    """512x512x800, 9 windows a slice."""
    image = write_image(work / "long.npy", [512, 512, 800])
    job = Job(sys.executable, "medseg", work / "long.out.npy", 2, True, 1, network=network, image=image,
              source=[512, 512, 800], precision="bf16", keep=True, batch=options.batch, roi=[256, 256])  # fmt: skip
    return {**in_turns({"512x512x800": job})["512x512x800"][0], "output_mb": 209.7}


def way_back(work: Path, network: Path, rivals: str | None, options: argparse.Namespace) -> dict[str, Any]:
    """The way back alone, 118 classes, 100x192x192 to 150x256x256."""
    image = write_image(work / "back.npy", [192, 192, 100])
    common: dict[str, Any] = {"image": image, "source": [150, 256, 256]}
    jobs = {"medseg": Job(sys.executable, "back", work / "b.npy", 100, False, options.rounds, network=network,
                          kind="medseg", **common)}  # fmt: skip
    for title, kind in (("F.interpolate", "torch"), ("MONAI SpatialResample", "monai"), ("nnU-Net", "nnunet")):
        if kind == "nnunet" and not rivals:
            continue
        python, net = (
            (rivals, network.with_suffix(".trace")) if kind == "nnunet" and rivals else (sys.executable, network)
        )
        jobs[title] = Job(python, "back", work / f"b{kind}.npy", 2, True, 1 if kind == "monai" else options.heavy,
                          network=net, kind=kind, **common)  # fmt: skip
    return summary(in_turns(jobs), dict.fromkeys(jobs, "medseg"))


def volumes(work: Path, options: argparse.Namespace) -> dict[str, Any]:
    """200^3 in windows of 96^3 that overlap by half, a network with a 1x1 head."""
    network = write_network(work / "net3d.pt", None, dims=3)
    image = write_image(work / "cube.npy", [200, 200, 200])
    common: dict[str, Any] = {
        "network": network,
        "image": image,
        "source": [200, 200, 200],
        "roi": [96] * 3,
        "batch": 1,
    }
    floor = "whole network per window"
    jobs = {
        name: Job(sys.executable, job, work / f"c{len(name)}.npy", 96, True, options.heavy, **common, **more)
        for name, job, more in (
            (floor, "alone", {"precision": "fp32"}),
            (f"{floor}, freed memory kept", "alone", {"precision": "fp32", "keep": True}),
            ("medseg, freed memory not kept", "medseg", {"precision": "fp32"}),
            ("medseg", "medseg", {"precision": "fp32", "keep": True}),
            ("MONAI", "monai", {"linear": True}),
        )
    }
    table = summary(in_turns(jobs), dict.fromkeys(jobs, floor))
    table["medseg"]["labels_as_monai"] = agreement(jobs["medseg"].out, jobs["MONAI"].out)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="trained weights; without them only random ones are used")
    parser.add_argument(
        "--only", choices=("slices", "overlapping", "depth", "back", "volumes", "long"), action="append"
    )
    parser.add_argument("--trained-on", default="the phantom, all structures", help="what the table says of --weights")
    parser.add_argument("--kind", choices=("trained", "random"), help="only with these weights")
    parser.add_argument("--layers", type=int, help="fewer layers than the standard 100 and 150")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--heavy", type=int, default=2, help="rounds of MONAI and nnU-Net; 0 leaves them out")
    parser.add_argument("--rivals", type=Path, default=ROOT / ".rivals", help="environment with nnU-Net")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "benchmarks" / "inference.json")
    options = parser.parse_args(arguments)
    only = options.only or ["slices", "overlapping", "depth", "back", "volumes"]  # the long one only when asked
    rivals = str(options.rivals / "bin" / "python") if options.rivals.is_dir() else None
    report = json.loads(options.output.read_text()) if options.output.is_file() else {}
    names = ("torch", "monai", "numba", "numpy")
    report["machine"] = {
        "cores": os.cpu_count(), "python": platform.python_version(), **{name: version(name) for name in names}
    }  # fmt: skip
    kinds = {"random": None, **({"trained": options.weights} if options.weights else {})}
    if options.weights:
        report["weights_trained_on"] = options.trained_on
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        nets = {kind: write_network(work / f"{kind}.pt", weights) for kind, weights in kinds.items()}
        main_net = nets.get("trained", nets["random"])
        for kind, net in reversed(list(nets.items())):
            if options.kind not in (None, kind):
                continue
            if "slices" in only:
                k = options.layers or 100
                part = slices(work, net, rivals, [256, 256, k], [300, 300, k], options)
                report[f"300x300, {kind} weights"] = part
            if "overlapping" in only:
                k = options.layers or 150
                part = slices(work, net, rivals, [512, 512, k], [512, 512, k], options)
                report[f"512x512, 9 windows, {kind} weights"] = part
            if "back" in only:
                report[f"way back, {kind} weights"] = way_back(work, net, rivals, options)
            options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        if "depth" in only:
            report["depth"] = depth(work, main_net, options)
        if "volumes" in only:
            report["volumes"] = volumes(work, options)
        if "long" in only:
            report["long"] = long(work, main_net, options)
    options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {options.output}")


if __name__ == "__main__":
    main()
