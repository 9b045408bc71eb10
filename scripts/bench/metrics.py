"""What Dice and the surface metrics of a volume with 117 structures cost beside MONAI's and nnU-Net's, in one run.

    python scripts/bench/metrics.py --only dice
    python scripts/bench/metrics.py --only surface

Needs Linux, 8 GB of memory and an environment with medseg and its extra `fast`. nnU-Net's own counting is taken along
where `--nnunet` names the Python of an environment that has it. Every job runs in a process of its own that waits until
it is asked; they are asked in turns, so that what else the machine does hits all alike, and every ratio is the median
of the ratios of the rounds. Rounds are added to those in docs/benchmarks/metrics.json of the same settings.
"""

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "docs" / "benchmarks"
CLASSES, SPACING, TOLERANCES = 118, (1.6, 1.6, 5.0), (1.0, 3.0)
SETS = {
    "dice": ("medseg", "medseg, NumPy alone", "MONAI, class indices", "nnU-Net"),
    "surface": ("medseg", "medseg, NumPy alone", "MONAI"),
    "surface, far off": ("medseg", "medseg, NumPy alone", "MONAI"),
}
Label = npt.NDArray[np.uint8]
Deed = Callable[[], Any]


def volumes(folder: Path, shape: tuple[int, int, int]) -> None:
    """Write a phantom's truth, a good prediction of it, and one that is far off."""
    from medseg.data import discover
    from medseg.data.phantom import PhantomSpec, write_phantom
    from medseg.labels import LabelMap

    merge_masks = import_module("medseg.data.masks").merge_masks
    spec = PhantomSpec(1, 0, 0, 0, shape[:2], SPACING, "body")
    (case,) = discover(write_phantom(folder / "phantom", spec)).cases
    truth = merge_masks(case.image, case.masks, LabelMap.totalsegmentator()).label
    first = max(0, (truth.shape[2] - shape[2]) // 2)
    truth = np.asfortranarray(truth[:, :, first : first + shape[2]])
    rng = np.random.default_rng(0)
    good = np.where(rng.random(truth.shape) < 0.999, np.roll(truth, 1, 1), 0).astype(np.uint8)
    far = np.roll(truth, (12, 6), (0, 2))
    for name, label in (("truth", truth), ("good", good), ("far", far)):
        np.save(folder / f"{name}.npy", np.asfortranarray(label))


def _plain() -> None:
    """Do without the compiled loops."""
    for name in ("overlap", "surface"):
        module: Any = import_module(f"medseg.metrics.{name}")
        module.loops = lambda: None


def dice_of(who: str, prediction: Label, truth: Label) -> Deed:
    """Dice of every structure."""
    if who.startswith("medseg"):
        metrics = import_module("medseg.metrics")
        if who != "medseg":
            _plain()
        return lambda: metrics.dice(metrics.confusion_matrix(prediction, truth, CLASSES))
    if who == "nnU-Net":
        score = import_module("nnunetv2.evaluation.evaluate_predictions")

        def count() -> list[float]:
            found = []
            for label in range(1, CLASSES):
                tp, fp, fn, _ = score.compute_tp_fp_fn_tn(truth == label, prediction == label, None)
                found.append(2 * tp / (2 * tp + fp + fn) if tp + fp + fn else float("nan"))
            return found

        return count
    torch, monai = import_module("torch"), import_module("monai.metrics")
    pair = [torch.from_numpy(np.ascontiguousarray(part))[None, None] for part in (prediction, truth)]

    def monais() -> Any:
        metric = monai.DiceMetric(include_background=False, reduction="none", num_classes=CLASSES)
        return metric(*pair)[0].numpy()

    return monais


def surfaces_of(who: str, prediction: Label, truth: Label) -> Deed:
    """ASD, HD95 and NSD at two tolerances of every structure, `(structures, 4)`."""
    if who.startswith("medseg"):
        metrics = import_module("medseg.metrics")
        if who != "medseg":
            _plain()

        def ours() -> list[list[float]]:
            found = metrics.surface_distances(prediction, truth, CLASSES, SPACING)
            return [[one.asd(), one.hausdorff(), *(one.nsd(limit) for limit in TOLERANCES)] for one in found]

        return ours
    torch, monai = import_module("torch"), import_module("monai.metrics")
    label = [torch.from_numpy(np.ascontiguousarray(part)) for part in (prediction, truth)]

    def monais() -> list[list[float]]:
        found = []
        for index in range(1, CLASSES):  # one structure at a time: all of them at once would take tens of GB
            pair = [(part == index)[None, None] for part in label]
            asd = monai.compute_average_surface_distance(*pair, True, symmetric=True, spacing=SPACING)
            hd95 = monai.compute_hausdorff_distance(*pair, True, percentile=95, spacing=SPACING)
            nsd = monai.compute_surface_dice(*pair, [TOLERANCES[0]], include_background=True, spacing=SPACING)
            found.append([float(asd), float(hd95), float(nsd)])
        return found

    return monais


def memory(key: str) -> float:
    """MB of this process: `VmRSS` now, `VmHWM` at its highest since `clear_refs` was last written."""
    line = next(
        line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith(key)
    )
    return int(line.split()[1]) * 1024 / 1e6


def job(task: str, who: str, folder: Path) -> None:
    """Wait for lines; after each do the deed once and say what it cost."""
    warnings.simplefilter("ignore")
    prediction = np.load(folder / ("far.npy" if "far" in task else "good.npy"))
    truth = np.load(folder / "truth.npy")
    make = dice_of if task == "dice" else surfaces_of
    make(who, prediction[:24, :24, :8], truth[:24, :24, :8])()  # imports and compiled loops
    deed = make(who, prediction, truth)
    print("{}", flush=True)
    for _ in sys.stdin:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        base, cpu, wall = memory("VmRSS"), time.process_time(), time.perf_counter()
        found = deed()
        spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "mb": memory("VmHWM") - base}
        np.save(folder / f"{task} {who}.npy", np.asarray(found, dtype=np.float64))
        print(json.dumps(spent), flush=True)


def measure(task: str, who: Sequence[str], pythons: Mapping[str, str], folder: Path, rounds: int) -> dict[str, Any]:
    """Ask all jobs in turns; what each turn cost, and how far the answers lie apart."""
    started = {}
    for name in who:
        command = [pythons.get(name, sys.executable), __file__, "--job", task, "--who", name, "--folder", str(folder)]
        settings = {key: str(folder) for key in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        path = "" if name in pythons else str(ROOT)
        environment = {**os.environ, **settings, "PYTHONPATH": path, "OMP_NUM_THREADS": str(os.cpu_count())}
        started[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        _line(started[name], name)
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in who}
    for number in range(rounds):
        for name, process in started.items():
            if process.stdin:
                print(file=process.stdin, flush=True)
            turns[name].append(_line(process, name))
            print(f"{task}, round {number + 1}: {name} {turns[name][-1]}", flush=True)
    for process in started.values():
        process.communicate()
    return {"turns": turns, "apart": apart(task, who, folder)}


def _line(process: "subprocess.Popen[str]", name: str) -> dict[str, float]:
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise SystemExit(f"{name} died: its reason stands above")
    return dict(json.loads(line))


def apart(task: str, who: Sequence[str], folder: Path) -> dict[str, float]:
    """The largest difference of each job's answers from medseg's, where both have one."""
    ours = np.load(folder / f"{task} medseg.npy")
    found = {}
    for name in who[1:]:
        other = np.load(folder / f"{task} {name}.npy")
        mine = ours if ours.ndim == 1 else ours[:, : other.shape[1]]
        both = np.isfinite(mine) & np.isfinite(other)
        if task != "dice":
            both &= np.isfinite(ours[:, :1])  # where one side is empty MONAI has values of its own
        found[name] = float(np.abs(mine - other)[both].max())
    return found


def report(content: Mapping[str, Any]) -> str:
    """The tables, as Markdown."""
    far = "; *far off* it is moved by 12 and 6 voxels" if any("far" in task for task in content["tasks"]) else ""
    lines = [
        "# Metrics: their cost compared with MONAI's and nnU-Net's",
        "",
        "    python scripts/bench/metrics.py --only dice",
        "    python scripts/bench/metrics.py --only surface",
        "",
        f"Volume {'x'.join(str(size) for size in content['shape'])} of a phantom with {content['structures']} "
        f"structures, spacing {', '.join(str(one) for one in SPACING)} mm; {content['machine']}. The prediction is the "
        f"truth moved by one voxel, with one voxel in a thousand missing{far}. "
        "Medians over rounds in which each job, in a separate process, runs once; ratios are medians of the ratios of "
        "the rounds. Memory is `VmHWM` minus the memory of the process before; the two label maps are not included. "
        "Reading files is not included either.",
    ]
    for task, found in content["tasks"].items():
        turns = found["turns"]
        lines += [
            "",
            f"## {task.capitalize()}",
            "",
            "| | wall s | CPU s | peak MB | times, wall | times, CPU | rounds |",
        ]
        lines += ["|---|---|---|---|---|---|---|"]
        for name, ones in turns.items():
            row = [f"{statistics.median(one[key] for one in ones):.3f}" for key in ("wall", "cpu")]
            row.append(f"{statistics.median(one['mb'] for one in ones):.0f}")
            for key in ("wall", "cpu"):
                ratios = [one[key] / ours[key] for one, ours in zip(ones, turns["medseg"], strict=True)]
                times = statistics.median(ratios)
                row.append(f"{times:,.0f}" if times >= 10 else f"{times:.2f}")
            lines.append(f"| {name} | {' | '.join(row)} | {len(ones)} |")
        said = ", ".join(f"{name} {value:.1e}" for name, value in found["apart"].items())
        lines += ["", f"Largest difference from medseg's values: {said}."]
    return "\n".join(lines) + "\n"


NOTES = """
Surface is ASD, HD95 and NSD at 1 and 3 mm for medseg, ASD, HD95 and NSD at 1 mm (one tolerance a call) for MONAI,
which is given binary masks, one structure at a time: with all of them at once as one-hot it would need tens of GB.
MONAI's Dice is given class indices (`num_classes=118`). nnU-Net's is `compute_tp_fp_fn_tn` for each label, the loop of
its `compute_metrics`. MONAI and medseg compute the same where a structure is in truth and prediction; where it is in
only one of them, MONAI's ASD is inf and medseg's has no value (NaN).
"""


def main() -> None:
    """Measure, and write docs/benchmarks/metrics.json and .md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[*SETS], action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 256, 100))
    parser.add_argument("--nnunet", help="the Python of an environment with nnU-Net")
    parser.add_argument("--out", type=Path, default=OUT)
    for hidden in ("--job", "--who", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        job(given.job, given.who, Path(given.folder))
        return
    file = given.out / "metrics.json"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        volumes(folder, tuple(given.shape))
        truth = np.load(folder / "truth.npy")
        settings = {
            "shape": list(truth.shape),
            "structures": len(np.unique(truth)) - 1,
            "machine": f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, "
            f"MONAI {version('monai')}, torch {version('torch')}, NumPy {version('numpy')}, SciPy {version('scipy')}",
        }
        before = json.loads(file.read_text()) if file.is_file() else {}
        tasks = before.get("tasks", {}) if {key: before.get(key) for key in settings} == settings else {}
        for task in given.only or SETS:
            who = [one for one in SETS[task] if one != "nnU-Net" or given.nnunet]
            pythons = {"nnU-Net": given.nnunet} if given.nnunet else {}
            found = measure(task, who, pythons, folder, given.rounds)
            old = tasks.get(task)
            if old and list(old["turns"]) == who:
                found["turns"] = {name: old["turns"][name] + ones for name, ones in found["turns"].items()}
            tasks[task] = found
    content = {**settings, "tasks": {task: tasks[task] for task in SETS if task in tasks}}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    (given.out / "metrics.md").write_text(report(content) + NOTES, encoding="utf-8")


if __name__ == "__main__":
    main()
