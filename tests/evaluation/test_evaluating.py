import json

import numpy as np
import pytest

from medseg.errors import DataError, MedsegError
from medseg.evaluation import evaluate, find_sources, match
from medseg.evaluation.evaluating import spacing_of
from medseg.grid import Grid
from medseg.metrics import structure_scores


def test_every_case_is_scored_as_its_arrays_are(folders, kit):
    pairs = match(*map(find_sources, folders))
    found = evaluate(pairs, [2.0], workers=0)
    assert list(found.scores) == ["a", "b", "c"]
    truth = kit.renumber(kit.volume(), kit.TRUE, pairs.labels)
    for shift, case in enumerate("abc"):
        prediction = kit.renumber(kit.volume(shift), kit.TRUE, pairs.labels)
        wanted = structure_scores(prediction, truth, pairs.labels, (2.0, 2.0, 3.0), [2.0])
        for one, other in zip(found.scores[case], wanted, strict=True):
            assert one.measures == pytest.approx(other.measures, nan_ok=True)
            assert one.state == other.state


def test_processes_find_the_same(folders):
    pairs = match(*map(find_sources, folders))
    alone, together = evaluate(pairs, workers=0).to_dict(), evaluate(pairs, workers=2).to_dict()
    assert json.dumps(alone) == json.dumps(together)


def test_the_worst_come_first_and_the_means_say_over_how_many(folders):
    content = evaluate(match(*map(find_sources, folders)), prediction="p", truth="t").to_dict()
    assert [case["case"] for case in content["cases"]] == ["c", "b", "a"]
    assert [one["structure"] for one in content["structures"]] == ["liver", "spleen", "kidney_left"]
    liver, spleen, kidney = content["structures"]
    assert liver["measures"]["dice"]["n"] == 3
    assert liver["measures"]["dice"]["low"] < liver["measures"]["dice"]["mean"] < 1.0
    assert spleen["measures"]["dice"] == {"mean": 1.0, "low": 1.0, "high": 1.0, "n": 3}
    assert kidney["measures"]["dice"] == {"mean": None, "low": None, "high": None, "n": 0}
    assert (kidney["annotated"], kidney["present"]) == (3, 0)
    assert content["mean"]["dice"]["n"] == 2  # over structures that have a value
    assert content["not_in_truth"] == ["gizmo"]


def test_a_broken_case_is_listed_and_the_others_are_scored(folders, put, kit):
    put("pred/b.nii.gz", kit.volume()[:-1], kit.OTHER)
    found = evaluate(match(*map(find_sources, folders)))
    assert list(found.scores) == ["a", "c"]
    assert "pred/b.nii.gz: must have the shape" in found.failed["b"].replace("\\", "/")
    assert found.to_dict()["failed"] == found.failed


def test_where_no_case_can_be_scored_the_first_reason_is_given(folders, put, kit):
    for case in "abc":
        put(f"pred/{case}.nii.gz", kit.volume()[:-1], kit.OTHER)
    with pytest.raises(DataError, match=r"at least one case that can be scored [(]3 that cannot.*shape"):
        evaluate(match(*map(find_sources, folders)))


def test_structures_nobody_annotated_in_a_case_take_no_part_there(phantom, tmp_path):
    import shutil

    truth = tmp_path / "truth"
    shutil.copytree(phantom, truth)
    (truth / "p0001" / "segmentations" / "liver.nii.gz").unlink()
    pairs = match(find_sources(phantom), find_sources(truth), ["liver", "spleen"])
    content = evaluate(pairs).to_dict()
    liver = next(one for one in content["structures"] if one["structure"] == "liver")
    cases = len(content["cases"])
    assert liver["annotated"] == liver["measures"]["dice"]["n"] == cases - 1
    assert liver["false_positive"] == 0
    row = next(
        row
        for case in content["cases"]
        if case["case"] == "p0001"
        for row in case["structures"]
        if row["structure"] == "liver"
    )
    assert row["state"] == "not annotated"
    assert row["dice"] is None


def test_a_case_in_which_nothing_was_annotated_cannot_be_scored(phantom, tmp_path):
    import shutil

    truth = tmp_path / "truth"
    shutil.copytree(phantom, truth)
    (truth / "p0001" / "segmentations" / "liver.nii.gz").unlink()
    found = evaluate(match(find_sources(phantom), find_sources(truth), ["liver"]))
    assert list(found.failed) == ["p0001"]
    assert "must have an annotated structure among those that are evaluated" in found.failed["p0001"]


def test_a_sheared_grid_is_measured_by_its_affine():
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    assert spacing_of(Grid((2, 2, 2), affine)) == (2.0, 3.0, 4.0)
    affine[0, 1] = 1.0
    assert np.array_equal(spacing_of(Grid((2, 2, 2), affine)), affine[:3, :3])


@pytest.mark.parametrize(
    ("options", "message"), [({"samples": 0}, "samples: must be 1"), ({"tolerances_mm": [-1]}, "NSD")]
)
def test_numbers_that_mean_nothing_are_refused(folders, options, message):
    with pytest.raises(MedsegError, match=message):
        evaluate(match(*map(find_sources, folders)), **options)
