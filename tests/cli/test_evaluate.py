import json
import re
import shutil

import nibabel as nib
import numpy as np
import pytest

from medseg.data import merge_masks, read_volume
from medseg.data.nifti_writer import read_label_names, write_label_map
from medseg.evaluation import find_sources
from medseg.labels import LabelMap

NAMES = LabelMap(["spleen", "liver", "kidney_left"])  # not the order of the truth


@pytest.fixture
def masks(phantom, tmp_path):
    """Predictions for the phantom's cases: the truth, moved by a voxel in one of them."""
    for index, (case, source) in enumerate(sorted(find_sources(phantom).items())):
        merged = merge_masks(source.image, source.masks, NAMES)
        label = np.roll(merged.label, 1, 0) if index == 1 else merged.label
        write_label_map(tmp_path / "masks" / f"{case}.nii.gz", label, source.image, NAMES)
    return tmp_path / "masks"


def result(folder):
    return json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))


def test_two_folders_are_compared_by_name(medseg, masks, phantom, tmp_path):
    out = tmp_path / "out"
    done = medseg("evaluate", masks, phantom, "-o", out, "--workers", 0, "--error-maps", 1)
    assert done.code == 0, done.err
    files = {"evaluation.json", "scores.csv", "structures.csv", "evaluation.html"}
    assert {path.name for path in out.iterdir()} == files
    content = result(out)
    assert {first["structure"] for first in content["structures"]} == set(NAMES.structures)
    dice = {case["case"]: case["mean"]["dice"] for case in content["cases"]}
    moved = content["cases"][0]["case"]
    assert 0.2 < dice.pop(moved) < 1.0
    assert set(dice.values()) == {1.0}
    assert "Worst structures" in done.out
    assert moved in done.out
    assert "Structures of the truth that the predictions lack, not evaluated: 1" in done.out
    assert (out / "evaluation.html").read_text(encoding="utf-8").count("data:image/jpeg") == 3
    again = ("evaluate", masks, phantom, "-o", out, "--workers", 0, "--error-maps", 0, "--json")
    refused = medseg(*again)
    assert refused.code == 1
    assert (
        "evaluation.json: the file exists already (and 3 more). Choose another path, or add --overwrite." in refused.err
    )
    printed = medseg(*again, "--overwrite").out
    assert json.loads(printed) == content


def test_a_structure_that_no_truth_has_is_told_by_its_voxels(medseg, tmp_path):
    truth, prediction = np.zeros((12, 10, 8), np.uint8), np.zeros((12, 10, 8), np.uint8)
    truth[2:5, 2:5, 2:5] = prediction[2:5, 2:5, 2:5] = 1
    prediction[7:9, 7:9, 4:7] = 2
    labels = LabelMap(["liver", "spleen"])
    image = tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(truth.astype(np.int16), np.diag([2.0, 2.0, 2.0, 1.0])), image)
    for side, label in (("truth", truth), ("masks", prediction)):
        write_label_map(tmp_path / side / "a.nii.gz", label, image, labels)
    done = medseg("evaluate", tmp_path / "masks", tmp_path / "truth", "-o", tmp_path / "out", "--workers", 0)
    assert done.code == 0, done.err
    assert "1 case, 2 structures, each case on the grid of its truth" in done.out
    assert re.search(r"spleen +invented: 12 voxels", done.out)
    assert "invented: 12 voxels" in (tmp_path / "out" / "evaluation.html").read_text(encoding="utf-8")
    content = result(tmp_path / "out")
    assert content["grid"] == "truth"
    assert {row["structure"]: row["invented_voxels"] for row in content["structures"]} == {"liver": 0, "spleen": 12}


def test_missing_cases_are_an_error_unless_left_out_on_purpose(medseg, masks, phantom, tmp_path):
    (masks / "p0000.nii.gz").unlink()
    done = medseg("evaluate", masks, phantom, "-o", tmp_path / "out", "--workers", 0)
    assert done.code == 1
    assert "1 truth without a prediction: p0000" in done.err
    assert not (tmp_path / "out" / "evaluation.json").exists()
    done = medseg("evaluate", masks, phantom, "-o", tmp_path / "out", "--partial", "--workers", 0, "--nsd", 2)
    assert done.code == 0, done.err
    assert "Cases without a prediction, left out of every mean: 1 (p0000)" in done.out
    assert result(tmp_path / "out")["measures"][-1] == "nsd_2mm"


def test_a_broken_case_fails_alone_and_the_exit_code_says_so(medseg, masks, phantom, tmp_path):
    label, grid = read_volume(masks / "p0001.nii.gz")
    moved = grid.affine.copy()
    moved[0, 3] += 1.0
    names = read_label_names(masks / "p0001.nii.gz")
    write_label_map(masks / "p0001.nii.gz", label, type(grid)(grid.shape, moved), names)
    done = medseg("evaluate", masks, phantom, "-o", tmp_path / "out", "--workers", 0)
    assert done.code == 1
    assert "p0001.nii.gz: it lies up to" in done.err
    assert "1 case could not be evaluated and is not in the means." in done.err
    assert len(result(tmp_path / "out")["cases"]) == 3
    done = medseg("evaluate", masks, phantom, "-o", tmp_path / "out", "--workers", 0, "--resample", "--overwrite")
    assert done.code == 0
    assert any(case["notes"] for case in result(tmp_path / "out")["cases"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "-o", "x"], "Give a folder of predictions and one of truths, or a bundle and --data"),
        (["a", "b", "-o", "x"], "there is no such folder of predictions. If it is a bundle or a run, give --data"),
        (["a", "b", "--data", "c", "-o", "x"], "or a bundle and --data"),
        (["a", "b", "-o", "x", "--set", "k=1"], "it needs --data"),
        (
            ["a", "--data", "c", "-o", "x", "--truth-labels", "n.json"],
            "the labels have the names of the bundle's",
        ),
        (["a", "b"], "Missing option '-o'"),
    ],
)
def test_arguments_that_make_no_sense_together_are_wrong_use(medseg, arguments, message):
    done = medseg("evaluate", *arguments)
    assert done.code == 2
    assert message in done.err


def test_help_shows_both_ways(medseg):
    printed = medseg("evaluate", "--help").out
    assert "PREDICTION [TRUTH]" in printed
    assert "compare" in printed
    assert "--resample" in printed


def test_two_evaluations_are_compared(medseg, masks, phantom, tmp_path):
    first, second = tmp_path / "one", tmp_path / "other"
    for folder in (first, second):
        assert medseg("evaluate", masks, phantom, "-o", folder, "--workers", 0, "--error-maps", 0).code == 0
        for path in masks.iterdir():  # the second time everything is moved by another voxel
            label, grid = read_volume(path)
            write_label_map(path, np.roll(label, 1, 1), grid, NAMES)
    done = medseg(
        "evaluate", "compare", first, second, "-o", tmp_path / "cmp", "--measure", "dice", "--correction", "bh"
    )
    assert done.code == 0, done.err
    assert "4 cases in both" in done.out
    assert "No structure can be significantly better or worse: with 4 cases" in done.out
    content = json.loads((tmp_path / "cmp" / "comparison.json").read_text())
    assert all(row["difference"] < 0 for row in content["measures"]["dice"])
    lines = (tmp_path / "cmp" / "comparison.csv").read_text().splitlines()
    assert lines[0].startswith("measure,structure,n,only_first,only_second,mean_first,mean_second,difference")
    assert len(lines) == 1 + 3
    assert medseg("evaluate", "compare", first, tmp_path / "nowhere").code == 1
    printed = medseg("evaluate", "compare", first, second, "--measure", "dice", "--correction", "bh", "--json").out
    assert json.loads(printed) == content


def test_a_run_is_segmented_and_evaluated(medseg, trained, phantom, tmp_path):
    out = tmp_path / "out"
    done = medseg("evaluate", trained, "--data", phantom, "-o", out, "--workers", 0, "--error-maps", 1)
    assert done.code == 0, done.err
    content = result(out)
    assert [case["case"] for case in content["cases"]] == ["p0002"]  # the phantom's validation side
    mask = out / "predictions" / "p0002.nii.gz"
    written = mask.stat().st_mtime_ns
    labels = read_label_names(mask)
    assert {first["structure"] for first in content["structures"]} == set(labels.structures)
    truth = merge_masks(phantom / "p0002" / "ct.nii.gz", find_sources(phantom)["p0002"].masks, labels).label
    liver = next(row for row in content["cases"][0]["structures"] if row["structure"] == "liver")
    assert liver["truth_voxels"] == int((truth == labels.index("liver")).sum())
    assert liver["predicted_voxels"] == int((read_volume(mask)[0] == labels.index("liver")).sum())

    options = ("--data", phantom, "-o", out, "--workers", 0, "--error-maps", 0, "--overwrite")
    again = medseg("evaluate", trained, *options)
    assert again.code == 0, again.err
    assert mask.stat().st_mtime_ns == written  # the same weights: nothing to segment
    second = tmp_path / "run"
    shutil.copytree(trained, second)
    (second / "models" / "model.pt").touch()
    assert medseg("evaluate", second, *options).code == 0
    assert mask.stat().st_mtime_ns > written  # other weights


def test_scans_that_are_no_hu_are_noted_in_the_scores_and_on_the_page(medseg, trained, phantom, tmp_path):
    data, out = shutil.copytree(phantom, tmp_path / "set"), tmp_path / "out"
    image = nib.load(data / "p0002" / "ct.nii.gz")
    nib.save(nib.Nifti1Image((image.get_fdata() + 1024).astype(np.uint16), image.affine), data / "p0002" / "ct.nii.gz")
    done = medseg("evaluate", trained, "--data", data, "-o", out, "--workers", 0, "--error-maps", 0)
    assert done.code == 0, done.err
    (note,) = [note for note in result(out)["cases"][0]["notes"] if note.startswith("rescale-missing: ")]
    assert note in (out / "evaluation.html").read_text(encoding="utf-8")


def test_each_subset_of_a_split_can_be_evaluated(medseg, trained, phantom, tmp_path):
    out = tmp_path / "out"
    done = medseg(
        "evaluate", trained, "--data", phantom, "-o", out, "--subset", "test", "--workers", 0, "--error-maps", 0
    )
    assert done.code == 0, done.err
    assert [case["case"] for case in result(out)["cases"]] == ["p0003"]
    wrong = medseg("evaluate", trained, "--data", phantom, "-o", out, "--subset", "tset")
    assert wrong.code == 2
    assert "tset" in wrong.err
