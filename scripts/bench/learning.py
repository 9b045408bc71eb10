"""Does it learn? The demo's figures, and those of one real CT that a small U-Net learns by heart.

    python scripts/bench/learning.py --data ../shared/data/totalseg_mini

Needs an environment with medseg (scripts/demo.py makes one). Writes docs/benchmarks/learning.json. Dice of the real
cases is computed here, with NumPy on the source grid from the mask files themselves, not with medseg's own metric.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
NAMED = ("liver", "spleen", "kidney_left", "kidney_right", "lung_lower_lobe_left", "lung_lower_lobe_right")
CASES = ("s0000", "s0001")


def medseg(*arguments: str) -> float:
    """Run a medseg command; gives the seconds it took."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "medseg", *arguments], cwd=ROOT, check=True)
    return round(time.perf_counter() - began, 1)


def dice_of(mask: Path, case: Path) -> dict[str, float]:
    """Dice of each structure that the case's mask files or the predicted mask hold, on the grid of the scan."""
    image = nib.load(mask)
    source = nib.load(case / "ct.nii.gz")
    if image.shape != source.shape or not np.array_equal(image.affine, source.affine):
        sys.exit(f"{mask} does not lie on the grid of {case}")
    found = np.asarray(image.dataobj)
    names = json.loads((ROOT / "medseg" / "structures.json").read_text())
    scores = {}
    for index, entry in enumerate(names, start=1):
        path = case / "segmentations" / f"{entry['name']}.nii.gz"
        truth = np.asarray(nib.load(path).dataobj) > 0
        predicted = found == index
        both = int(truth.sum()) + int(predicted.sum())
        if both:
            scores[entry["name"]] = round(2 * int((truth & predicted).sum()) / both, 4)
    return scores


def demo(folder: Path) -> dict[str, object]:
    """The demo's own figures."""
    seconds = medseg("demo", "-o", str(folder))
    result = json.loads((folder / "result.json").read_text())
    keep = ("mean_dice", "train_seconds", "infer_seconds", "dice")
    return {"command": "medseg demo", "seconds": seconds, **{key: result[key] for key in keep}}


def one_case(data: Path, folder: Path) -> dict[str, object]:
    """Learn s0000, then segment it and s0001, which it never saw."""
    settings = ("--with", "fast_cpu", "--with", "one_case", f"output_dir={folder}")
    train_seconds = medseg("train", "unet2d", "--data", str(data), *settings)
    (record,) = folder.glob("unet2d/*/run.json")
    scans = [str(data / case / "ct.nii.gz") for case in CASES]
    predict_seconds = medseg("predict", str(record.parent), *scans, "-o", str(folder / "masks"), "--preview")
    dice = {case: dice_of(folder / "masks" / f"{case}.nii.gz", data / case) for case in CASES}
    return {
        "commands": [
            "medseg train unet2d --data totalseg_mini --with fast_cpu --with one_case",
            "medseg predict RUN totalseg_mini/s0000/ct.nii.gz totalseg_mini/s0001/ct.nii.gz -o masks",
        ],
        "train_seconds": train_seconds,
        "predict_seconds_both": predict_seconds,
        "named": {case: {name: dice[case].get(name) for name in NAMED} for case in CASES},
        "mean_dice": {case: round(float(np.mean(list(dice[case].values()))), 4) for case in CASES},
        "dice": dice,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a TotalSegmentator folder with s0000 and s0001")
    parser.add_argument("--only", choices=("demo", "one_case"))
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "benchmarks" / "learning.json")
    options = parser.parse_args()
    report = json.loads(options.output.read_text()) if options.output.is_file() else {}
    report["machine"] = {
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    with tempfile.TemporaryDirectory() as work:
        if options.only != "one_case":
            report["demo"] = demo(Path(work) / "demo")
        if options.only != "demo":
            report["one_case"] = one_case(options.data.resolve(), Path(work) / "one_case")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {options.output}")
