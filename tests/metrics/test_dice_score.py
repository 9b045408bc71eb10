"""Compare the stateful metric with torchmetrics, MONAI, and the functions on arrays."""

import datetime

import numpy as np
import pytest
import torch
import torchmetrics.segmentation
from monai.metrics import DiceMetric
from monai.networks.utils import one_hot

from medseg.errors import ConfigError, GeometryError, LabelError
from medseg.metrics import DiceScore, confusion_matrix, dice

CLASSES = 4


def batches(seed=0, count=3):
    """Yield logits and class indices in which every class is present in every case."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        target = torch.randint(0, CLASSES, (2, 1, 9, 8, 7), generator=generator)
        yield torch.rand(2, CLASSES, 9, 8, 7, generator=generator) + 0.3 * one_hot(target, CLASSES), target


@pytest.mark.filterwarnings("ignore:DiceScore metric currently defaults:UserWarning")
@pytest.mark.parametrize("level", ["samplewise", "global"])
@pytest.mark.parametrize("average", ["macro", "micro", "none"])
@pytest.mark.parametrize("background", [True, False])
def test_values_are_those_of_torchmetrics(average, level, background):
    words = {"include_background": background, "average": average, "aggregation_level": level}
    ours = DiceScore(CLASSES, **words)
    theirs = torchmetrics.segmentation.DiceScore(CLASSES, input_format="index", **words)
    for logits, target in batches():
        ours.update(logits, target)
        theirs.update(logits.argmax(1), target[:, 0])
    assert torch.allclose(ours.compute(), theirs.compute(), atol=1e-6)


def test_macro_is_monais_dice_metric():
    ours, theirs = DiceScore(CLASSES), DiceMetric(include_background=False, reduction="mean")
    for logits, target in batches(1):
        ours.update(logits.argmax(1, keepdim=True), target)
        theirs(one_hot(logits.argmax(1, keepdim=True), CLASSES), one_hot(target, CLASSES))
    assert float(ours.compute()) == pytest.approx(float(theirs.aggregate()), abs=1e-6)


def test_absent_structures_have_no_value():
    metric = DiceScore(CLASSES, average=None)
    metric.update(torch.tensor([[[1, 1, 0]], [[2, 0, 0]]]), torch.tensor([[[1, 0, 0]], [[2, 0, 0]]]))
    assert torch.allclose(metric.compute(), torch.tensor([2 / 3, 1.0, torch.nan]), equal_nan=True)
    mean = DiceScore(CLASSES)
    assert mean.compute().isnan()
    mean.update(torch.tensor([[[1, 1, 0]]]), torch.tensor([[[1, 0, 0]]]))
    assert float(mean.compute()) == pytest.approx(2 / 3)
    mean.reset()
    assert mean.compute().isnan()


def test_ignored_voxels_take_no_part():
    logits, target = next(batches())
    masked = torch.where(torch.rand(target.shape) < 0.2, 255, target)
    metric = DiceScore(CLASSES, ignore_index=255, average="none", aggregation_level="global")
    metric.update(logits, masked)
    counted = masked[:, 0] != 255
    expected = dice(confusion_matrix(logits.argmax(1)[counted], target[:, 0][counted], CLASSES))
    assert np.allclose(metric.compute().numpy(), expected)
    with pytest.raises(LabelError, match="truth: must hold labels from 0 to 3"):
        DiceScore(CLASSES).update(logits, masked)


def test_wrong_arguments_and_shapes_are_refused():
    for wrong in ({"num_classes": 1}, {"average": "mean"}, {"aggregation_level": "case"}):
        with pytest.raises(ConfigError):
            DiceScore(**{"num_classes": 2, **wrong})
    with pytest.raises(GeometryError, match="do not fit a target"):
        DiceScore(CLASSES).update(torch.rand(2, 5, 8, 8), torch.zeros(2, 1, 8, 8, dtype=torch.int64))


def _rank(rank, folder):
    """Run in one of two processes: rank 0 has two batches, rank 1 has one."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=datetime.timedelta(seconds=60)
    )
    metric = DiceScore(CLASSES)
    for logits, target in list(batches())[:2] if rank == 0 else list(batches())[2:]:
        metric.update(logits, target)
    torch.save([metric.compute(), metric.compute()], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_ranks_with_unequal_batches_agree_with_one_process(tmp_path):
    torch.multiprocessing.start_processes(_rank, (tmp_path.as_posix(),), nprocs=2, start_method="spawn")
    metric = DiceScore(CLASSES)
    for batch in batches():
        metric.update(*batch)
    for rank in (0, 1):
        for value in torch.load(tmp_path / f"{rank}.pt"):
            assert float(value) == pytest.approx(float(metric.compute()), abs=1e-6)
