from types import SimpleNamespace

import pytest
import torch

from medseg.monitoring.validation import by_structure, validation_scores


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


def test_nothing_measured_says_nothing():
    assert validation_scores(state({}, {})) == {}
    assert validation_scores(state({"a": 1.0}, {}, key=None)) == {}


def test_a_score_that_is_no_number_is_null():
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
def test_monais_table_is_named_as_far_as_names_are_known(names, wanted):
    table = torch.tensor([[0.25, torch.nan], [0.75, torch.nan]])
    assert by_structure(table, names) == wanted


def test_details_that_are_something_else_say_nothing():
    assert by_structure(None) == by_structure("text") == by_structure(torch.zeros(3)) == {}
