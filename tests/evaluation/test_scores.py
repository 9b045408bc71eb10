import json
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from medseg.errors import DataError, LabelError, MedsegError
from medseg.evaluation import evaluate, evaluate_pairs, find_sources, match
from medseg.evaluation.scores import spacing_of
from medseg.grid import Grid
from medseg.metrics import structure_scores


def test_folders_are_scored_as_their_arrays_are(folders, kit):
    pairs = match(*map(find_sources, folders))
    result = evaluate_pairs(pairs, [2.0], workers=0)
    assert list(result.scores) == ["a", "b", "c"]
    truth = kit.renumber(kit.volume(), kit.TRUE, pairs.labels)
    for shift, case in enumerate("abc"):
        prediction = kit.renumber(kit.volume(shift), kit.TRUE, pairs.labels)
        expected = structure_scores(prediction, truth, pairs.labels, (2.0, 2.0, 3.0), [2.0])
        for first, second in zip(result.scores[case], expected, strict=True):
            assert first.measures == pytest.approx(second.measures, nan_ok=True)
            assert first.state == second.state


def test_several_processes_give_the_same_scores(folders):
    pairs = match(*map(find_sources, folders))
    alone, together = evaluate_pairs(pairs, workers=0).to_dict(), evaluate_pairs(pairs, workers=2).to_dict()
    assert json.dumps(alone) == json.dumps(together)


def test_the_worst_come_first_and_means_count_their_values(folders):
    content = evaluate_pairs(match(*map(find_sources, folders)), prediction="p", truth="t").to_dict()
    assert [case["case"] for case in content["cases"]] == ["c", "b", "a"]
    assert [first["structure"] for first in content["structures"]] == ["liver", "spleen", "kidney_left"]
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
    result = evaluate_pairs(match(*map(find_sources, folders)))
    assert list(result.scores) == ["a", "c"]
    assert "pred/b.nii.gz: its shape (11, 10, 8) differs from the shape (12, 10, 8) of " in result.failed["b"].replace(
        "\\", "/"
    )
    assert result.to_dict()["failed"] == result.failed


def test_the_first_reason_is_shown_when_no_case_can_be_scored(folders, put, kit):
    for case in "abc":
        put(f"pred/{case}.nii.gz", kit.volume()[:-1], kit.OTHER)
    with pytest.raises(DataError, match=r"evaluation: no case could be scored [(]3 failed[)].*shape"):
        evaluate_pairs(match(*map(find_sources, folders)))


def test_structures_that_are_not_annotated_in_a_case_are_not_scored_there(phantom, tmp_path):
    import shutil

    truth = tmp_path / "truth"
    shutil.copytree(phantom, truth)
    (truth / "p0001" / "segmentations" / "liver.nii.gz").unlink()
    pairs = match(find_sources(phantom), find_sources(truth), ["liver", "spleen"])
    content = evaluate_pairs(pairs).to_dict()
    liver = next(first for first in content["structures"] if first["structure"] == "liver")
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


def test_a_case_without_annotated_structures_cannot_be_scored(phantom, tmp_path):
    import shutil

    truth = tmp_path / "truth"
    shutil.copytree(phantom, truth)
    (truth / "p0001" / "segmentations" / "liver.nii.gz").unlink()
    result = evaluate_pairs(match(find_sources(phantom), find_sources(truth), ["liver"]))
    assert list(result.failed) == ["p0001"]
    assert "none of the structures to evaluate is annotated in the truth" in result.failed["p0001"]


def test_a_sheared_grid_is_measured_by_its_affine():
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    assert spacing_of(Grid((2, 2, 2), affine)) == (2.0, 3.0, 4.0)
    affine[0, 1] = 1.0
    assert np.array_equal(spacing_of(Grid((2, 2, 2), affine)), affine[:3, :3])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"samples": 0}, "there must be 1 or more [(]got 0[)]"), ({"tolerances_mm": [-1]}, "NSD")],
)
def test_meaningless_numbers_are_refused(folders, options, message):
    with pytest.raises(MedsegError, match=message):
        evaluate_pairs(match(*map(find_sources, folders)), **options)


def test_arrays_are_scored_as_folders_are(folders, kit):
    from_folders = evaluate(*folders, structures=["liver"])
    arrays = {case: (np.where(kit.volume(shift) == 1, 1, 0)) for shift, case in enumerate("abc")}
    truth = np.where(kit.volume() == 1, 1, 0)
    from_arrays = evaluate(arrays, dict.fromkeys("abc", truth), ["liver"], spacing=(2.0, 2.0, 3.0))
    for folder_row, array_row in zip(from_folders.rows(), from_arrays.rows(), strict=True):
        assert array_row == pytest.approx(folder_row)
    assert from_folders.measures == from_arrays.measures


def test_two_single_images_are_a_pair_whatever_their_names(folders, put, kit):
    evaluation = evaluate(folders[0] / "b.nii.gz", folders[1] / "a.nii.gz")
    assert list(evaluation.scores) == ["a"]
    assert 0.0 < evaluation.mean("dice") < 1.0
    image = nib.load(folders[0] / "b.nii.gz")
    in_memory = evaluate(image, nib.load(folders[1] / "a.nii.gz"))  # matched by the names in their headers
    assert list(in_memory.scores) == ["truth"]
    assert in_memory.mean("dice") == evaluation.mean("dice")
    with pytest.raises(DataError, match="they have no case in common"):
        evaluate({"a": image}, {"b": image}, kit.TRUE)


def test_labels_of_a_prediction_in_memory_are_matched_by_name(kit):
    prediction = SimpleNamespace(
        array=kit.renumber(kit.volume(), kit.TRUE, kit.OTHER), affine=kit.AFFINE, labels=kit.OTHER, only=None
    )
    evaluation = evaluate(prediction, nib.Nifti1Image(kit.volume(), kit.AFFINE), kit.TRUE)
    assert {row["structure"]: row["dice"] for row in evaluation.rows()} == {
        "spleen": 1.0,
        "kidney_left": None,
        "liver": 1.0,
    }
    assert evaluation.pairs.not_in_truth == ("gizmo",)


def test_arrays_without_names_are_compared_value_by_value():
    truth, prediction = np.zeros((2, 6, 6), int)
    truth[1:3, 1:3] = 1
    prediction[1:3, 1:3] = 2
    rows = evaluate(prediction, truth).rows()
    assert [(row["structure"], row["state"]) for row in rows] == [("label_1", "missed"), ("label_2", "false positive")]


def test_arrays_without_spacing_have_no_distances_and_no_volumes():
    label = np.zeros((6, 6, 6), int)
    label[1:4, 1:4, 1:4] = 1
    (row,) = evaluate(label, label, ["liver"]).rows()
    assert (row["dice"], row["truth_voxels"]) == (1.0, 27)
    assert row["hd95_mm"] is row["nsd_1mm"] is row["truth_ml"] is None
    (row,) = evaluate(label, label, ["liver"], spacing=(1.0, 1.0, 2.0)).rows()
    assert (row["hd95_mm"], row["nsd_1mm"], row["truth_ml"]) == (0.0, 1.0, 0.054)


def test_tensors_with_a_channel_and_slices_are_taken():
    torch = pytest.importorskip("torch")
    label = torch.zeros(1, 5, 5, 5, dtype=torch.long)
    label[0, 1:3] = 1
    assert evaluate(label, label[0].numpy(), ["liver"]).mean() == 1.0
    assert evaluate(label[0, 1], label[0, 1], ["liver"], spacing=(1.0, 1.0)).rows()[0]["hd95_mm"] == 0.0


@pytest.mark.parametrize(
    ("prediction", "truth", "options", "message"),
    [
        (np.zeros((2, 2, 2)), np.zeros((2, 2, 3)), {}, r"prediction must have the truth's shape \(2, 2, 3\) \(got \(2"),
        (np.zeros(4), np.zeros(4), {}, r"a label map must have 2 or 3 axes \(shape \(4,\)\)"),
        (np.full((2, 2, 2), 0.5), np.ones((2, 2, 2)), {}, "a binary mask holds 0 and 1, but 8 of its"),
        (np.full((2, 2, 2), np.nan), np.ones((2, 2, 2)), {}, "need names [(]got nan[)]"),
        (np.full((2, 2, 2), -1), np.ones((2, 2, 2)), {}, "between 0 and 1 [(]got -1 to -1[)]"),
        (np.full((2, 2, 2), 900), np.ones((2, 2, 2)), {}, "values above 255 need names"),
        (np.full((2, 2, 2), 2), np.ones((2, 2, 2)), {"labels": ["liver"]}, "between 0 and 1 [(]got 2 to 2[)]"),
        (np.ones((2, 2, 2)), np.ones((2, 2, 2)), {"spacing": (1.0, 1.0)}, "one value for each axis [(]got [(]1"),
    ],
)
def test_arrays_that_are_no_pair_of_label_maps_are_refused(prediction, truth, options, message):
    with pytest.raises(MedsegError, match=message):
        evaluate(prediction, truth, **options)


def test_label_maps_in_other_formats_are_taken_with_names(tmp_path, put, kit):
    put("truth/a.nii.gz", kit.volume())
    header = (
        "NRRD0004\ntype: unsigned char\ndimension: 3\nspace: right-anterior-superior\nsizes: 12 10 8\n"
        "space directions: (2,0,0) (0,2,0) (0,0,3)\nencoding: raw\nspace origin: (0,0,0)\n\n"
    )
    (tmp_path / "a.nrrd").write_bytes(header.encode() + kit.volume().tobytes(order="F"))
    assert evaluate(tmp_path / "a.nrrd", tmp_path / "truth" / "a.nii.gz", kit.TRUE).mean() == 1.0
    with pytest.raises(LabelError, match="a.nrrd: its labels have no names"):
        evaluate(tmp_path / "a.nrrd", tmp_path / "truth" / "a.nii.gz")


def test_itk_images_are_refused_because_their_axes_are_reversed(kit):
    image = SimpleNamespace(GetDirection=lambda: None)
    with pytest.raises(MedsegError, match="truth: an ITK image cannot be evaluated as it is. Pass the path"):
        evaluate(kit.volume(), image, kit.TRUE)


def test_names_on_one_side_only_are_refused(folders, kit):
    with pytest.raises(LabelError, match="prediction in memory: its labels have no names.*Give labels="):
        evaluate(kit.volume(), folders[1] / "a.nii.gz")


def test_rows_are_a_table(folders):
    rows = evaluate(*folders).rows()
    assert len(rows) == 3 * 3
    assert len({tuple(row) for row in rows}) == 1
    assert list(rows[0])[:3] == ["case", "structure", "state"]
