"""Slices counted scan by scan, against the volumes that they were cut from."""

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError

from medseg.labels import LabelMap
from medseg.metrics import ScanDice, VolumeDice
from medseg.metrics.scans import scans_of_batch

LABELS = LabelMap(["liver", "spleen", "kidney_left"])
SCANS = ("case1_day2", "case1_day9", "case7_day0")


def volumes(seed=0):
    """Of each scan prediction and truth, `(slices, rows, columns)`; the last has no spleen, none has a kidney."""
    rng = np.random.default_rng(seed)
    found = {}
    for scan, slices in zip(SCANS, (4, 1, 3), strict=True):
        truth = rng.integers(0, 2 if scan == SCANS[2] else 3, (slices, 6, 5))
        truth[0] = 0  # a slice with nothing in it
        wrong = rng.random(truth.shape) < 0.2
        found[scan] = (np.where(wrong, rng.integers(0, truth.max() + 1, truth.shape), truth), truth)
    return found


def dice(prediction, truth):
    """From the definition; NaN where nothing is in either."""
    both, all_of = np.count_nonzero(prediction & truth), np.count_nonzero(prediction) + np.count_nonzero(truth)
    return 2 * both / all_of if all_of else np.nan


def by_hand(scans):
    """By structure the mean over the scans that have it, and the mean over the structures."""
    table = np.array([[dice(p == index, t == index) for index in (1, 2, 3)] for p, t in scans.values()])
    with np.errstate(invalid="ignore"):
        means = np.nansum(table, axis=0) / np.count_nonzero(~np.isnan(table), axis=0)
    return means, float(np.nanmean(means))


def cut(scans):
    """The slices one by one: prediction, truth, scan."""
    return [(p[k], t[k], scan) for scan, (p, t) in scans.items() for k in range(len(t))]


def batched(slices, size):
    return [slices[start : start + size] for start in range(0, len(slices), size)]


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("size", [1, 3])
def test_slices_in_any_order_give_the_dice_of_their_volumes(order, size):
    scans = volumes()
    slices = cut(scans)
    if order:
        np.random.default_rng(order).shuffle(slices)
    metric = ScanDice(LABELS)
    for part in batched(slices, size):
        lists = [[torch.tensor(one[side])[None] for one in part] for side in (0, 1)]
        metric.update((*lists, [None] * len(part), [one[2] for one in part]))
    assert metric.compute() == pytest.approx(by_hand(scans)[1], abs=1e-12)
    assert metric.compute() == pytest.approx(by_hand(scans)[1], abs=1e-12)  # once more


@pytest.mark.parametrize("collated", [True, False])
def test_through_an_engine_whose_batches_say_which_scan_a_slice_is_of(collated):
    scans = volumes(seed=4)
    slices = cut(scans)[::-1]

    def batch(part):
        if collated:
            return {"scan": [one[2] for one in part], "case": [str(n) for n in range(len(part))], "part": part}
        return [{"scan": one[2], "part": one} for one in part]

    def step(_, batch):
        part = batch["part"] if collated else [one["part"] for one in batch]
        return tuple([torch.tensor(one[side])[None] for one in part] for side in (0, 1))

    engine = Engine(step)
    ScanDice(LABELS).attach(engine, "dice")
    engine.run([batch(part) for part in batched(slices, 3)], max_epochs=2)  # the second epoch forgets the first
    means, mean = by_hand(scans)
    assert engine.state.metrics["dice"] == pytest.approx(mean, abs=1e-12)
    details = engine.state.metric_details["dice"]
    liver, spleen = (pytest.approx(one) for one in means[:2])
    assert details["by_structure"] == {"liver": liver, "spleen": spleen, "kidney_left": None}
    assert details["cases"] == 3
    assert details["present"]["spleen"] == sum((truth == 2).any() for _, truth in scans.values())


def test_it_can_be_asked_between_slices():
    scans, metric = volumes(seed=2), ScanDice(LABELS)
    slices = cut(scans)
    for prediction, truth, scan in slices[::2] + slices[1::2]:
        metric.update(([torch.tensor(prediction)[None]], [torch.tensor(truth)[None]], [None], [scan]))
        last = metric.compute()
    assert last == pytest.approx(by_hand(scans)[1], abs=1e-12)
    assert metric.compute() == last
    assert metric._details("dice")["cases"] == 3


def test_it_is_not_the_mean_of_the_slices():
    slices = [([1] * 9 + [0], [1] * 9 + [0]), ([0] * 10, [0] * 9 + [1])]  # all right, and one pixel missed
    lists = [[torch.tensor(one[side])[None] for one in slices] for side in (0, 1)]
    together, apart = ScanDice(LABELS), VolumeDice(LABELS)
    together.update((*lists, [None] * 2, ["scan"] * 2))
    apart.update(lists)
    assert together.compute() == pytest.approx(2 * 9 / (9 + 10))
    assert apart.compute() == pytest.approx(0.5)


def test_slices_without_a_scan_are_cases_of_their_own():
    slices = cut(volumes())
    lists = [[torch.tensor(one[side])[None] for one in slices] for side in (0, 1)]
    found, wanted = ScanDice(LABELS), VolumeDice(LABELS)
    for half in (slice(0, 5), slice(5, None)):  # and those of one batch are not those of the next
        found.update((lists[0][half], lists[1][half]))
        wanted.update((lists[0][half], lists[1][half]))
    assert found.compute() == pytest.approx(wanted.compute())
    assert found.compute() != pytest.approx(by_hand(volumes())[1])


def test_structures_that_nobody_looked_for_take_no_part():
    prediction, truth = [torch.tensor([[1, 2, 2, 0]])] * 2, [torch.tensor([[1, 0, 0, 0]]), torch.tensor([[1, 2, 0, 0]])]
    metric = ScanDice(LABELS)
    metric.update((prediction, truth, [["liver"], ["liver", "spleen"]], ["a", "a"]))
    metric.update(([torch.tensor([[0, 2]])], [torch.tensor([[1, 0]])], [["liver"]], ["b"]))
    # scan a: liver right, spleen by its second slice alone: 2 * 1 / (2 + 1); scan b: liver missed
    assert metric.compute() == pytest.approx(((1.0 + 0.0) / 2 + 2 / 3) / 2)


def test_structures_that_overlap():
    rng = np.random.default_rng(1)
    prediction, truth = rng.random((2, 3, 4, 6, 5)) < 0.5  # 3 structures, 4 slices
    metric = ScanDice(LABELS, multilabel=True)
    for k in (2, 0, 3, 1):
        metric.update(([torch.tensor(prediction[:, k])], [torch.tensor(truth[:, k])], [None], ["scan"]))
    wanted = np.mean([dice(one, other) for one, other in zip(prediction, truth, strict=True)])
    assert metric.compute() == pytest.approx(wanted)


def test_of_no_slice_nothing_can_be_said_and_of_empty_ones_nan():
    metric = ScanDice(LABELS)
    with pytest.raises(NotComputableError, match="ScanDice needs at least one case"):
        metric.compute()
    metric.update(([torch.tensor([[0, 0]])], [torch.tensor([[0, 0]])], [None], ["a"]))
    assert np.isnan(metric.compute())
    metric.reset()
    with pytest.raises(NotComputableError):
        metric.compute()


def test_which_scan_the_slices_of_a_batch_are_of():
    collated = {"image": torch.zeros(2, 1, 4, 4), "scan": ["s1", ""], "case": ["a", "b"]}
    assert scans_of_batch(collated, 2) == ["s1", "b"]
    assert scans_of_batch([{"scan": "s1"}, {"case": "b"}, {}], 3) == ["s1", "b", ""]
    assert scans_of_batch({"patient": ["p", "p"]}, 2, "patient") == ["p", "p"]
    assert scans_of_batch({"image": torch.zeros(2, 1, 4, 4)}, 2) == ["", ""]
    assert scans_of_batch((torch.zeros(2), torch.zeros(2)), 2) == ["", ""]
