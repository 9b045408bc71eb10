"""What inference.py measures. Each job runs in a process of its own, in medseg's environment or in that of the rivals.

    python scripts/bench/inference_jobs.py JOB '{"its": "arguments"}'

A job makes itself warm on a few layers, prints a line of JSON, and prints one more for each line it is sent: wall and
CPU seconds, and the peak memory above what the process held before (`VmHWM` less `VmRSS`, after a warm-up, with freed
memory given back), the labels it makes included. Everything is imported where it is used, for no environment holds it
all. A network comes as it was saved, or as a trace (TorchScript), which needs no MONAI.
"""

import ctypes
import functools
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

Labels = Callable[[], Any]
OVERLAP, CLASSES = 0.25, 118


def memory(key: str) -> float:
    """MB of this process: `VmRSS` now, `VmHWM` at its highest since `clear_refs` was last written."""
    line = next(
        line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith(key)
    )
    return int(line.split()[1]) * 1024 / 1e6


def timed(deed: Labels, out: str) -> dict[str, float]:
    """Do it once; what it gives goes to `out`."""
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    base, cpu, wall = memory("VmRSS"), time.process_time(), time.perf_counter()
    found = deed()
    answer = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "mb": memory("VmHWM") - base}
    if found is not None:
        np.save(out, np.asarray(found).astype(np.uint8).squeeze())
    return answer


def network_of(path: str) -> Any:
    """The network of that file, made by inference.py itself."""
    load: Any = torch.jit.load if path.endswith(".trace") else functools.partial(torch.load, weights_only=False)
    return load(path).eval()


def image_of(path: str, source: list[int], layers: int | None) -> Any:
    """The volume on the network's grid that the file holds, as if it had come from a grid of the shape `source`."""
    image = torch.from_numpy(np.load(path))[None]
    image = image if layers is None else image[..., :layers].contiguous()
    source = source if layers is None else [*source[:2], layers]
    data, transforms = import_module("monai.data"), import_module("monai.transforms")
    affine = torch.eye(4, dtype=torch.float64)
    meta = {"original_affine": affine.numpy(), "spatial_shape": np.array(source), "filename_or_obj": "scan"}
    whole = data.MetaTensor(torch.zeros(1, *source), affine=affine, meta=meta)
    pixdim = [a / b for a, b in zip(source, image.shape[1:], strict=True)]
    there = transforms.Compose([transforms.Spacingd("image", pixdim, mode="bilinear")])
    item = there({"image": whole})
    if item["image"].shape != image.shape:
        raise SystemExit(f"MONAI makes {item['image'].shape} of {source}, not {image.shape}")
    item["image"].copy_(image)
    return item, there


def alone(
    network: str, image: str, source: list[int], precision: str, batch: int, roi: list[int], layers: int | None
) -> Labels:
    """The network alone: every window once, in the given precision and channels last, its answers thrown away."""
    windows = import_module("medseg.inference.windows")
    net = network_of(network)
    if len(roi) == 2:
        net = net.to(memory_format=torch.channels_last)
    volume = image_of(image, source, layers)[0]["image"].as_tensor()
    if len(roi) == 2:
        volume, roi = volume.movedim(3, 1).contiguous(), [1, *roi]
    plan = list(windows.WindowPlan.of(volume.shape[1:], roi, [0.0 if size == 1 else overlap_of(roi) for size in roi]))

    def deed() -> None:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            for first in range(0, len(plan), batch):
                tiles = torch.stack([windows.crop(volume, start, roi, 0.0) for start in plan[first : first + batch]])
                if roi[0] == 1:
                    tiles = tiles[:, :, 0].contiguous(memory_format=torch.channels_last)
                net(tiles)

    return deed


def overlap_of(roi: list[int]) -> float:
    """Half of a window in volumes, a quarter of it in slices."""
    return 0.5 if len(roi) == 3 and roi[0] > 1 else OVERLAP


def medseg(
    network: str, image: str, source: list[int], precision: str, batch: int, roi: list[int], layers: int | None
) -> Labels:
    """StreamingInferer to the source grid."""
    inferer = import_module("medseg.inference").StreamingInferer(
        roi, batch, overlap_of(roi), output_grid="source", precision=precision
    )
    item, _ = image_of(image, source, layers)
    net = network_of(network)
    return lambda: inferer(item["image"][None], net)


def monai(
    network: str, image: str, source: list[int], batch: int, roi: list[int], layers: int | None, linear: bool
) -> Labels:
    """MONAI: windows, then the way back on the logits and argmax (`linear`), or argmax and then the way back."""
    inferers, transforms = import_module("monai.inferers"), import_module("monai.transforms")
    net, (item, there) = network_of(network), image_of(image, source, layers)
    common = {"roi_size": roi, "sw_batch_size": batch, "overlap": overlap_of(roi), "mode": "gaussian"}
    kind = inferers.SliceInferer if len(roi) == 2 else inferers.SlidingWindowInferer
    inferer = kind(**common, **({"spatial_dim": 2} if len(roi) == 2 else {}))
    back = transforms.Invertd("pred", there, orig_keys="image", nearest_interp=not linear, to_tensor=True)

    def deed() -> Any:
        with torch.no_grad():
            found = inferer(item["image"][None], net)[0]
            one = dict(item)
            one["pred"] = found if linear else found.argmax(dim=0, keepdim=True)
            del found
            one["pred"].applied_operations = item["image"].applied_operations
            answer = back(one)["pred"]
            return answer.argmax(dim=0) if linear else answer

    return deed


def nnunet_parts(shape: list[int], source: list[int], roi: list[int]) -> tuple[Any, Any, Any, dict[str, Any]]:
    """Plans for a network on a grid of that shape, `(K, I, J)`; the source's spacing is 1."""
    plans_handler = import_module("nnunetv2.utilities.plans_handling.plans_handler")
    spacing = [a / b for a, b in zip(source, shape, strict=True)]
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "x", "preprocessor_name": "DefaultPreprocessor", "batch_size": 1, "patch_size": roi,
        "median_image_size_in_voxels": shape, "spacing": spacing[-len(roi):],
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False], "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling, "batch_dice": False,
        "architecture": {"network_class_name": "x", "arch_kwargs": {}, "_kw_requires_import": []},
    }  # fmt: skip
    plans = plans_handler.PlansManager(
        {"dataset_name": "x", "plans_name": "x", "original_median_spacing_after_transp": spacing,
         "original_median_shape_after_transp": shape, "image_reader_writer": "NibabelIO",
         "transpose_forward": [0, 1, 2],
         "transpose_backward": [0, 1, 2], "configurations": {"2d": configuration}, "label_manager": "LabelManager",
         "experiment_planner_used": "x", "foreground_intensity_properties_per_channel": {}}
    )  # fmt: skip
    dataset = {"labels": {"background": 0, **{str(n): n for n in range(1, CLASSES)}}, "channel_names": {"0": "CT"},
               "file_ending": ".nii.gz", "numTraining": 1}  # fmt: skip
    properties = {
        "spacing": [1.0, 1.0, 1.0],
        "shape_after_cropping_and_before_resampling": source, "shape_before_cropping": source,
        "bbox_used_for_cropping": [[0, size] for size in source],
    }  # fmt: skip
    return plans, plans.get_configuration("2d"), dataset, properties


def nnunet(network: str, image: str, source: list[int], roi: list[int], layers: int | None) -> Labels:
    """nnU-Net's predictor without mirroring, its resampler and its export, in fp32 as it has it on a CPU."""
    predict = import_module("nnunetv2.inference.predict_from_raw_data")
    export = import_module("nnunetv2.inference.export_prediction")
    volume = torch.from_numpy(np.load(image))[None, ..., :layers].movedim(3, 1).contiguous()
    outer = [volume.shape[1], *source[:2]]
    plans, configuration, dataset, properties = nnunet_parts(list(volume.shape[1:]), outer, roi)
    predictor = predict.nnUNetPredictor(
        tile_step_size=1 - OVERLAP, use_gaussian=True, use_mirroring=False, perform_everything_on_device=False,
        device=torch.device("cpu"), allow_tqdm=False,
    )  # fmt: skip
    net = network_of(network)
    predictor.manual_initialization(net, plans, configuration, [net.state_dict()], dataset, "x", None)

    def deed() -> Any:
        with torch.no_grad():
            logits = predictor.predict_logits_from_preprocessed_data(volume)
            found = export.convert_predicted_logits_to_segmentation_with_correct_shape(
                logits, plans, configuration, predictor.label_manager, properties
            )
        return np.moveaxis(np.asarray(found), 0, 2)

    return deed


def back(network: str, image: str, source: list[int], kind: str, layers: int | None) -> Labels:
    """The way back alone, from logits that are there; 118 classes, linear, then the largest."""
    net = network_of(network)
    volume = torch.from_numpy(np.load(image))[None, ..., :layers].movedim(3, 1).contiguous()  # (1, K, I, J)
    depth, height, width = volume.shape[1:]
    last = torch.empty(depth, height, width, CLASSES)
    with torch.no_grad():
        for k in range(depth):
            last[k] = net(volume[None, :, k])[0].movedim(0, -1)
    if layers is not None:  # making warm
        source = [source[0] * layers // 100, *source[1:]]
    logits = last if kind == "medseg" else last.movedim(3, 0).contiguous()
    if kind != "medseg":
        del last
    if kind == "medseg":
        kernels, way = import_module("medseg.inference.kernels"), import_module("medseg.inference.grid_mapping")

        def ours() -> Any:
            axes = [
                way.axis_map((np.arange(n) + 0.5) * m / n - 0.5, m)
                for n, m in zip(source, logits.shape[:3], strict=True)
            ]
            made = np.zeros(source, np.uint8)
            held: dict[int, Any] = {}
            for at in range(source[0]):
                low, part = int(axes[0].low[at]), float(axes[0].fraction[at])
                for k in {low, low + int(part > 0)} - set(held):
                    held[k] = kernels.Layer(logits[k], None, kernels.argmax_channels(logits[k]))
                held = {k: layer for k, layer in held.items() if k >= low}
                made[at] = kernels.interpolate_labels(held[low], held[low + int(part > 0)], part, axes[1], axes[2])
            return made

        return ours
    if kind == "monai":
        transforms, data = import_module("monai.transforms"), import_module("monai.data")
        ratio = [n / m for n, m in zip(source, logits.shape[1:], strict=True)]
        affine = torch.diag(torch.tensor([*(1 / r for r in ratio), 1.0], dtype=torch.float64))
        resample = transforms.SpatialResample(mode="bilinear", padding_mode="border", align_corners=False)
        item = data.MetaTensor(logits, affine=torch.eye(4, dtype=torch.float64))
        return lambda: resample(item, dst_affine=affine, spatial_size=source).argmax(dim=0)
    if kind == "torch":
        interpolate = torch.nn.functional.interpolate
        return lambda: interpolate(logits[None], size=source, mode="trilinear").argmax(dim=1)
    resampling = import_module("nnunetv2.preprocessing.resampling.default_resampling").resample_data_or_seg_to_shape
    spacing = [n / m for n, m in zip(source, logits.shape[1:], strict=True)]

    def theirs() -> Any:
        found = resampling(logits.numpy(), source, spacing, [1.0, 1.0, 1.0], is_seg=False, order=1, order_z=0)
        return torch.from_numpy(np.asarray(found)).argmax(dim=0)

    return theirs


JOBS: dict[str, Callable[..., Labels]] = {
    "alone": alone,
    "medseg": medseg,
    "monai": monai,
    "nnunet": nnunet,
    "back": back,
}


if __name__ == "__main__":
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    sys.stdout = sys.stderr
    warnings.simplefilter("ignore")
    arguments = json.loads(sys.argv[2])
    made_in, few = str(arguments.pop("out")), int(arguments.pop("warm"))
    if arguments.pop("keep", False):
        import_module("medseg.training.device").keep_freed_memory()
    for _ in range(2 if few < 96 else 1):
        JOBS[sys.argv[1]](**arguments, layers=few)()
    job = JOBS[sys.argv[1]](**arguments, layers=None)
    print("{}", file=replies)
    for _line in sys.stdin:
        print(json.dumps(timed(job, made_in)), file=replies)
