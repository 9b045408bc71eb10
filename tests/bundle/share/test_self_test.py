"""Masks held against masks; what is compared is every voxel."""

import json

import numpy as np
import pytest

from medseg.bundle import Bundle
from medseg.bundle.share import self_test
from medseg.bundle.share.self_test import SelfTest, compare_masks, kind_of
from medseg.data.nifti_writer import write_volume
from medseg.errors import ConfigError, DataError
from medseg.grid import Grid
from medseg.image_io_2d import write_image_2d
from medseg.labels import LabelMap
from medseg.metrics import dice_by_structure

pytestmark = pytest.mark.slow

NAMES = {0: "background", 1: "liver", 2: "spleen", 3: "aorta"}


def write(folder, name, label):
    folder.mkdir(parents=True, exist_ok=True)
    if name.endswith(".png"):
        write_image_2d(folder / name, label)
    else:
        write_volume(folder / name, label, Grid(label.shape, np.eye(4)))


def test_dice_and_voxels_are_those_of_all_masks_together(tmp_path):
    chance = np.random.default_rng(0)
    theirs = [chance.integers(0, 3, (5, 6, 7)).astype(np.uint8), chance.integers(0, 3, (8, 9)).astype(np.uint8)]
    mine = [mask.copy() for mask in theirs]
    mine[0][0] = 1
    mine[1][2:4] = 2
    for name, mask, truth in zip(("a.nii.gz", "sub/b.png"), mine, theirs, strict=True):
        write((tmp_path / "mine" / name).parent, name.rpartition("/")[2], mask)
        write((tmp_path / "theirs" / name).parent, name.rpartition("/")[2], truth)
    test = compare_masks(tmp_path / "mine", tmp_path / "theirs", NAMES)
    flat = [np.concatenate([mask.ravel() for mask in some]) for some in (mine, theirs)]
    expected = dice_by_structure(flat[0], flat[1], LabelMap(["liver", "spleen", "aorta"]))
    assert (test.total, test.files) == (5 * 6 * 7 + 72, 2)
    assert test.differing == int((flat[0] != flat[1]).sum())
    assert test.dice == pytest.approx({name: expected[name] for name in ("liver", "spleen")})
    assert test.mean_dice == pytest.approx(np.mean([expected["liver"], expected["spleen"]]))


def self_test_of(dice, differing, labelled=1000, sizes=None):
    sizes = dict.fromkeys(dice, 400) if sizes is None else sizes
    return SelfTest(dice, differing, 10**6, 1, labelled, sizes, len(dice), len(dice))


def test_a_thousandth_of_the_labeled_voxels_is_the_limit():
    assert self_test_of({"liver": 1.0}, 0).reproduced
    assert self_test_of({"liver": 1.0}, 1).reproduced
    assert not self_test_of({"liver": 1.0}, 2).reproduced
    assert not SelfTest({}, 0, 0, 0, 0, {}, 0, 0).close
    assert self_test_of({"liver": 1.0, "spleen": 0.96}, 2).close
    assert not self_test_of({"liver": 1.0, "spleen": 0.95}, 2).close
    assert str(self_test_of({"liver": 0.5}, 3)) == (
        "mean Dice 0.5000, 3 of 1000000 voxels differ (0.300 % of the labeled ones); liver changed"
    )


def test_a_changed_structure_is_not_rounding_even_if_small():
    assert not self_test_of({"liver": 1.0, "cyst": 0.0}, 20, 10**6, {"liver": 10**6, "cyst": 20}).close
    assert not self_test_of({"liver": 1.0, "cyst": 0.4}, 5, 10**6, {"liver": 10**6, "cyst": 6}).close
    assert not self_test_of({"liver": 1.0, "cyst": 0.4}, 5, 10**6, {"liver": 10**6, "cyst": 6}).reproduced
    assert self_test_of({"liver": 1.0, "cyst": 0.0}, 1, 10**6, {"liver": 10**6, "cyst": 1}).reproduced
    assert self_test_of({"cyst": 0.0}, 1, 1, {"cyst": 1}).close is False


def test_two_exchanged_small_structures_are_another_mask(tmp_path):
    theirs = np.zeros((40, 40, 40), np.uint8)
    theirs[:20], theirs[30, :4, :4], theirs[35, :4, :4] = 1, 2, 3
    mine = theirs.copy()
    mine[theirs == 2], mine[theirs == 3] = 3, 2
    write(tmp_path / "theirs", "a.nii.gz", theirs)
    write(tmp_path / "mine", "a.nii.gz", mine)
    test = compare_masks(tmp_path / "mine", tmp_path / "theirs", NAMES)
    assert (test.differing, test.dice["spleen"], test.dice["aorta"]) == (32, 0.0, 0.0)
    assert not test.reproduced
    assert not test.close
    assert "spleen, aorta changed" in str(test)


def test_coverage_counts_the_structures_of_the_masks(tmp_path):
    labels = LabelMap(["liver", "spleen", "aorta"])
    write(tmp_path / "expected", "a.nii.gz", np.array([[[0, 1, 3]]], np.uint8))
    assert self_test.coverage(tmp_path, labels) == "2 of 3 structures"
    test = compare_masks(tmp_path / "expected", tmp_path / "expected", NAMES)
    assert (test.covered, test.structures, test.labeled) == (2, 3, 2)
    write(tmp_path / "expected", "a.nii.gz", np.zeros((1, 2, 3), np.uint8))
    assert self_test.coverage(tmp_path, labels) == ""
    test = compare_masks(tmp_path / "expected", tmp_path / "expected", NAMES)
    assert (test.covered, test.reproduced) == (0, True)


def test_a_mask_with_another_affine_is_an_error(tmp_path):
    label = np.ones((2, 3, 4), np.uint8)
    for name, shift in (("theirs", 0.0), ("near", 1e-4), ("mirrored", None)):
        affine = np.diag([-1.0, 1, 1, 1]) if shift is None else np.eye(4) + np.eye(4, k=3) * shift
        (tmp_path / name).mkdir()
        write_volume(tmp_path / name / "a.nii.gz", label, Grid(label.shape, affine))
    assert compare_masks(tmp_path / "near", tmp_path / "theirs", NAMES).reproduced
    with pytest.raises(DataError, match="the mask of the self-test must have the affine"):
        compare_masks(tmp_path / "mirrored", tmp_path / "theirs", NAMES)


def test_masks_that_are_missing_or_of_another_shape_are_errors(tmp_path):
    write(tmp_path / "theirs", "a.nii.gz", np.zeros((2, 3, 4), np.uint8))
    with pytest.raises(DataError, match=r"the self-test gave no mask a\.nii\.gz"):
        compare_masks(tmp_path / "mine", tmp_path / "theirs", NAMES)
    write(tmp_path / "mine", "a.nii.gz", np.zeros((2, 3, 5), np.uint8))
    with pytest.raises(DataError, match=r"must have shape \(2, 3, 4\) \(got \(2, 3, 5\)\)"):
        compare_masks(tmp_path / "mine", tmp_path / "theirs", NAMES)
    with pytest.raises(DataError, match="the masks of the self-test are missing"):
        compare_masks(tmp_path / "theirs", tmp_path / "nothing", NAMES)


def bundle(folder, inference, **metadata):
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(inference))
    (folder / "configs" / "metadata.json").write_text(json.dumps({"name": "made-up", **metadata}))
    return Bundle(folder, trust=True)


PLACES = {"dataset_dir": None, "output_dir": "out"}


@pytest.mark.parametrize(
    ("inference", "metadata", "kind"),
    [
        ({**PLACES, "dataset": "$medseg.data.find_scans(@dataset_dir)"}, {}, "volume"),
        ({**PLACES, "dataset": "$medseg.data.slice_items(@dataset_dir)"}, {"data_type": "nibabel"}, "slices"),
        (PLACES, {"data_type": "nibabel"}, "volume"),
        (PLACES, {"data_type": "png"}, "slices"),
        (PLACES, {"data_type": "graph"}, None),
        ({"dataset_dir": None}, {"data_type": "nibabel"}, None),
    ],
)
def test_the_kind_of_input_is_read_from_the_configs(tmp_path, inference, metadata, kind):
    assert kind_of(bundle(tmp_path, inference, **metadata)) == kind


def test_a_bundle_of_slices_gets_png_images(tmp_path):
    """A config without a network of its own, that copies its input: what matters is what it is given."""
    content = {"imports": ["$import shutil"], "run": ["$shutil.copytree(@dataset_dir, @output_dir)"]}
    copier = bundle(tmp_path / "bundle", {**PLACES, **content}, data_type="png")
    assert self_test.make_self_test(copier, copier.root / "selftest")
    inputs = sorted(path.name for path in (copier.root / "selftest" / "input").iterdir())
    assert len(inputs) == 4
    assert all(name.endswith(".png") for name in inputs)
    record = json.loads((copier.root / "selftest" / "selftest.json").read_text())
    assert record["kind"] == "slices"
    test = self_test.run_self_test(copier)
    assert test is not None
    assert (test.differing, test.files, test.total) == (0, 4, 4 * 128 * 128)


def test_only_masks_are_kept_of_the_output(tmp_path):
    def infer(bundle, source, target, device, watch):
        write(target, "a.png", np.ones((4, 5), np.uint8))
        write(target / "colours", "a.png", np.ones((4, 5, 3), np.uint8))
        (target / "label_map.json").write_text("{}")

    copier = bundle(tmp_path, PLACES, data_type="png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(self_test, "infer", infer)
        assert self_test.make_self_test(copier, tmp_path / "selftest")
        assert [path.name for path in (tmp_path / "selftest" / "expected").rglob("*")] == ["a.png"]


def test_a_bundle_that_fails_or_writes_no_masks_is_one_error(tmp_path, caplog):
    ours = {**PLACES, "listed": "medseg.data.slice_items"}
    fails = bundle(tmp_path / "a", {**ours, "run": "$1 / 0"})
    with pytest.raises(ConfigError, match=r"inference\.json: run: this failed: ZeroDivisionError"):
        self_test.make_self_test(fails, tmp_path / "at")
    silent = bundle(tmp_path / "b", {**ours, "run": "$1"})
    with pytest.raises(ConfigError, match="its inference.json writes no masks to output_dir"):
        self_test.make_self_test(silent, tmp_path / "bt")
    unknown = bundle(tmp_path / "c", PLACES)
    assert not self_test.make_self_test(unknown, tmp_path / "ct")
    assert self_test.run_self_test(unknown) is None
    guessed = bundle(tmp_path / "d", {**PLACES, "run": "$1 / 0"}, data_type="png")
    assert not self_test.make_self_test(guessed, tmp_path / "dt")
    assert "ZeroDivisionError" in caplog.text
    assert not (tmp_path / "dt").exists()
