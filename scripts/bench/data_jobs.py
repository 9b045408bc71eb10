"""What data.py measures. Each job runs in a process of its own, in medseg's environment or in that of the rivals.

    python scripts/bench/data_jobs.py JOB '{"its": "arguments"}'

A job prints one line of JSON when it is ready, one more for each line it is sent, and ends with its input.
Everything is imported where it is used, for no environment holds it all.
"""

import json
import os
import random
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

Answer = dict[str, Any]
Run = Callable[[], Answer]
IMAGE, MASKS = "ct.nii.gz", "segmentations"


def resident(key: str) -> float:
    """MB of this process: `VmRSS` now, `VmHWM` at its highest since `clear_refs` was last written."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024 / 1e6
    raise KeyError(key)


def private() -> float:
    """MB that this process shares with no other (USS)."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) * 1024 / 1e6


def timed(deed: Callable[[], Any]) -> Answer:
    """Do it once: seconds, and the MB it had at its highest above what there was before."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = resident("VmRSS")
    began = time.perf_counter()
    deed()
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "peak_mb": resident("VmHWM") - before}


# Merging: every job takes the masks of `case`; what it made lies in `out` afterwards.


def merge_medseg(case: Path, out: Path, write: bool, precedence: list[str]) -> Run:
    """The merge of medseg, with or without the file."""
    masks_of, nifti_writer = import_module("medseg.data.masks"), import_module("medseg.data.nifti_writer")
    labels = import_module("medseg.labels").LabelMap.totalsegmentator()
    masks = {name: case / MASKS / f"{name}.nii.gz" for name in labels.structures}
    made: list[Any] = []

    def deed() -> None:
        made[:] = [masks_of.merge_masks(case / IMAGE, masks, labels, precedence)]
        if write:
            nifti_writer.write_label_map(out.with_suffix(".nii.gz"), made[0].label, case / IMAGE, labels)

    def run() -> Answer:
        made.clear()
        answer = timed(deed)
        np.save(out, made[0].label)
        return answer

    return run


def merge_nibabel(case: Path, out: Path, order: list[str], names: list[str]) -> Run:
    """The plain way: one mask after the other with nibabel and NumPy, painted in this order."""
    nib = import_module("nibabel")
    made: list[Any] = []

    def deed() -> None:
        label = np.zeros(nib.load(case / IMAGE).shape, np.uint8)
        for name in order:
            label[np.asarray(nib.load(case / MASKS / f"{name}.nii.gz").dataobj) > 0] = names.index(name) + 1
        made[:] = [label]

    def run() -> Answer:
        made.clear()
        answer = timed(deed)
        np.save(out, made[0])
        return answer

    return run


def merge_monai(case: Path, out: Path, names: list[str]) -> Run:
    """MONAI's way: LoadImaged of all masks, one channel each, argmax."""
    transforms, torch = import_module("monai.transforms"), import_module("torch")
    load = transforms.LoadImage(image_only=True, ensure_channel_first=True)
    made: list[Any] = []

    def deed() -> None:
        masks = load([case / MASKS / f"{name}.nii.gz" for name in names])
        label = torch.argmax(masks, dim=0).to(torch.uint8) + 1
        made[:] = [label * (masks.amax(dim=0) > 0)]

    def run() -> Answer:
        answer = timed(deed)
        np.save(out, made[0].numpy())
        return answer

    return run


def merge_totalsegmentator(case: Path, out: Path) -> Run:
    """TotalSegmentator's own function; it writes a file."""
    libs = import_module("totalsegmentator.libs")
    target = out.with_suffix(".nii.gz")
    return lambda: timed(lambda: libs.combine_masks_to_multilabel_file(case / MASKS, target))


# Slices: every job draws image and label of one slice at random, `draws` times at each turn.


def drawing(draw: Callable[[int, int], Any], cases: int, slices: int, draws: int) -> Run:
    """Draw slices in an order that depends on nothing but chance of a fixed seed."""
    chance = random.Random(0)

    def run() -> Answer:
        places = [(chance.randrange(cases), chance.randrange(slices)) for _ in range(draws)]
        began = time.perf_counter()
        for case, k in places:
            draw(case, k)
        rate = draws / (time.perf_counter() - began)
        return {"rate": rate, "private_mb": private()}

    return run


def slices_medseg(folder: Path, ids: list[str], slices: int, draws: int) -> Run:
    """The store of medseg; what stays in memory is what training keeps, the index of each case included."""
    store = import_module("medseg.data.store")
    import_module("blosc2")
    cases: list[Any] = []

    def draw(case: int, k: int) -> Any:
        if not cases:
            cases.extend(store.read_store(folder, id) for id in ids)
        return cases[case].image.read_slice(k), cases[case].label.read_slice(k)

    return drawing(draw, len(ids), slices, draws)


def slices_nnunet(folder: Path, ids: list[str], slices: int, draws: int) -> Run:
    """nnU-Net's blosc2 dataset, read as its data loader does: open the case, cut the slice out."""
    dataset = import_module("nnunetv2.training.dataloading.nnunet_dataset").nnUNetDatasetBlosc2(str(folder), ids)

    def draw(case: int, k: int) -> Any:
        data, seg, _, _ = dataset.load_case(ids[case])
        return data[:, k : k + 1], seg[:, k : k + 1]

    return drawing(draw, len(ids), slices, draws)


def slices_nibabel(folder: Path, ids: list[str], slices: int, draws: int) -> Run:
    """The compressed files themselves: read both, keep one slice."""
    nib = import_module("nibabel")

    def draw(case: int, k: int) -> Any:
        names = (f"{ids[case]}.nii.gz", f"{ids[case]}-label.nii.gz")
        return [np.asarray(nib.load(folder / name).dataobj)[..., k] for name in names]

    return drawing(draw, len(ids), slices, draws)


def slices_monai(
    folder: Path, ids: list[str], slices: int, draws: int, kind: str, copy: bool, meta: bool, cache: str
) -> Run:
    """MONAI's datasets, with its own transform that cuts out one slice at random."""
    data, transforms = import_module("monai.data"), import_module("monai.transforms")
    data.set_track_meta(meta)
    keys = ["image", "label"]
    cut = transforms.Compose(
        [
            transforms.LoadImaged(keys),
            transforms.EnsureChannelFirstd(keys, channel_dim="no_channel"),
            transforms.CastToTyped(keys, dtype=(np.int16, np.uint8)),
            transforms.RandSpatialCropd(keys, (256, 256, 1), random_size=False),
            transforms.SqueezeDimd(keys, dim=-1),
        ]
    ).set_random_state(0)
    items = [{"image": folder / f"{id}.nii.gz", "label": folder / f"{id}-label.nii.gz"} for id in ids]
    made: list[Any] = []

    def draw(case: int, k: int) -> Any:
        if not made and kind == "cache":
            made.append(data.CacheDataset(items, cut, copy_cache=copy, progress=False))
        elif not made:
            made.append(data.PersistentDataset(items, cut, cache_dir=cache))
        return made[0][case]

    return drawing(draw, len(ids), slices, draws)


def write_nnunet(folder: Path, volumes: list[str], locations: bool) -> Run:
    """Write cases as nnU-Net's preprocessor does for CT that needs no resampling, for a 2d patch of a whole slice."""
    module = import_module("nnunetv2.training.dataloading.nnunet_dataset")
    normalization = import_module("nnunetv2.preprocessing.normalization.default_normalization_schemes")
    preprocessor = import_module("nnunetv2.preprocessing.preprocessors.default_preprocessor").DefaultPreprocessor

    def write(path: Path) -> None:
        hu, label = np.load(f"{path}.hu.npy"), np.load(f"{path}.label.npy")
        inside = hu[label > 0].astype(np.float32)
        low, high = np.percentile(inside, [0.5, 99.5])
        figures = {"mean": inside.mean(), "std": inside.std(), "percentile_00_5": low, "percentile_99_5": high}
        data = np.moveaxis(hu, 2, 0).transpose(0, 2, 1).astype(np.float32)[None]
        data[0] = normalization.CTNormalization(use_mask_for_norm=False, intensityproperties=figures).run(data[0])
        seg = np.moveaxis(label, 2, 0).transpose(0, 2, 1).astype(np.int16)[None]
        found = preprocessor._sample_foreground_locations(seg, list(range(1, 118))) if locations else {}
        blocks, chunks = module.comp_blosc2_params(data.shape, (256, 256), data.itemsize)
        blocks_seg, chunks_seg = module.comp_blosc2_params(seg.shape, (256, 256), seg.itemsize)
        module.nnUNetDatasetBlosc2.save_case(
            data,
            seg,
            {"class_locations": found},
            str(folder / path.name),
            chunks=chunks,
            blocks=blocks,
            chunks_seg=chunks_seg,
            blocks_seg=blocks_seg,
        )

    def run() -> Answer:
        began = time.perf_counter()
        for path in volumes:
            write(Path(path))
        return {"seconds": time.perf_counter() - began}

    return run


JOBS: dict[str, Callable[..., Run]] = {
    "merge_medseg": merge_medseg,
    "merge_nibabel": merge_nibabel,
    "merge_monai": merge_monai,
    "merge_totalsegmentator": merge_totalsegmentator,
    "slices_medseg": slices_medseg,
    "slices_nnunet": slices_nnunet,
    "slices_nibabel": slices_nibabel,
    "slices_monai": slices_monai,
    "write_nnunet": write_nnunet,
}


if __name__ == "__main__":
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    sys.stdout = sys.stderr
    arguments = json.loads(sys.argv[2])
    for key in {"case", "out", "folder"} & set(arguments):
        arguments[key] = Path(arguments[key])
    job = JOBS[sys.argv[1]](**arguments)
    print("{}", file=replies)
    for _ in sys.stdin:
        print(json.dumps(job(), default=float), file=replies)
