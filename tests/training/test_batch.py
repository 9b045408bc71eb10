import pytest
import torch
from monai.losses import DiceCELoss as MonaiDiceCE

from medseg.errors import ConfigError
from medseg.losses import DiceCELoss
from medseg.training import PrepareBatch


def batch(**more):
    return {"image": torch.zeros(2, 1, 4, 4), "label": torch.zeros(2, 1, 4, 4, dtype=torch.int32), **more}


def test_a_loss_that_asks_gets_what_is_annotated_and_the_ids():
    known = torch.tensor([[True, True, False], [True, False, True]])
    given = batch(annotated=known, case=["a", "b"], combinations=[])
    image, targets = PrepareBatch(DiceCELoss())(given, "cpu")
    assert image is given["image"]
    assert set(targets) == {"label", "annotated", "case"}
    assert targets["label"] is given["label"]
    assert DiceCELoss()(torch.zeros(2, 3, 4, 4), targets).isfinite()


def test_another_loss_gets_the_label_alone():
    given = batch(annotated=torch.ones(2, 3, dtype=torch.bool), case=["a", "b"])
    assert PrepareBatch(MonaiDiceCE())(given, "cpu")[1] is given["label"]
    assert PrepareBatch(torch.nn.functional.cross_entropy)(batch(), "cpu")[1].shape == (2, 1, 4, 4)


def test_another_loss_never_takes_what_nobody_looked_for_as_background():
    given = batch(annotated=torch.tensor([[True, True, False], [True, True, True]]))
    with pytest.raises(
        ConfigError, match=r"DiceCELoss takes what is not annotated in a case for background.*MarginalLoss"
    ):
        PrepareBatch(MonaiDiceCE())(given, "cpu")


def test_arguments_of_the_transfer_are_passed_on():
    image, targets = PrepareBatch(DiceCELoss())(batch(), "meta", non_blocking=True)
    assert image.device.type == targets["label"].device.type == "meta"


def test_what_augments_the_batch_comes_before_the_loss():
    def twice(given, device, non_blocking):
        return given["image"] + 2, given["label"] + 1, "more"

    image, targets = PrepareBatch(DiceCELoss(), twice)(batch(annotated=torch.ones(2, 2, dtype=torch.bool)), "cpu")
    assert (image == 2).all()
    assert (targets["label"] == 1).all()
    assert targets["annotated"].all()
