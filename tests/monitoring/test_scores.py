import json

import torch
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine

from medseg.labels import LabelMap
from medseg.metrics import PixelF1, VolumeDice
from medseg.monitoring import SaveScores


def test_scores_are_written_by_name(tmp_path):
    labels = LabelMap(["liver", "spleen"])
    SupervisedEvaluator(
        torch.device("cpu"),
        [{"image": torch.zeros(1, 1, 3), "label": torch.tensor([[[1, 1, 0]]])}],
        torch.nn.Identity(),
        inferer=lambda inputs, net: torch.tensor([[[1, 0, 0]]]),
        key_val_metric={"dice": VolumeDice(labels, from_engine(["pred", "label"]))},
        val_handlers=[SaveScores(tmp_path / "deep" / "evaluation.json")],
    ).run()
    found = json.loads((tmp_path / "deep" / "evaluation.json").read_text())
    assert found == {"mean_dice": 2 / 3, "dice": {"liver": 2 / 3, "spleen": None}, "cases": 1}


def test_what_else_was_scored_stands_beside_it(tmp_path):
    labels = LabelMap(["liver", "spleen"])
    output = from_engine(["pred", "label"])
    truths = torch.tensor([[[1, 1, 0, 0]], [[1, 1, 1, 1]]])
    SupervisedEvaluator(
        torch.device("cpu"),
        [{"image": torch.zeros(2, 1, 4), "label": truths}],
        torch.nn.Identity(),
        inferer=lambda inputs, net: torch.tensor([[[1, 1, 0, 0]], [[1, 0, 0, 0]]]),
        key_val_metric={"val_mean_dice": VolumeDice(labels, output)},
        additional_metrics={"val_f1": PixelF1(labels, output), "val_slice_dice": VolumeDice(labels, output)},
        val_handlers=[SaveScores(tmp_path / "evaluation.json")],
    ).run()
    found = json.loads((tmp_path / "evaluation.json").read_text())
    dice, f1 = (1 + 2 / 5) / 2, 2 * 3 / (3 + 6)
    assert found == {
        "mean_dice": dice,
        "dice": {"liver": dice, "spleen": None},
        "cases": 2,
        "mean_f1": f1,
        "f1": {"liver": f1, "spleen": None},
        "mean_slice_dice": dice,
        "slice_dice": {"liver": dice, "spleen": None},
    }
