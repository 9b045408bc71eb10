"""The scores of a validation by name."""

import json
from types import SimpleNamespace

import pytest
import torch
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine

from medseg.labels import LabelMap
from medseg.metrics import PixelF1, VolumeDice
from medseg.monitoring import SaveScores
from medseg.monitoring.scores import by_structure, validation_scores


def state(metrics, details, key="val_mean_dice"):
    return SimpleNamespace(
        key_metric_name=key, metrics=metrics, metric_details=details, best_metric=0.9, best_metric_epoch=3,
        times={"COMPLETED": 1.23456},
    )  # fmt: skip


def test_the_key_metric_is_dice_and_others_have_their_own_names():
    found = validation_scores(
        state(
            {"val_mean_dice": 0.5, "val_f1": 0.75, "val_loss": 3.0},
            {
                "val_mean_dice": {"by_structure": {"liver": 0.5, "spleen": None}},
                "val_f1": {"by_structure": {"liver": 0.5, "spleen": 1.0}},
            },
        )
    )
    assert found == {
        "mean_dice": 0.5,
        "dice": {"liver": 0.5, "spleen": None},
        "best_dice": 0.9,
        "best_epoch": 3,
        "seconds": 1.235,
        "f1": {"liver": 0.5, "spleen": 1.0},
        "mean_f1": 0.75,
    }


def test_without_metrics_there_are_no_scores():
    assert validation_scores(state({}, {})) == {}
    assert validation_scores(state({"a": 1.0}, {}, key=None)) == {}


def test_a_nan_score_is_null():
    found = validation_scores(state({"d": float("nan")}, {"d": {"by_structure": {"liver": float("nan")}}}, key="d"))
    assert (found["mean_dice"], found["dice"]) == (None, {"liver": None})


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (("liver", "spleen"), {"liver": 0.5, "spleen": None}),
        (("liver",), {"liver": None}),  # the background is among the channels
        ((), {"class_1": 0.5, "class_2": None}),
    ],
)
def test_monais_table_is_named_where_names_are_known(names, wanted):
    table = torch.tensor([[0.25, torch.nan], [0.75, torch.nan]])
    assert by_structure(table, names) == wanted


def test_other_details_give_no_scores():
    assert by_structure(None) == by_structure("text") == by_structure(torch.zeros(3)) == {}


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
    assert found == {"grid": "network", "mean_dice": 2 / 3, "dice": {"liver": 2 / 3, "spleen": None}, "cases": 1}


def test_further_metrics_are_written_too(tmp_path):
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
        "grid": "network",
        "mean_dice": dice,
        "dice": {"liver": dice, "spleen": None},
        "cases": 2,
        "mean_f1": f1,
        "f1": {"liver": f1, "spleen": None},
        "mean_slice_dice": dice,
        "slice_dice": {"liver": dice, "spleen": None},
    }
