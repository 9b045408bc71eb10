"""MONAI's `--tracking` with any bundle: here one that is laid out as those of the model zoo."""

import json

import monai.bundle
import pytest
import torch

from medseg.monitoring.settings import Settings, read_state
from medseg.runs.metrics_log import read_rows
from medseg.runs.record import read_record

ZOO = {
    "imports": ["$import torch", "$import monai"],
    "bundle_root": ".",
    "device": "$torch.device('cpu')",
    "items": "$[{'image': torch.rand(1, 16, 16), 'label': (torch.rand(1, 16, 16) > 0.5).float()} for _ in range(4)]",
    "network_def": {
        "_target_": "UNet",
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": 2,
        "channels": [4, 8],
        "strides": [2],
    },
    "network": "$@network_def.to(@device)",
    "loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True},
    "optimizer": {"_target_": "torch.optim.SGD", "params": "$@network.parameters()", "lr": 0.1},
    "train": {
        "dataset": {"_target_": "Dataset", "data": "@items"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@train#dataset", "batch_size": 2},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "AsDiscreted",
            "keys": ["pred", "label"],
            "argmax": [True, False],
            "to_onehot": 2,
        },
        "handlers": [
            {
                "_target_": "ValidationHandler",
                "validator": "@validate#evaluator",
                "epoch_level": True,
                "interval": 1,
            },
            {
                "_target_": "StatsHandler",
                "tag_name": "train_loss",
                "output_transform": "$monai.handlers.from_engine(['loss'], first=True)",
            },
        ],
        "trainer": {
            "_target_": "SupervisedTrainer",
            "max_epochs": 2,
            "device": "@device",
            "train_data_loader": "@train#dataloader",
            "network": "@network",
            "loss_function": "@loss",
            "optimizer": "@optimizer",
            "inferer": "@train#inferer",
            "postprocessing": "@train#postprocessing",
            "train_handlers": "@train#handlers",
        },
    },
    "validate": {
        "dataset": {"_target_": "Dataset", "data": "@items"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@validate#dataset", "batch_size": 1},
        "inferer": {"_target_": "SimpleInferer"},
        "handlers": [{"_target_": "StatsHandler", "iteration_log": False}],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@validate#dataloader",
            "network": "@network",
            "inferer": "@validate#inferer",
            "postprocessing": "@train#postprocessing",
            "key_val_metric": {
                "val_mean_dice": {
                    "_target_": "MeanDice",
                    "include_background": False,
                    "output_transform": "$monai.handlers.from_engine(['pred', 'label'])",
                }
            },
            "val_handlers": "@validate#handlers",
        },
    },
    "run": ["$@train#trainer.run()"],
}


@pytest.fixture
def bundle(tmp_path):
    root = tmp_path / "zoo_spleen"
    (root / "configs").mkdir(parents=True)
    (root / "configs" / "train.json").write_text(json.dumps(ZOO))
    (root / "configs" / "metadata.json").write_text(json.dumps({"version": "0.1.0"}))
    return root


@pytest.mark.filterwarnings("ignore")  # whatever MONAI says of a config of others
def test_a_bundle_of_the_model_zoos_layout_is_recorded_and_shown(lab, bundle, repository, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setenv("MEDSEG_MONITOR", "trackio")
    monai.bundle.run(
        config_file=str(bundle / "configs" / "train.json"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        logging_file=None,
        tracking=str(repository / "configs" / "tracking.json"),
        bundle_root=str(bundle),
    )
    (folder,) = (bundle / "eval").glob("medseg-run-*")
    record = read_record(folder)
    assert (record["bundle"], record["state"], record["epoch"]) == ("zoo_spleen", "finished", 2)
    rows = [row for _, row in read_rows(folder)]
    assert [row["epoch"] for row in rows if row["kind"] == "epoch"] == [1, 2]
    validations = [row for row in rows if row["kind"] == "validation"]
    assert all(0 <= row["mean_dice"] <= 1 for row in validations)
    assert len(validations) == 2
    assert Settings.load(folder).project == "medseg-zoo_spleen"
    lab.wait_for(lambda: read_state(folder).get("done"))
    assert read_state(folder)["rows"] == len(rows)
