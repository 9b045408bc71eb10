"""Ignite metrics over cases, scans and pixels, compared with the definitions."""

import datetime

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from monai.data import MetaTensor

from medseg.errors import ConfigError, GeometryError, LabelError
from medseg.labels import LabelMap
from medseg.metrics import PixelF1, ScanDice, VolumeDice, VolumeScores, structure_scores
from medseg.metrics.ignite_metrics import scans_of_batch

pytestmark = pytest.mark.slow

LABELS = LabelMap(["liver", "spleen", "kidney_left"])


def engine_of(metric, name="dice"):
    engine = Engine(lambda _, batch: batch)
    metric.attach(engine, name)
    return engine


def run(cases, metric=None):
    """The metric as an evaluator uses it: batches of lists of (1, *spatial)."""
    engine = engine_of(metric or VolumeDice(LABELS))
    engine.run([tuple([torch.tensor(part)[None]] if i < 2 else [part] for i, part in enumerate(one)) for one in cases])
    return engine.state


def test_the_mean_is_over_structures_and_each_over_its_cases():
    liver_and_spleen = ([1, 1, 2, 0], [1, 1, 2, 2])  # prediction, truth: liver 1, spleen 2/3
    liver_alone = ([1, 0, 0, 0], [1, 1, 0, 0])  # liver 2/3
    state = run([liver_and_spleen, liver_alone])
    liver, spleen = (1 + 2 / 3) / 2, 2 / 3
    assert state.metrics["dice"] == pytest.approx((liver + spleen) / 2)
    details = state.metric_details["dice"]
    assert details["by_structure"] == {
        "liver": pytest.approx(liver),
        "spleen": pytest.approx(spleen),
        "kidney_left": None,
    }
    assert details["cases"] == 2


def test_present_missed_and_false_structures_are_counted():
    details = run(
        [
            ([1, 2, 0, 0], [1, 0, 0, 0]),  # spleen false
            ([1, 2, 0, 0], [1, 0, 3, 0]),  # spleen false, kidney missed
            ([0, 2, 0, 0], [1, 2, 0, 0]),  # liver missed
        ]
    ).metric_details["dice"]
    assert details["present"] == {"liver": 3, "spleen": 1, "kidney_left": 1}
    assert details["missed"] == {"liver": 1, "spleen": 0, "kidney_left": 1}
    assert details["false_positives"] == {"liver": 0, "spleen": 2, "kidney_left": 0}
    assert details["counted"] == {"liver": 3, "spleen": 3, "kidney_left": 1}
    assert details["by_structure"]["spleen"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("form", [["liver", "kidney_left"], torch.tensor([1, 1, 0, 1]), [True, True, False, True]])
def test_structures_that_were_not_annotated_take_no_part(form):
    state = run([([1, 2, 0, 0], [1, 0, 0, 0], form), ([1, 2, 0, 0], [1, 2, 0, 0], None)])
    details = state.metric_details["dice"]
    assert details["by_structure"] == {"liver": 1.0, "spleen": 1.0, "kidney_left": None}
    assert details["annotated"] == {"liver": 2, "spleen": 1, "kidney_left": 2}
    assert details["false_positives"]["spleen"] == 0
    assert state.metrics["dice"] == 1.0


@pytest.mark.parametrize("collated", [True, False])
def test_the_batch_tells_what_was_annotated_if_the_output_does_not(collated):
    metric = VolumeDice(LABELS)
    engine = Engine(lambda _, batch: ([torch.tensor([[1, 2, 0, 0]])] * 2, [torch.tensor([[1, 0, 0, 0]])] * 2))
    metric.attach(engine, "dice")
    rows = torch.tensor([[True, True, False, True], [True, True, True, True]])
    engine.run([{"annotated": rows} if collated else [{"annotated": row} for row in rows]])
    details = engine.state.metric_details["dice"]
    assert details["annotated"]["spleen"] == 1
    assert details["by_structure"]["spleen"] == 0.0  # false where it was annotated
    engine.run([{}])
    assert engine.state.metric_details["dice"]["annotated"]["spleen"] == 2


def test_an_empty_annotated_list_is_refused():
    with pytest.raises(LabelError, match="annotated: the list must name at least one structure"):
        VolumeDice(LABELS).update(([torch.tensor([[1]])], [torch.tensor([[1]])], [[]]))


def test_the_metric_is_reset_between_epochs():
    engine = engine_of(VolumeDice(LABELS))
    right, wrong = (([torch.tensor([[p]])], [torch.tensor([[1]])]) for p in (1, 2))
    engine.run([wrong])
    engine.run([right])
    assert engine.state.metrics["dice"] == 1.0


def test_computing_without_a_case_is_an_error():
    with pytest.raises(NotComputableError, match="at least one case"):
        VolumeDice(LABELS).compute()


def test_the_metric_takes_multilabel_masks():
    engine = engine_of(VolumeDice(LABELS, multilabel=True))
    masks = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]])
    engine.run([([masks], [masks])])
    assert engine.state.metrics["dice"] == 1.0
    assert engine.state.metric_details["dice"]["by_structure"]["kidney_left"] is None


def volumes(seed, spacing=(1.0, 2.0, 3.0)):
    rng = np.random.default_rng(seed)
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    return [MetaTensor(torch.tensor(one)[None], affine=affine) for one in rng.integers(0, 3, (2, 6, 5, 4))]


def test_scores_are_those_of_the_cases_with_the_spacing_of_each():
    cases = [volumes(0), volumes(1, (4.0, 1.0, 1.0))]
    metric = VolumeScores(LABELS, measures=["nsd_2mm", "hd95_mm", "dice"], tolerances_mm=[2])
    engine = engine_of(metric, "scores")
    engine.run([([prediction], [truth]) for prediction, truth in cases])
    rows = [
        structure_scores(p[0], t[0], LABELS, spacing, [2])
        for (p, t), spacing in zip(cases, [(1, 2, 3), (4, 1, 1)], strict=True)
    ]
    for measure in ("nsd_2mm", "hd95_mm", "dice"):
        liver = np.mean([row[0].measures[measure] for row in rows])
        spleen = np.mean([row[1].measures[measure] for row in rows])
        assert engine.state.metrics[measure] == pytest.approx((liver + spleen) / 2)
        details = engine.state.metric_details[measure]
        assert details["by_structure"] == {
            "liver": pytest.approx(liver),
            "spleen": pytest.approx(spleen),
            "kidney_left": None,
        }
        assert details["present"] == {"liver": 2, "spleen": 2, "kidney_left": 0}
    assert set(engine.state.metrics["scores"]) == {"nsd_2mm", "hd95_mm", "dice"}


def test_distances_need_a_spacing():
    plain = [[part.as_tensor()] for part in volumes(0)]
    with pytest.raises(GeometryError, match="VolumeScores: distances in mm need a spacing"):
        VolumeScores(LABELS).update(plain)
    given = VolumeScores(LABELS, spacing=(1.0, 2.0, 3.0))
    given.update(plain)
    from_affine = VolumeScores(LABELS)
    from_affine.update([[part] for part in volumes(0)])
    assert given.compute() == from_affine.compute()
    VolumeScores(LABELS, measures=["iou"]).update(plain)  # overlap needs none


def test_a_slice_takes_its_spacing_from_the_affine_too():
    affine = torch.diag(torch.tensor([2.0, 3.0, 1.0]))
    slices = [[MetaTensor(part[..., 0].as_tensor(), affine=affine)] for part in volumes(0)]
    result = VolumeScores(LABELS, measures=["asd_mm"])
    result.update(slices)
    expected = VolumeScores(LABELS, measures=["asd_mm"], spacing=(2.0, 3.0))
    expected.update(slices)
    assert result.compute() == expected.compute()


def test_an_unknown_measure_is_refused_with_the_nearest_one():
    with pytest.raises(ConfigError, match=r"measure 'nsd_1m': is not one of .*computed.*Did you mean 'nsd_1mm'"):
        VolumeScores(LABELS, measures=["nsd_1m"])


CASES = [([1, 1, 2, 0], [1, 1, 2, 2]), ([1, 0, 0, 0], [1, 1, 0, 0]), ([3, 2, 0, 0], [0, 2, 0, 0])]


def _rank(rank, folder):
    """One of two processes: rank 0 has two cases, rank 1 has one."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=datetime.timedelta(seconds=60)
    )
    state = run(CASES[:2] if rank == 0 else CASES[2:])
    torch.save((state.metrics, state.metric_details), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_ranks_with_unequal_cases_agree_with_one_process(tmp_path):
    torch.multiprocessing.start_processes(_rank, (tmp_path.as_posix(),), nprocs=2, start_method="spawn")
    alone = run(CASES)
    for rank in (0, 1):
        metrics, details = torch.load(tmp_path / f"{rank}.pt")
        assert metrics["dice"] == pytest.approx(alone.metrics["dice"], abs=1e-12)
        assert details == alone.metric_details


# PixelF1


def run_f1(batches, metric=None):
    engine = Engine(lambda _, batch: batch)
    (metric or PixelF1(LABELS)).attach(engine, "f1")
    engine.run(batches)
    return engine.state


def f1(predictions, truths, index):
    """From the definition: precision and recall over all pixels together."""
    predicted, true = (np.concatenate([np.ravel(one) for one in side]) == index for side in (predictions, truths))
    hits = np.count_nonzero(predicted & true)
    precision, recall = hits / np.count_nonzero(predicted), hits / np.count_nonzero(true)
    return 2 * precision * recall / (precision + recall)


def test_pixels_of_all_images_count_together():
    rng = np.random.default_rng(0)
    truths = [rng.integers(0, 3, (1, 9, 7)) for _ in range(5)]
    predictions = [np.where(rng.random(one.shape) < 0.3, rng.integers(0, 3, one.shape), one) for one in truths]
    pairs = zip(predictions, truths, strict=True)
    state = run_f1([([torch.tensor(one)], [torch.tensor(other)]) for one, other in pairs])
    expected = [f1(predictions, truths, index) for index in (1, 2)]
    assert state.metrics["f1"] == pytest.approx(np.mean(expected))
    assert state.metric_details["f1"] == {
        "by_structure": {
            "liver": pytest.approx(expected[0]),
            "spleen": pytest.approx(expected[1]),
            "kidney_left": None,
        },
        "cases": 5,
    }


def test_images_without_a_structure_count_only_when_it_is_predicted():
    empty, one = torch.tensor([[0, 0, 0]]), torch.tensor([[1, 1, 0]])
    assert run_f1([([empty, one], [empty, one])]).metrics["f1"] == 1.0
    assert run_f1([([one, one], [empty, one])]).metrics["f1"] == pytest.approx(2 / 3)


def test_pixel_f1_takes_multilabel_masks():
    truth = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 1, 1]])
    prediction = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 1, 1]])
    result = run_f1([([prediction], [truth])], PixelF1(LABELS, multilabel=True)).metric_details["f1"]["by_structure"]
    assert result == {"liver": pytest.approx(2 / 3), "spleen": None, "kidney_left": 1.0}


def test_pixel_f1_leaves_out_structures_that_were_not_annotated():
    annotated = [["liver"]]
    state = run_f1([([torch.tensor([[1, 2, 2]])], [torch.tensor([[1, 0, 0]])], annotated)])
    assert state.metric_details["f1"]["by_structure"] == {"liver": 1.0, "spleen": None, "kidney_left": None}
    with pytest.raises(LabelError, match="not among the annotated structures"):
        PixelF1(LABELS).update(([torch.tensor([[0]])], [torch.tensor([[2]])], annotated))


def test_pixel_f1_without_an_image_is_an_error():
    with pytest.raises(NotComputableError, match="at least one case"):
        PixelF1(LABELS).compute()


# ScanDice
SCANS = ("case1_day2", "case1_day9", "case7_day0")


def scans_of(seed=0):
    """Of each scan prediction and truth, `(slices, rows, columns)`; the last has no spleen, none has a kidney."""
    rng = np.random.default_rng(seed)
    result = {}
    for scan, slices in zip(SCANS, (4, 1, 3), strict=True):
        truth = rng.integers(0, 2 if scan == SCANS[2] else 3, (slices, 6, 5))
        truth[0] = 0  # a slice with nothing in it
        wrong = rng.random(truth.shape) < 0.2
        result[scan] = (np.where(wrong, rng.integers(0, truth.max() + 1, truth.shape), truth), truth)
    return result


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
    scans = scans_of()
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
def test_the_batches_of_an_engine_name_the_scan_of_each_slice(collated):
    scans = scans_of(seed=4)
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


def test_scan_dice_can_be_computed_between_slices():
    scans, metric = scans_of(seed=2), ScanDice(LABELS)
    slices = cut(scans)
    for prediction, truth, scan in slices[::2] + slices[1::2]:
        metric.update(([torch.tensor(prediction)[None]], [torch.tensor(truth)[None]], [None], [scan]))
        last = metric.compute()
    assert last == pytest.approx(by_hand(scans)[1], abs=1e-12)
    assert metric.compute() == last
    assert metric._reduced[2] == 3


def test_scan_dice_is_not_the_mean_of_its_slices():
    slices = [([1] * 9 + [0], [1] * 9 + [0]), ([0] * 10, [0] * 9 + [1])]  # all right, and one pixel missed
    lists = [[torch.tensor(one[side])[None] for one in slices] for side in (0, 1)]
    together, apart = ScanDice(LABELS), VolumeDice(LABELS)
    together.update((*lists, [None] * 2, ["scan"] * 2))
    apart.update(lists)
    assert together.compute() == pytest.approx(2 * 9 / (9 + 10))
    assert apart.compute() == pytest.approx(0.5)


def test_slices_without_a_scan_are_cases_of_their_own():
    slices = cut(scans_of())
    lists = [[torch.tensor(one[side])[None] for one in slices] for side in (0, 1)]
    result, expected = ScanDice(LABELS), VolumeDice(LABELS)
    for half in (slice(0, 5), slice(5, None)):  # and those of one batch are not those of the next
        result.update((lists[0][half], lists[1][half]))
        expected.update((lists[0][half], lists[1][half]))
    assert result.compute() == pytest.approx(expected.compute())
    assert result.compute() != pytest.approx(by_hand(scans_of())[1])


def test_scan_dice_leaves_out_structures_that_were_not_annotated():
    prediction, truth = [torch.tensor([[1, 2, 2, 0]])] * 2, [torch.tensor([[1, 0, 0, 0]]), torch.tensor([[1, 2, 0, 0]])]
    metric = ScanDice(LABELS)
    metric.update((prediction, truth, [["liver"], ["liver", "spleen"]], ["a", "a"]))
    metric.update(([torch.tensor([[0, 2]])], [torch.tensor([[1, 0]])], [["liver"]], ["b"]))
    # scan a: liver right, spleen by its second slice alone: 2 * 1 / (2 + 1); scan b: liver missed
    assert metric.compute() == pytest.approx(((1.0 + 0.0) / 2 + 2 / 3) / 2)


def test_scan_dice_takes_multilabel_masks():
    rng = np.random.default_rng(1)
    prediction, truth = rng.random((2, 3, 4, 6, 5)) < 0.5  # 3 structures, 4 slices
    metric = ScanDice(LABELS, multilabel=True)
    for k in (2, 0, 3, 1):
        metric.update(([torch.tensor(prediction[:, k])], [torch.tensor(truth[:, k])], [None], ["scan"]))
    expected = np.mean([dice(one, other) for one, other in zip(prediction, truth, strict=True)])
    assert metric.compute() == pytest.approx(expected)


def test_scan_dice_without_a_slice_is_an_error_and_of_empty_ones_nan():
    metric = ScanDice(LABELS)
    with pytest.raises(NotComputableError, match="ScanDice needs at least one case"):
        metric.compute()
    metric.update(([torch.tensor([[0, 0]])], [torch.tensor([[0, 0]])], [None], ["a"]))
    assert np.isnan(metric.compute())
    metric.reset()
    with pytest.raises(NotComputableError):
        metric.compute()


def test_the_scans_of_a_batch_come_from_its_items():
    collated = {"image": torch.zeros(2, 1, 4, 4), "scan": ["s1", ""], "case": ["a", "b"]}
    assert scans_of_batch(collated, 2) == ["s1", "b"]
    assert scans_of_batch([{"scan": "s1"}, {"case": "b"}, {}], 3) == ["s1", "b", ""]
    assert scans_of_batch({"patient": ["p", "p"]}, 2, "patient") == ["p", "p"]
    assert scans_of_batch({"image": torch.zeros(2, 1, 4, 4)}, 2) == ["", ""]
    assert scans_of_batch((torch.zeros(2), torch.zeros(2)), 2) == ["", ""]
