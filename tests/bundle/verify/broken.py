"""A small bundle that is whole, and what can be wrong with one: each fault in a bundle of its own, with its code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.networks.nets import UNet

NAMES = ["background", "liver", "kidney_left", "kidney_right"]
METADATA: dict[str, Any] = {
    "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
    "name": "plain",
    "version": "0.1.0",
    "changelog": {"0.1.0": "First version"},
    "monai_version": "1.6.1",
    "pytorch_version": "2.6.0",
    "numpy_version": "2.0.0",
    "required_packages_version": {"nibabel": "5.3.0"},
    "task": "Segmentation of a test",
    "description": "A bundle of the tests",
    "authors": "The medseg authors",
    "copyright": "Copyright The medseg authors",
    "intended_use": "Tests",
}
NETWORK = {"_target_": "UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": "$len(@labels)", "channels": [4, 8],
           "strides": [2]}  # fmt: skip
SHARED = {
    "imports": ["$import torch", "$import medseg"],
    "bundle_root": ".",
    "output_dir": "$@bundle_root + '/eval'",
    "dataset_dir": None,
    "device": "cpu",
    "spacing": [1.5, 1.5],
    "labels": "$medseg.LabelMap(['liver', 'kidney_left', 'kidney_right'])",
    "network_def": NETWORK,
    "network": "$@network_def.to(@device)",
    "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32], "overlap": 0.25},
}


def network_data_format(channels: int, names: list[str], shape: list[Any]) -> dict[str, Any]:
    def side(kind: str, named: list[str]) -> dict[str, Any]:
        numbered = {str(number): name for number, name in enumerate(named)}
        return {"type": "image", "format": kind, "num_channels": len(named), "spatial_shape": list(shape),
                "dtype": "float32", "value_range": [], "is_patch_data": True, "channel_def": numbered}  # fmt: skip

    inputs = [f"image {number}" for number in range(channels)]
    return {"inputs": {"image": side("hounsfield", inputs)}, "outputs": {"pred": side("segmentation", names)}}


def steps(keys: list[str]) -> list[dict[str, Any]]:
    mode = ["bilinear", "nearest"][: len(keys)]
    return [
        {"_target_": "LoadImaged", "keys": keys, "reader": "NibabelReader"},
        {"_target_": "EnsureChannelFirstd", "keys": keys},
        {"_target_": "Orientationd", "keys": keys, "axcodes": "RAS"},
        {"_target_": "Spacingd", "keys": keys, "pixdim": "@spacing", "mode": mode},
        {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -200, "a_max": 300, "b_min": 0.0, "b_max": 1.0},
    ]


def dataset(engine: str) -> dict[str, Any]:
    return {
        "_target_": "Dataset",
        "data": "$medseg.data.find_scans(@dataset_dir)",
        "transform": f"@{engine}preprocessing",
    }


def loader(engine: str) -> dict[str, Any]:
    return {"_target_": "DataLoader", "dataset": f"@{engine}dataset", "batch_size": 1}


def evaluator(engine: str, **more: Any) -> dict[str, Any]:
    return {
        "_target_": "SupervisedEvaluator", "device": "@device", "val_data_loader": f"@{engine}dataloader",
        "network": "@network", "inferer": "@inferer", "val_handlers": f"@{engine}handlers", **more,
    }  # fmt: skip


def dice(engine: str) -> dict[str, Any]:
    scored = {"_target_": "MeanDice", "output_transform": "$monai.handlers.from_engine(['pred', 'label'])"}
    return {f"{engine}key_metric": {"val_mean_dice": scored}}


def train_config() -> dict[str, Any]:
    flip = {"_target_": "RandFlipd", "keys": ["image", "label"], "spatial_axis": 1, "prob": 0.5}
    validation = {"_target_": "ValidationHandler", "validator": "@validate#evaluator", "interval": "@val_interval"}
    saver = {"_target_": "MetricsSaver", "save_dir": "@output_dir", "metrics": ["val_mean_dice"]}
    return {
        **SHARED,
        "lr": 0.001,
        "val_interval": 1,
        "deterministic": steps(["image", "label"]),
        "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": "@lr"},
        "loss": {"_target_": "DiceLoss", "softmax": True},
        "train": {
            "random": [flip],
            "preprocessing": {"_target_": "Compose", "transforms": "$@deterministic + @train#random"},
            "dataset": dataset("train#"),
            "dataloader": loader("train#"),
            "inferer": {"_target_": "SimpleInferer"},
            "handler_set": {"validation": validation},
            "handlers": ["%train#handler_set#validation"],
            "trainer": {
                "_target_": "SupervisedTrainer", "max_epochs": 1, "device": "@device",
                "train_data_loader": "@train#dataloader", "network": "@network", "loss_function": "@loss",
                "optimizer": "@optimizer", "inferer": "@train#inferer", "train_handlers": "@train#handlers",
            },
        },
        "validate": {
            "preprocessing": {"_target_": "Compose", "transforms": "@deterministic"},
            "dataset": dataset("validate#"),
            "dataloader": loader("validate#"),
            **{key.removeprefix("validate#"): value for key, value in dice("validate#").items()},
            "handler_set": {"scores": saver},
            "handlers": ["%validate#handler_set#scores"],
            "evaluator": evaluator("validate#", key_val_metric="@validate#key_metric"),
        },
        "run": ["$@train#trainer.run()"],
    }  # fmt: skip


def other_config(keys: list[str], **more: Any) -> dict[str, Any]:
    return {
        **SHARED,
        "ckpt_path": "$@bundle_root + '/models/model.pt'",
        "network": "$medseg.networks.load_weights(@network_def, @ckpt_path).to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": steps(keys)},
        "dataset": dataset(""),
        "dataloader": loader(""),
        "handlers": [],
        "evaluator": evaluator("", **more),
        **(dice("") if more else {}),
        "run": ["$@evaluator.run()"],
    }


def save_weights(root: Path, classes: int = 4, name: str = "models/model.pt", seed: int = 0) -> None:
    torch.manual_seed(seed)
    state = UNet(spatial_dims=2, in_channels=1, out_channels=classes, channels=[4, 8], strides=[2]).state_dict()
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, root / name)


def plain(root: Path) -> Path:
    """A bundle without a fault: configs that stand alone, weights, label map, docs."""
    content = {
        "metadata": {**METADATA, "network_data_format": network_data_format(1, NAMES, ["32*n", "32*n"])},
        "train": train_config(),
        "evaluate": other_config(["image", "label"], key_val_metric="@key_metric"),
        "inference": other_config(["image"]),
    }
    (root / "configs").mkdir(parents=True)
    for name, config in content.items():
        (root / "configs" / f"{name}.json").write_text(json.dumps(config))
    (root / "docs").mkdir()
    for name in ("LICENSE", "docs/README.md"):
        (root / name).write_text("text")
    (root / "label_map.json").write_text(json.dumps({str(number): name for number, name in enumerate(NAMES)}))
    save_weights(root)
    return root


def change(root: Path, config: str, **changes: Any) -> None:
    """Set entries of a config; `__` stands between the parts of a path, and a function gets what is there."""
    file = root / "configs" / f"{config}.json"
    content = json.loads(file.read_text())
    for path, value in changes.items():
        *above, last = path.split("__")
        holder: Any = content
        for part in above:
            holder = holder[int(part) if isinstance(holder, list) else part]
        last = int(last) if isinstance(holder, list) else last
        if value is REMOVE:
            del holder[last]
        else:
            holder[last] = value(holder[last]) if callable(value) else value
    file.write_text(json.dumps(content))


REMOVE = object()
CHANNELS = "network_data_format__outputs__pred"
Fault = Callable[[Path], Any]


def text(file: str, edit: Callable[[str], str]) -> Fault:
    return lambda root: (root / file).write_text(edit((root / file).read_text()))


def edit(config: str, **changes: Any) -> Fault:
    return lambda root: change(root, config, **changes)


def overlay(name: str, **content: Any) -> Fault:
    keys = {key.replace("__", "#"): value for key, value in content.items()}
    return lambda root: (root / "configs" / f"{name}.json").write_text(json.dumps(keys))


def two_files(root: Path) -> None:
    """The same names, other numbers, as safetensors writes them."""
    state = torch.load(root / "models" / "model.pt", weights_only=True)
    header, data = {}, b""
    for name, value in state.items():
        raw = (value + 1).numpy().astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    (root / "models" / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)


def not_finite(root: Path) -> None:
    state = torch.load(root / "models" / "model.pt", weights_only=True)
    next(iter(state.values())).view(-1)[0] = float("nan")
    torch.save(state, root / "models" / "model.pt")


def exchanged(root: Path) -> None:
    (root / "run.json").write_text("{}")
    save_weights(root, name="checkpoints/best.pt", seed=1)


def flip(**arguments: Any) -> Fault:
    return edit("train", train__random__0=lambda current: {**current, **arguments})


def also(config: str, path: str, entry: Any) -> Fault:
    return edit(
        config, **{path: lambda current: [*current, entry] if isinstance(current, list) else {**current, **entry}}
    )


SMOOTH = {"_target_": "GaussianSmoothd", "keys": "image", "sigma": 0.4}
WRONG_ORDER = {"0": "background", "1": "kidney_left", "2": "liver", "3": "kidney_right"}
BROKEN: dict[str, tuple[Fault, str]] = {
    "no metadata": (lambda root: (root / "configs" / "metadata.json").unlink(), "file-missing"),
    "no inference": (lambda root: (root / "configs" / "inference.json").unlink(), "file-missing"),
    "no licence": (lambda root: (root / "LICENSE").unlink(), "file-missing"),
    "no weights": (lambda root: (root / "models" / "model.pt").unlink(), "weights-missing"),
    "a config cut short": (text("configs/inference.json", lambda text: text[: len(text) // 2]), "config-unreadable"),
    "a key twice": (text("configs/train.json", lambda before: '{"lr": 0.5, ' + before[1:]), "key-twice"),
    "no device": (edit("inference", device=REMOVE), "key-missing"),
    "weights that nothing loads": (edit("inference", network="$@network_def.to(@device)"), "weights-not-loaded"),
    "weights of another file": (edit("inference", ckpt_path="$@bundle_root + '/models/best.pt'"), "weights-missing"),
    "an inferer for overlaps": (
        lambda root: change(root, "inference", multilabel=False, inferer__multilabel=True), "inferer-contradicts"),
    "no schema": (edit("metadata", schema=REMOVE), "schema-missing"),
    "a run of nothing": (edit("inference", run=[]), "run-missing"),
    "no run": (edit("inference", run=REMOVE), "run-missing"),
    "an interval elsewhere": (edit("train", train__handler_set__validation__interval=5), "key-elsewhere"),
    "no description": (edit("metadata", description=REMOVE), "metadata-schema"),
    "a dtype that is none": (edit("metadata", **{f"{CHANNELS}__dtype": "float23"}), "metadata-schema"),
    "a version without a word": (edit("metadata", version="0.2.0"), "version-changelog"),
    "channels without names": (edit("metadata", **{f"{CHANNELS}__channel_def__3": REMOVE}), "channel-def"),
    "a newer medseg": (edit("metadata", required_packages_version={"medseg": "99.0.0"}), "package-old"),
    "a newer MONAI": (edit("metadata", monai_version="9.0.0"), "package-old"),
    "a package that is not there": (edit("metadata", required_packages_version={"nosuch": "1.0"}), "package-missing"),
    "a version that is none": (edit("metadata", numpy_version="2 or so"), "version-form"),
    "a misspelt component": (edit("train", loss___target_="DiceLos"), "target-missing"),
    "a component of elsewhere": (edit("train", loss___target_="nosuch.losses.Dice"), "target-missing"),
    "a misspelt argument": (edit("train", loss=lambda current: {**current, "softmx": True}), "argument-unknown"),
    "an argument that is gone": (edit("inference", network_def__img_size=[96, 96]), "argument-unknown"),
    "an argument that is missing": (edit("inference", inferer__roi_size=REMOVE), "argument-missing"),
    "an expression that is none": (edit("train", network="$@network_def.to(@device"), "expression-syntax"),
    "a misspelt name": (edit("inference", labels="$medseg.LabelMapp(['liver'])"), "expression-name"),
    "a name that nobody imports": (edit("train", optimizer__lr="$math.sqrt(@lr)"), "expression-name"),
    "a reference to nothing": (edit("train", optimizer__lr="@lrr"), "reference-missing"),
    "a macro of another file": (edit("evaluate", network_def="%train.json::network_def"), "reference-file"),
    "a key that nothing uses": (edit("train", lrr=0.5), "key-unused"),
    "a key within a section": (edit("train", train__handler=[]), "key-unused"),
    "a misspelt overlay": (overlay("quick", lrr=0.5), "key-unknown"),
    "an overlay into nothing": (overlay("quick_train", train__trainr__max_epochs=1), "key-unknown"),
    "a handler by its place": (overlay("more", train__handlers__0__interval=5), "position"),
    "handlers cut off": (edit("train", train__trainer__train_handlers="$@train#handlers[:-1]"), "position"),
    "pairs by order": (
        also("train", "train__dataset", {"data": "$[{'image': i, 'label': l} for i, l in zip(sorted(glob.glob('a')), "
             "sorted(glob.glob('b')))]"}), "pairing"),
    "a metric of another name": (edit("train", validate__handler_set__scores__metrics=["val_dice"]), "metric-unknown"),
    "an absolute path": (edit("inference", output_dir="/home/somebody/eval"), "path-absolute"),
    "a path out of it": (edit("inference", output_dir="$@bundle_root + '/../eval'"), "path-leaves"),
    "more channels than it has": (
        edit("metadata", network_data_format=network_data_format(1, [*NAMES, "spleen"], ["32*n", "32*n"])),
        "network-channels"),
    "a size that it does not take": (
        edit("metadata", network_data_format=network_data_format(1, NAMES, [33, 33])), "network-shape"),
    "input that it does not take": (
        edit("metadata", network_data_format=network_data_format(2, NAMES, ["32*n", "32*n"])), "network-shape"),
    "a type that it does not give": (edit("metadata", **{f"{CHANNELS}__dtype": "uint8"}), "network-dtype"),
    "a network that cannot be": (edit("inference", network_def__strides=[]), "network-fails"),
    "weights of another number of classes": (lambda root: save_weights(root, classes=7), "weights-fit"),
    "weights of another network": (
        lambda root: torch.save({"conv.weight": torch.zeros(3)}, root / "models" / "model.pt"), "weights-fit"),
    "weights cut short": (
        lambda root: (root / "models/model.pt").write_bytes((root / "models/model.pt").read_bytes()[:999]),
        "weights-damaged"),
    "weights that are none": (not_finite, "weights-not-finite"),
    "two weights": (two_files, "weights-differ"),
    "exchanged weights": (exchanged, "weights-exchanged"),
    "classes in another order": (
        lambda root: (root / "label_map.json").write_text(json.dumps(WRONG_ORDER)), "label-order"),
    "channels in another order": (edit("metadata", **{f"{CHANNELS}__channel_def": WRONG_ORDER}), "label-order"),
    "another order in inference": (
        edit("inference", labels="$medseg.LabelMap(['liver', 'kidney_right', 'kidney_left'])"), "label-order"),
    "other classes in training": (
        edit("train", labels="$medseg.LabelMap(['liver', 'kidney_left', 'spleen'])"), "label-names"),
    "a label map with a gap": (
        lambda root: (root / "label_map.json").write_text('{"0": "background", "2": "liver"}'), "label-map"),
    "another network in inference": (edit("inference", network_def__channels=[8, 8]), "network-drift"),
    "smoothed in training alone": (also("train", "deterministic", SMOOTH), "preprocessing-drift"),
    "smoothed in inference alone": (also("inference", "preprocessing__transforms", SMOOTH), "preprocessing-drift"),
    "another window": (edit("inference", preprocessing__transforms__4__a_max=400), "preprocessing-drift"),
    "another spacing": (edit("inference", spacing=[2.0, 2.0]), "preprocessing-drift"),
    "another interpolation": (edit("inference", preprocessing__transforms__3__mode="nearest"), "preprocessing-drift"),
    "another order of steps": (
        edit("inference", preprocessing__transforms=lambda current: [*current[:3], current[4], current[3]]),
        "preprocessing-drift"),
    "left and right turned round": (flip(spatial_axis=0), "flip-contralaterals"),
    "all axes turned round": (flip(spatial_axis=None), "flip-contralaterals"),
    "any axis turned round": (
        edit("train", train__random__0={"_target_": "RandAxisFlipd", "keys": ["image", "label"]}),
        "flip-contralaterals"),
}  # fmt: skip
