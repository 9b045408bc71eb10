"""What augmenting a training slice costs: MONAI's dictionary transforms against whole batches, in the same run.

    python scripts/bench/augmentation.py

Needs an environment with medseg and its extra `fast`. The transforms, probabilities and ranges are those of
bundles/unet2d/configs/train.json; a chain is measured from the patch that was drawn to the batch that the network gets
(chance, augmentation, types, collation). All ways take turns; every ratio is the median of the ratios of the rounds.
Writes docs/benchmarks/augmentation.json.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset, list_data_collate, set_track_meta
from monai.transforms import (
    Compose,
    EnsureTyped,
    RandAdjustContrastd,
    RandAffined,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
)

from medseg.data.phantom import PhantomSpec, make_body
from medseg.training import SampleKey, SeededDataset
from medseg.transforms import AugmentBatch, IndexSlicesd, RandAugmentd, RandSlicePatchd
from medseg.transforms.batch import Draws, augment_batch, warp

ROOT = Path(__file__).resolve().parents[2]
BOTH = ["image", "label"]
BATCH, SIZE, ROUNDS = 8, 256, 5
Item = Mapping[Hashable, Any]


def volume() -> Item:
    """A phantom's trunk as the bundle caches it: values from 0 to 1 (float16), labels (uint8)."""
    body = make_body(PhantomSpec(seed=7, size=(SIZE, SIZE), spacing=(1.5, 1.5, 12.0), region="trunk"), 0)
    image = np.interp(body.hu, [-1000, -200, 300, 1200], [0, 0.2, 0.8, 1]).astype(np.float16)
    label = np.zeros(body.hu.shape, np.uint8)
    for number, mask in enumerate(body.masks.values(), start=1):
        label[mask] = number
    return {"image": torch.from_numpy(image)[None], "label": torch.from_numpy(label)[None], "case": "trunk"}


def monai_chain() -> list[Any]:
    """MONAI's transforms with what train.json says of each; a scale and a shift for each axis."""
    with_image = {"keys": "image"}
    return [
        RandAffined(
            BOTH,
            prob=0.7,
            rotate_range=0.26,
            scale_range=(0.15, 0.15),
            translate_range=(12, 12),
            mode=["bilinear", "nearest"],
            padding_mode="zeros",
        ),
        RandAdjustContrastd(**with_image, prob=0.2, gamma=(0.8, 1.25)),
        RandScaleIntensityd(**with_image, prob=0.3, factors=0.1),
        RandShiftIntensityd(**with_image, prob=0.3, offsets=0.05),
        RandGaussianNoised(**with_image, prob=0.2, std=0.02),
        RandGaussianSmoothd(**with_image, prob=0.1, sigma_x=(0.3, 0.8), sigma_y=(0.3, 0.8)),
    ]


def batch_chain() -> RandAugmentd:
    """The same from train.json itself."""
    recipe = json.loads((ROOT / "bundles" / "unet2d" / "configs" / "train.json").read_text())["augment"]
    return RandAugmentd(**{key: value for key, value in recipe.items() if key not in ("_target_", "labels")})


def typed(label: torch.dtype) -> EnsureTyped:
    """Types of a sample: the label as the network gets it, or, as in train.json, smaller on the way."""
    return EnsureTyped(BOTH, dtype=[torch.float32, label], track_meta=False)


@contextmanager
def as_told(meta: bool = True, compiled: bool = True) -> Iterator[None]:
    """MONAI with or without metadata, the warp with or without numba."""
    kernels = warp._kernels
    set_track_meta(meta)
    if not compiled:
        warp._kernels = lambda: None  # type: ignore[assignment]
    try:
        yield
    finally:
        set_track_meta(True)
        warp._kernels = kernels


class Way:
    """One way from items to a batch: transforms of each sample, then what is done to the batch."""

    def __init__(
        self, items: list[Item], transforms: list[Any], deed: Any = None, device: str = "cpu", **told: bool
    ) -> None:
        self.deed, self.told, self.device = deed, told, device
        self.cases = len(items)
        made = CacheDataset(items, Compose(transforms), cache_rate=0.0, progress=False, copy_cache=False)
        self.dataset = SeededDataset(made)
        self.batches = 4

    def batch(self, number: int) -> None:
        """Make one batch."""
        keys = [SampleKey(1, (number * BATCH + one) % self.cases, number * BATCH + one) for one in range(BATCH)]
        found = list_data_collate([self.dataset[key] for key in keys])
        if self.deed is not None:
            self.deed(found, torch.device(self.device))

    def turn(self, start: int) -> dict[str, float]:
        """Milliseconds a slice, by the clock and of the processor."""
        with as_told(**self.told):
            wall, cpu = time.perf_counter(), time.process_time()
            for number in range(start, start + self.batches):
                self.batch(number)
            if self.device != "cpu":
                torch.cuda.synchronize()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        slices = self.batches * BATCH
        return {"wall_ms": wall / slices * 1e3, "cpu_ms": cpu / slices * 1e3}

    def warm(self, seconds: float) -> None:
        """Warm up, and see how many batches fill a turn."""
        self.turn(0)
        per_batch = self.turn(100)["wall_ms"] * BATCH / 1e3
        self.batches = max(2, round(seconds / per_batch))


def compare(ways: dict[str, Way], base: str, seconds: float) -> dict[str, dict[str, float]]:
    """Medians of the rounds, and of the ratios of each round to `base`."""
    for way in ways.values():
        way.warm(seconds)
    turns: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for number in range(ROUNDS):
        for name, way in ways.items():
            turns[name].append(way.turn(1000 * (number + 1)))
    found = {}
    for name, mine in turns.items():
        row = {key: round(statistics.median(turn[key] for turn in mine), 3) for key in ("wall_ms", "cpu_ms")}
        for key in ("wall", "cpu"):
            ratios = [other[f"{key}_ms"] / one[f"{key}_ms"] for one, other in zip(mine, turns[base], strict=True)]
            row[f"times_{key}"] = round(statistics.median(ratios), 2)
            row[f"times_{key}_least"] = round(min(ratios), 2)
        row["slices_per_s"] = round(1e3 / row["wall_ms"])
        found[name] = row
        print(f"{name:45s} {row}", flush=True)
    return found


def patches(source: Item, count: int) -> list[Item]:
    """Patches as `RandSlicePatchd` draws them, with nothing of the case left in them."""
    draw = Compose([IndexSlicesd("label", 118), RandSlicePatchd(BOTH, (SIZE, SIZE))])
    draw.set_random_state(0)
    return [{key: item[key] for key in BOTH} for item in (draw(source) for _ in range(count))]


def chains(source: Item, seconds: float) -> dict[str, dict[str, float]]:
    """From the drawn patch to the batch."""
    items, augment = patches(source, 64), batch_chain()
    mine = [typed(torch.uint8), augment], AugmentBatch(augment, label_dtype=torch.int32)
    ways = {
        "MONAI": Way(items, [*monai_chain(), typed(torch.int32)]),
        "MONAI without metadata": Way(items, [*monai_chain(), typed(torch.int32)], meta=False),
        "medseg": Way(items, *mine),
        "medseg without numba": Way(items, *mine, compiled=False),
    }
    if torch.cuda.is_available():
        ways["medseg, on the GPU"] = Way(items, *mine, device="cuda")
    return compare(ways, "MONAI without metadata", seconds)


def loaders(source: Item, seconds: float) -> dict[str, dict[str, float]]:
    """What a loader process does: from the cached volume to its batch, the slice drawn at random."""
    indexed: list[Item] = [IndexSlicesd("label", 118)(source)]
    draw = RandSlicePatchd(BOTH, (SIZE, SIZE))
    ways = {
        "MONAI": Way(indexed, [draw, *monai_chain(), typed(torch.int32)]),
        "MONAI without metadata": Way(indexed, [draw, *monai_chain(), typed(torch.int32)], meta=False),
        "medseg, augmented where it is trained on": Way(indexed, [draw, typed(torch.uint8), batch_chain()]),
    }
    return compare(ways, "MONAI without metadata", seconds)


def alone(source: Item, seconds: float) -> dict[str, dict[str, float]]:
    """Each transform done to every slice, without drawing and collating: CPU milliseconds a slice."""
    items, augment = patches(source, BATCH), batch_chain()
    images = torch.stack([item["image"] for item in items])
    labels = torch.stack([item["label"] for item in items])
    augment._prob[:] = np.where(augment._prob > 0, 1.0, 0.0)
    whole = Draws.of(torch.stack([augment(item)["augment"] for item in items]))
    never, found = np.full(BATCH, np.nan), {}
    groups = {
        "rotation, scale and shift": ("angle", "shift_i", "shift_j", "scale_i", "scale_j"),
        "gamma": ("gamma",),
        "intensity scale": ("factor",),
        "intensity shift": ("offset",),
        "noise": ("std", "noise_seed"),
        "blur": ("sigma_i", "sigma_j"),
    }
    for (name, fields), step in zip(groups.items(), monai_chain(), strict=True):
        step.prob = 1.0
        own = Draws(**{field: getattr(whole, field) if field in fields else never for field in Draws._fields})
        on_batch = partial(augment_batch, images, labels, own)
        deeds: dict[str, tuple[Callable[[], Any], dict[str, bool]]] = {
            "monai": (partial(_each, step, items), {"meta": False}),
            "medseg": (on_batch, {}),
            "medseg_without_numba": (on_batch, {"compiled": False}),
        }
        times: dict[str, list[float]] = {way: [] for way in deeds}
        for _ in range(ROUNDS + 1):
            for way, (deed, told) in deeds.items():
                with as_told(**told):
                    times[way].append(_cpu(deed, seconds / 5))
        found[name] = {way: round(statistics.median(every[1:]), 3) for way, every in times.items()}
        print(f"{name:28s} {found[name]}", flush=True)
    return found


def _each(step: Callable[[Item], Any], items: list[Item]) -> None:
    for item in items:
        step(item)


def _cpu(deed: Callable[[], Any], seconds: float) -> float:
    """Milliseconds of the processor that a slice takes."""
    began, count = time.process_time(), 0
    while time.process_time() - began < seconds:
        deed()
        count += 1
    return (time.process_time() - began) / count / BATCH * 1e3


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    parser.add_argument("--only", choices=("chains", "loaders", "alone"))
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "benchmarks" / "augmentation.json")
    options = parser.parse_args()
    report = json.loads(options.output.read_text()) if options.output.is_file() else {}
    report["machine"] = {
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **{name: version(name) for name in ("monai", "torch", "numba", "numpy")},
    }
    report["slice"] = {"size": [SIZE, SIZE], "channels": 1, "batch": BATCH, "rounds": ROUNDS}
    scan = volume()
    for threads in (1, 2):
        torch.set_num_threads(threads)
        print(f"--- {threads} threads", flush=True)
        if options.only in (None, "chains"):
            report.setdefault("chains", {})[f"{threads} threads"] = chains(scan, options.seconds)
        if threads == 1 and options.only in (None, "loaders"):
            report["loaders"] = loaders(scan, options.seconds)
        if threads == 1 and options.only in (None, "alone"):
            report["alone"] = alone(scan, options.seconds)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"Written to {options.output}")
