"""How fast masks merge and slices are drawn, beside nibabel, MONAI, TotalSegmentator and nnU-Net in the same run.

    python scripts/bench/data.py --data ../shared/data/totalseg_mini

Needs Linux and an environment with medseg and its extra `store`. The rivals get an environment of their own, made on
the first run (2 GB, in .rivals/ unless --rivals says where). Writes docs/benchmarks/data.json. The jobs themselves are
in data_jobs.py; all of them run at the same time and are asked in turns, so that what else the machine does hits all
alike, and every ratio is the median of the ratios of the rounds.
"""

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from medseg.data.phantom import PhantomSpec, make_body
from medseg.data.store import write_store
from medseg.grid import Grid
from medseg.labels import LabelMap

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
SHAPE = (256, 256, 250)
LABELS = LabelMap.totalsegmentator()
NAMES = list(LABELS.structures)
WRITTEN, SIZES = 4, (2, 20, 200)  # cases that are made, and the sizes of the sets made of hard links to them
Turns = dict[str, list[dict[str, Any]]]


def rivals_python(home: Path) -> str:
    """The Python of the rivals' environment, which is made and filled where need be."""
    wanted, stamp = HERE / "rivals.txt", home / ".installed"
    python, mark = str(home / "bin" / "python"), hashlib.sha256(wanted.read_bytes()).hexdigest()
    if not stamp.is_file() or stamp.read_text() != mark:
        venv.create(home, with_pip=True, clear=True)
        for what in (["torch==2.13.0"], ["--no-deps", "-r", str(wanted)]):
            subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *what], check=True)
        stamp.write_text(mark)
    return python


class Worker:
    """One job in a process of its own that waits until it is asked."""

    def __init__(self, python: str, job: str, **arguments: Any) -> None:
        plain = {key: str(value) if isinstance(value, Path) else value for key, value in arguments.items()}
        settings = {name: tempfile.gettempdir() for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        self.process = subprocess.Popen(
            [python, str(HERE / "data_jobs.py"), job, json.dumps(plain)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **settings, "PYTHONPATH": str(ROOT) if python == sys.executable else ""},
        )
        self._answer(job)

    def _answer(self, job: str) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise SystemExit(f"{job} died: its reason stands above")
        return dict(json.loads(line))

    def ask(self) -> dict[str, Any]:
        """One turn."""
        if self.process.stdin:
            print(file=self.process.stdin, flush=True)
        return self._answer(str(self.process.args))

    def close(self) -> None:
        """End it."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()


@contextmanager
def workers(jobs: Mapping[str, tuple[str, str, dict[str, Any]]]) -> Iterator[dict[str, Worker]]:
    """Start all of them, end all of them."""
    with ExitStack() as stack:
        started = {}
        for name, (python, job, arguments) in jobs.items():
            started[name] = Worker(python, job, **arguments)
            stack.callback(started[name].close)
        yield started


def in_turns(started: Mapping[str, Worker], rounds: int) -> Turns:
    """Ask all, one after the other, round by round."""
    answers: Turns = {name: [] for name in started}
    for number in range(rounds):
        for name, worker in started.items():
            answers[name].append(worker.ask())
            print(f"round {number + 1}: {name} {json.dumps(answers[name][-1])}", flush=True)
    return answers


def ratio(answers: Turns, key: str, one: str, other: str) -> float:
    """The median over the rounds of `one` to `other`."""
    pairs = zip(answers[one], answers[other], strict=True)
    return round(float(statistics.median(first[key] / second[key] for first, second in pairs)), 4)


# Merging


def write_masks(case: Path) -> dict[str, Any]:
    """A case of 117 masks as TotalSegmentator's are: a phantom trunk, every fourth structure a voxel too wide."""
    body = make_body(PhantomSpec(seed=5, size=SHAPE[:2], spacing=(1.5, 1.5, 2.2), region="trunk"), 0)
    (case / "segmentations").mkdir(parents=True)
    take = min(SHAPE[2], body.hu.shape[2])
    written = 0
    for number, name in enumerate(NAMES):
        mask = np.zeros(SHAPE, np.uint8)
        found = body.masks.get(name)
        if found is not None:
            wide = found | np.roll(found, 1, axis=0) if number % 4 == 0 else found
            mask[..., :take] = wide[..., :take]
        written += bool(mask.any())
        nib.save(nib.Nifti1Image(mask, body.affine), case / "segmentations" / f"{name}.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), body.affine), case / "ct.nii.gz")
    size = sum(path.stat().st_size for path in (case / "segmentations").iterdir())
    return {"masks": len(NAMES), "not_empty": written, "mb": round(size / 1e6, 2)}


def merging(rivals: str, work: Path, rounds: int, with_monai: bool) -> dict[str, Any]:
    """Time, memory and agreement of the merges."""
    case, own = work / "case", sys.executable
    about = write_masks(case)
    painted = list(LABELS.overlap_priority())
    last_wins = NAMES[::-1]
    jobs: dict[str, tuple[str, str, dict[str, Any]]] = {
        "medseg": (own, "merge_medseg", {"write": False, "precedence": []}),
        "medseg, with the file": (own, "merge_medseg", {"write": True, "precedence": last_wins}),
        "TotalSegmentator, with the file": (rivals, "merge_totalsegmentator", {}),
        "nibabel and NumPy": (own, "merge_nibabel", {"order": painted, "names": NAMES}),
    }
    outs = {name: work / f"merged{number}.npy" for number, name in enumerate(jobs)}
    with workers({name: (p, job, {"case": case, "out": outs[name], **a}) for name, (p, job, a) in jobs.items()}) as go:
        answers = in_turns(go, rounds)
    ours, theirs = "medseg, with the file", "TotalSegmentator, with the file"
    mine, other = (np.asarray(nib.load(outs[name].with_suffix(".nii.gz")).dataobj) for name in (ours, theirs))
    if with_monai:
        arguments = {"case": case, "out": work / "monai.npy", "names": NAMES}
        with workers({"MONAI": (own, "merge_monai", arguments)}) as go:
            answers["MONAI LoadImage and argmax (one run)"] = in_turns(go, 1)["MONAI"]
    claimed = float(np.sum([np.count_nonzero(_load(case, name)) for name in NAMES]))
    return {
        "case": {**about, "voxels_claimed_more_than_once": int(claimed - np.count_nonzero(np.load(outs["medseg"])))},
        "time": {name: round(statistics.median(one["seconds"] for one in runs), 3) for name, runs in answers.items()},
        "peak_mb_above_base": {name: round(max(one["peak_mb"] for one in runs), 1) for name, runs in answers.items()},
        "ratio_to_totalsegmentator": {name: ratio(answers, "seconds", name, theirs) for name in jobs},
        "equal_to_plain_merge": bool(np.array_equal(np.load(outs["medseg"]), np.load(outs["nibabel and NumPy"]))),
        "equal_to_totalsegmentator_where_the_last_wins": bool(np.array_equal(mine, other)),
        "rounds": rounds,
    }


def _load(case: Path, name: str) -> npt.NDArray[np.uint8]:
    return np.asarray(nib.load(case / "segmentations" / f"{name}.nii.gz").dataobj)


# Slices


def volume(data: Path, seed: int, step: int) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]:
    """250 slices of 256x256 drawn from a real CT of 512x512x20: every second pixel (step 2), or a part (step 1).

    Nothing is interpolated, so the noise is that of the scanner.
    """
    image = np.asarray(nib.load(data / "s0001" / "ct.nii.gz").dataobj)
    label = np.zeros(image.shape, np.uint8)
    for number, name in enumerate(NAMES, start=1):
        path = data / "s0001" / "segmentations" / f"{name}.nii.gz"
        label[np.asarray(nib.load(path).dataobj) > 0] = number
    chance = np.random.default_rng(seed)
    room = 2 if step == 2 else image.shape[0] - SHAPE[0] + 1
    places = [(*chance.integers(room, size=2), chance.integers(image.shape[2])) for _ in range(SHAPE[2])]
    cuts = [(slice(i, i + step * SHAPE[0], step), slice(j, j + step * SHAPE[1], step), k) for i, j, k in places]
    return np.stack([image[cut] for cut in cuts], axis=-1), np.stack([label[cut] for cut in cuts], axis=-1)


def write_cases(data: Path, work: Path, rivals: str, step: int) -> dict[str, Any]:
    """The same cases as store, as nnU-Net's files with and without locations, and as .nii.gz; and their MB a case."""
    grid = Grid(SHAPE, np.diag([1.5, 1.5, 1.5, 1.0]))
    folders = {name: work / name for name in ("plain", "medseg", "nnunet", "nnunet_locations")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    for number in range(WRITTEN):
        hu, label = volume(data, number, step)
        np.save(folders["plain"] / f"c{number:03d}.hu.npy", hu)
        np.save(folders["plain"] / f"c{number:03d}.label.npy", label)
        nib.save(nib.Nifti1Image(hu, grid.affine), folders["plain"] / f"c{number:03d}.nii.gz")
        nib.save(nib.Nifti1Image(label, grid.affine), folders["plain"] / f"c{number:03d}-label.nii.gz")
        write_store(folders["medseg"], f"c{number:03d}", hu, label, grid, LABELS)
    paths = [str(folders["plain"] / f"c{number:03d}") for number in range(WRITTEN)]
    for name, locations in (("nnunet", False), ("nnunet_locations", True)):
        arguments = {"folder": folders[name], "volumes": paths, "locations": locations}
        with workers({"write": (rivals, "write_nnunet", arguments)}) as go:
            go["write"].ask()
    for name in ("medseg", "nnunet", "nnunet_locations"):
        for path in list(folders[name].iterdir()):
            for number in range(int(path.name[1:4]) + WRITTEN, max(SIZES), WRITTEN):
                os.link(path, folders[name] / f"c{number:03d}{path.name[4:]}")
    return {
        "medseg": _mb(folders["medseg"], "*"),
        "nnU-Net, data and seg": _mb(folders["nnunet"], "*.b2nd"),
        "nnU-Net, with its class locations": _mb(folders["nnunet_locations"], "*"),
        ".nii.gz": _mb(folders["plain"], "*.nii.gz"),
    }


def _mb(folder: Path, pattern: str) -> float:
    files = [path for path in folder.glob(pattern) if int(path.name[1:4]) < WRITTEN]
    return round(sum(path.stat().st_size for path in files) / WRITTEN / 1e6, 2)


def drawing(data: Path, work: Path, rivals: str, rounds: int, step: int) -> dict[str, Any]:
    """Rate, disk and memory of what draws slices at random."""
    disk, own = write_cases(data, work, rivals, step), sys.executable
    jobs: dict[str, tuple[str, str, dict[str, Any]]] = {}

    def add(name: str, python: str, job: str, folder: str, cases: int, draws: int, **more: Any) -> None:
        ids = [f"c{number:03d}" for number in range(cases)]
        jobs[name] = (python, job, {"folder": work / folder, "ids": ids, "slices": SHAPE[2], "draws": draws, **more})

    for size in SIZES:
        add(f"medseg, {size} cases", own, "slices_medseg", "medseg", size, 2000)
        add(f"nnU-Net, {size} cases", rivals, "slices_nnunet", "nnunet", size, 1000)
    add("nnU-Net with class locations, 2 cases", rivals, "slices_nnunet", "nnunet_locations", 2, 100)
    add("nibabel, 2 cases", own, "slices_nibabel", "plain", 2, 4)
    monai = {"kind": "cache", "copy": False, "meta": True, "cache": ""}
    add("CacheDataset without copy, 2 cases", own, "slices_monai", "plain", 2, 600, **monai)
    add("CacheDataset without copy, 4 cases", own, "slices_monai", "plain", 4, 600, **monai)
    add(
        "CacheDataset without copy or metadata, 2 cases",
        own,
        "slices_monai",
        "plain",
        2,
        600,
        **{**monai, "meta": False},
    )
    add("CacheDataset, 2 cases", own, "slices_monai", "plain", 2, 20, **{**monai, "copy": True})
    cached = {**monai, "kind": "persistent", "cache": str(work / "persistent")}
    add("PersistentDataset, 2 cases", own, "slices_monai", "plain", 2, 10, **cached)
    with workers(jobs) as go:
        in_turns(go, 1)  # caches are filled, files are read once
        answers = in_turns(go, rounds)
    few = [name for name in answers if name.endswith(f", {SIZES[0]} cases")]
    private = {name: round(runs[-1]["private_mb"], 1) for name, runs in answers.items()}
    sizes = {size: (f"medseg, {size} cases", f"nnU-Net, {size} cases") for size in SIZES}
    return {
        "disk_mb_a_case": disk,
        "disk_medseg_to_nnunet": round(disk["medseg"] / disk["nnU-Net, data and seg"], 3),
        "rate": {name: round(statistics.median(one["rate"] for one in runs), 1) for name, runs in answers.items()},
        "medseg_to_nnunet": {size: ratio(answers, "rate", *pair) for size, pair in sizes.items()},
        "medseg_to": {name: ratio(answers, "rate", few[0], name) for name in few[1:]},
        "private_mb": private,
        "medseg_growth_mb": round(private[sizes[SIZES[-1]][0]] - private[sizes[SIZES[0]][0]], 1),
        "rounds": rounds,
    }


def machine(rivals: str) -> dict[str, Any]:
    """What it ran on, and with which versions."""
    code = (
        "from importlib.metadata import version as v; print(*(v(n) for n in ('nnunetv2','TotalSegmentator','blosc2')))"
    )
    found = subprocess.run([rivals, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    own = {name: version(name) for name in ("numpy", "nibabel", "monai", "torch", "deflate", "blosc2")}
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "own": own,
        "rivals": dict(zip(("nnunetv2", "TotalSegmentator", "blosc2"), found, strict=True)),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for and write it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a TotalSegmentator folder with s0001")
    parser.add_argument("--only", choices=("merge", "slices"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rivals", type=Path, default=ROOT / ".rivals", help="environment of the rivals")
    parser.add_argument("--monai-merge", action="store_true", help="merge with MONAI, too: takes 15 GB of memory")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "benchmarks" / "data.json")
    options = parser.parse_args(arguments)
    rivals = rivals_python(options.rivals.resolve())
    report = json.loads(options.output.read_text()) if options.output.is_file() else {}
    report["machine"] = machine(rivals)
    with tempfile.TemporaryDirectory() as work:
        if options.only != "slices":
            report["merge"] = merging(rivals, Path(work), options.rounds, options.monai_merge)
        if options.only != "merge":
            for name, step in (("slices_every_second_pixel", 2), ("slices_full_resolution", 1)):
                report[name] = drawing(options.data.resolve(), Path(work) / name, rivals, options.rounds, step)
    options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {options.output}")


if __name__ == "__main__":
    main()
