import datetime

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from monai.data import MetaTensor

from medseg.errors import ConfigError, GeometryError, LabelError
from medseg.labels import LabelMap
from medseg.metrics import VolumeDice, VolumeScores, structure_scores

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


def test_the_mean_is_over_structures_and_each_over_the_cases_where_it_is():
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


def test_who_was_present_missed_or_false_is_counted_by_name():
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
def test_structures_nobody_looked_for_in_a_case_take_no_part(form):
    state = run([([1, 2, 0, 0], [1, 0, 0, 0], form), ([1, 2, 0, 0], [1, 2, 0, 0], None)])
    details = state.metric_details["dice"]
    assert details["by_structure"] == {"liver": 1.0, "spleen": 1.0, "kidney_left": None}
    assert details["annotated"] == {"liver": 2, "spleen": 1, "kidney_left": 2}
    assert details["false_positives"]["spleen"] == 0
    assert state.metrics["dice"] == 1.0


@pytest.mark.parametrize("collated", [True, False])
def test_the_batch_says_what_was_annotated_where_the_output_does_not(collated):
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
    with pytest.raises(LabelError, match="annotated: must name at least one structure"):
        VolumeDice(LABELS).update(([torch.tensor([[1]])], [torch.tensor([[1]])], [[]]))


def test_the_metric_forgets_between_epochs():
    engine = engine_of(VolumeDice(LABELS))
    right, wrong = (([torch.tensor([[p]])], [torch.tensor([[1]])]) for p in (1, 2))
    engine.run([wrong])
    engine.run([right])
    assert engine.state.metrics["dice"] == 1.0


def test_without_a_case_there_is_nothing_to_compute():
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
    with pytest.raises(GeometryError, match="distances in mm: need a spacing"):
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
    found = VolumeScores(LABELS, measures=["asd_mm"])
    found.update(slices)
    wanted = VolumeScores(LABELS, measures=["asd_mm"], spacing=(2.0, 3.0))
    wanted.update(slices)
    assert found.compute() == wanted.compute()


def test_a_measure_that_is_none_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"measure 'nsd_1m': must be one that is computed.*Did you mean 'nsd_1mm'"):
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
