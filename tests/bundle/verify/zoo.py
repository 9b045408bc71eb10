"""Three layouts of MONAI's model zoo, written anew from the names of their keys; the networks are small ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.bundle.verify.broken import METADATA, network_data_format

BOTH = ["image", "label"]
DEVICE = "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')"
SCORED = "$monai.handlers.from_engine(['pred', 'label'])"


def deterministic(keys: Any, spacing: Any, both: bool, *intensities: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"_target_": "LoadImaged", "keys": keys},
        {"_target_": "EnsureChannelFirstd", "keys": keys},
        {"_target_": "Orientationd", "keys": keys, "axcodes": "RAS"},
        {
            "_target_": "Spacingd",
            "keys": keys,
            "pixdim": spacing,
            "mode": ["bilinear", "nearest"] if both else "bilinear",
        },
        *intensities,
        {"_target_": "EnsureTyped", "keys": keys},
    ]


def engine(kind: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": kind, "device": "@device", "network": "@network", "amp": True, **arguments}


def train_config(
    network: dict[str, Any], channels: int, dataset_dir: str, steps: list[dict[str, Any]], count: int
) -> dict:
    after = [
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        {"_target_": "AsDiscreted", "keys": ["pred", "label"], "argmax": [True, False], "to_onehot": channels},
    ]
    accuracy = {"_target_": "ignite.metrics.Accuracy", "output_transform": SCORED}
    return {
        "imports": ["$import glob", "$import os", "$import ignite"],
        "bundle_root": ".",
        "ckpt_dir": "$@bundle_root + '/models'",
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": dataset_dir,
        "images": "$list(sorted(glob.glob(@dataset_dir + '/imagesTr/*.nii.gz')))",
        "labels": "$list(sorted(glob.glob(@dataset_dir + '/labelsTr/*.nii.gz')))",
        "val_interval": 5,
        "device": DEVICE,
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True},
        "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": 0.0001},
        "train": {
            "deterministic_transforms": steps,
            "random_transforms": [{"_target_": "RandSpatialCropd", "keys": BOTH, "roi_size": [16] * 3}],
            "preprocessing": {
                "_target_": "Compose",
                "transforms": "$@train#deterministic_transforms + @train#random_transforms",
            },
            "dataset": {
                "_target_": "CacheDataset",
                "data": f"$[{{'image': i, 'label': l}} for i, l in zip(@images[:-{count}], @labels[:-{count}])]",
                "transform": "@train#preprocessing",
            },
            "dataloader": {"_target_": "DataLoader", "dataset": "@train#dataset", "batch_size": 2, "shuffle": True},
            "inferer": {"_target_": "SimpleInferer"},
            "postprocessing": {"_target_": "Compose", "transforms": after},
            "handlers": [
                {"_target_": "ValidationHandler", "validator": "@validate#evaluator", "epoch_level": True,
                 "interval": "@val_interval"},
                {"_target_": "StatsHandler", "tag_name": "train_loss",
                 "output_transform": "$monai.handlers.from_engine(['loss'], first=True)"},
            ],
            "key_metric": {"train_accuracy": accuracy},
            "trainer": engine(
                "SupervisedTrainer", max_epochs=3, train_data_loader="@train#dataloader", loss_function="@loss",
                optimizer="@optimizer", inferer="@train#inferer", postprocessing="@train#postprocessing",
                key_train_metric="@train#key_metric", train_handlers="@train#handlers"),
        },
        "validate": {
            "preprocessing": {"_target_": "Compose", "transforms": "%train#deterministic_transforms"},
            "dataset": {
                "_target_": "CacheDataset",
                "data": f"$[{{'image': i, 'label': l}} for i, l in zip(@images[-{count}:], @labels[-{count}:])]",
                "transform": "@validate#preprocessing",
            },
            "dataloader": {"_target_": "DataLoader", "dataset": "@validate#dataset", "batch_size": 1},
            "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16] * 3, "overlap": 0.5},
            "postprocessing": "%train#postprocessing",
            "handlers": [
                {"_target_": "StatsHandler", "iteration_log": False},
                {"_target_": "CheckpointSaver", "save_dir": "@ckpt_dir", "save_dict": {"model": "@network"},
                 "save_key_metric": True, "key_metric_filename": "model.pt"},
            ],
            "key_metric": {
                "val_mean_dice": {"_target_": "MeanDice", "include_background": False, "output_transform": SCORED}
            },
            "additional_metrics": {"val_accuracy": accuracy},
            "evaluator": engine(
                "SupervisedEvaluator", val_data_loader="@validate#dataloader", inferer="@validate#inferer",
                postprocessing="@validate#postprocessing", key_val_metric="@validate#key_metric",
                additional_metrics="@validate#additional_metrics", val_handlers="@validate#handlers"),
        },
    }  # fmt: skip


def evaluate_config(metrics: list[str]) -> dict[str, Any]:
    return {
        "validate#handlers": [
            {"_target_": "CheckpointLoader", "load_path": "$@ckpt_dir + '/model.pt'",
             "load_dict": {"model": "@network"}},
            {"_target_": "StatsHandler", "iteration_log": False},
            {"_target_": "MetricsSaver", "save_dir": "@output_dir", "metrics": metrics, "metric_details": metrics[:1],
             "summary_ops": "*"},
        ],
        "run": ["$@validate#evaluator.run()"],
    }  # fmt: skip


def inference_config(
    network: dict[str, Any], dataset_dir: str, steps: list[dict[str, Any]], **more: Any
) -> dict[str, Any]:
    after = [
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image",
         "nearest_interp": False, "to_tensor": True},
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
    ]  # fmt: skip
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "dataset_dir": dataset_dir,
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/imagesTs/*.nii.gz')))",
        "device": DEVICE,
        **more,
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16] * 3, "overlap": 0.5},
        "postprocessing": {"_target_": "Compose", "transforms": after},
        "handlers": [{"_target_": "StatsHandler", "iteration_log": False}],
        "evaluator": engine(
            "SupervisedEvaluator", val_data_loader="@dataloader", inferer="@inferer", postprocessing="@postprocessing",
            val_handlers="@handlers"),
        "checkpointloader": {
            "_target_": "CheckpointLoader", "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {"model": "@network"},
        },
        "initialize": ["$monai.utils.set_determinism(seed=123)", "$@checkpointloader(@evaluator)"],
        "run": ["$@evaluator.run()"],
    }  # fmt: skip


def multi_gpu_config() -> dict[str, Any]:
    return {
        "device": "$torch.device('cuda:' + os.environ['LOCAL_RANK'])",
        "network": {
            "_target_": "torch.nn.parallel.DistributedDataParallel", "module": "$@network_def.to(@device)",
            "device_ids": ["@device"],
        },
        "train#trainer#train_handlers": "$@train#handlers[: -2 if dist.get_rank() > 0 else None]",
        "initialize": ["$import torch.distributed as dist", "$monai.utils.set_determinism(seed=123)"],
        "run": ["$@train#trainer.run()"],
    }  # fmt: skip


def write(root: Path, names: list[str], spatial: int, **configs: dict[str, Any]) -> Path:
    data = network_data_format(1, names, [spatial] * 3)
    metadata = {**METADATA, "name": root.name, "network_data_format": data}
    for name, content in {"metadata": metadata, **configs}.items():
        (root / "configs").mkdir(parents=True, exist_ok=True)
        (root / "configs" / f"{name}.json").write_text(json.dumps(content))
    for name in ("LICENSE", "docs/README.md", "large_files.yml"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("text")
    return root


def spleen(root: Path) -> Path:
    """Pairs by sorted lists, saves a metric that nothing measures, and drops handlers by their place."""
    network = {"_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [4, 8],
               "strides": [2]}  # fmt: skip
    scale = {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -57, "a_max": 164, "b_min": 0, "b_max": 1,
             "clip": True}  # fmt: skip
    location = "/workspace/data/Task09_Spleen"
    train = train_config(network, 2, location, deterministic(BOTH, [1.5, 1.5, 2.0], True, scale), count=9)
    train |= {"initialize": ["$monai.utils.set_determinism(seed=123)"], "run": ["$@train#trainer.run()"]}
    return write(
        root, ["background", "spleen"], 16, train=train, evaluate=evaluate_config(["val_mean_dice", "val_acc"]),
        inference=inference_config(network, location, deterministic("image", [1.5, 1.5, 2.0], False, scale)),
        multi_gpu_train=multi_gpu_config())  # fmt: skip


def whole_body(root: Path) -> Path:
    """Pairs by sorted lists, smooths in training and not in inference, and drops handlers by their place."""
    network = {"_target_": "SegResNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 4, "init_filters": 8,
               "blocks_down": [1, 1], "blocks_up": [1], "dropout_prob": 0.2}  # fmt: skip
    normalize = {"_target_": "NormalizeIntensityd", "nonzero": True}
    scale = {"_target_": "ScaleIntensityd", "minv": -1.0, "maxv": 1.0}
    steps = deterministic(
        BOTH, [1.5] * 3, True, {**normalize, "keys": "image"},
        {"_target_": "CropForegroundd", "keys": BOTH, "source_key": "image", "margin": 10, "k_divisible": [96] * 3},
        {"_target_": "GaussianSmoothd", "keys": ["image"], "sigma": 0.4}, {**scale, "keys": "image"})  # fmt: skip
    train = train_config(network, 4, "../datasets/sampleTrain", steps, count=1)
    train |= {"training": ["$monai.utils.set_determinism(seed=123)", "$@train#trainer.run()"]}
    key = "@image_key"
    steps = deterministic(key, "@pixdim", False, {**normalize, "keys": key}, {**scale, "keys": key})
    inference = inference_config(
        network, "sampledata", steps, image_key="image", displayable_configs={"highres": True},
        pixdim="$[1.5, 1.5, 1.5] if @displayable_configs#highres else [3.0, 3.0, 3.0]")  # fmt: skip
    names = ["background", "spleen", "kidney_right", "kidney_left"]
    return write(
        root, names, 16, train=train, evaluate=evaluate_config(["val_mean_dice"]), inference=inference,
        multi_gpu_train=multi_gpu_config())  # fmt: skip


def swin_unetr(root: Path) -> Path:
    """Loads the weights in a handler, reads with ITK, and has names of classes with blanks and capitals."""
    network = {"_target_": "SwinUNETR", "spatial_dims": 3, "in_channels": 1, "out_channels": 4, "feature_size": 12,
               "depths": [1, 1, 1, 1], "use_checkpoint": False}  # fmt: skip
    scale = {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -175, "a_max": 250, "b_min": 0.0,
             "b_max": 1.0, "clip": True}  # fmt: skip
    location = "/workspace/data/RawData/"
    inference = inference_config(network, location, deterministic("image", [1.5, 1.5, 2.0], False, scale))
    inference["preprocessing"]["transforms"][0]["reader"] = "ITKReader"
    inference["inferer"] |= {"roi_size": [64] * 3, "sw_batch_size": 4}
    inference["handlers"].insert(0, inference.pop("checkpointloader"))
    inference["initialize"] = ["$monai.utils.set_determinism(seed=123)"]
    train = train_config(network, 4, location, deterministic(BOTH, [1.5, 1.5, 2.0], True, scale), count=1)
    train |= {"initialize": ["$monai.utils.set_determinism(seed=123)"], "run": ["$@train#trainer.run()"]}
    names = ["background", "spleen", "Right Kidney", "Left Kideny"]
    return write(
        root, names, 64, train=train, evaluate=evaluate_config(["val_mean_dice"]), inference=inference,
        multi_gpu_train=multi_gpu_config())  # fmt: skip
