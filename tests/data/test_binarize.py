"""Masks that hold more than 0 and 1: refused everywhere with the option that takes them, and taken alike with it."""

import json

import nibabel as nib
import numpy as np
import pytest

from medseg.cases import Case
from medseg.data import PrepareConfig, check_dataset, convert, discover, merge_masks, open_dataset, prepare
from medseg.data.masks import binary_mask, label_values
from medseg.errors import DataError, InputError, LabelError
from medseg.evaluation import evaluate
from medseg.labels import LabelMap

OPTION = r"add --binarize 0\.5 \(training, Python: binarize=0\.5\)"
RAMP = np.linspace(0, 255, 52)
SOFT = {
    "0 and 255": np.array([0, 255, 255, 0], np.uint8),
    "0 and 0.9999": np.array([0, 0.9999, 0.9999, 0], np.float32),
    "soft edges": np.array([0.1, 0.6, 0.9999, 0.4]),
    "overshoot of splines": np.array([-0.07, 0.93, 1.08, 0.02]),
    "0 and 7": np.array([0, 7, 7, 0], np.int16),
    "soft edges of 255": np.concatenate([RAMP[RAMP < 120], RAMP[RAMP > 130]]).astype(np.uint8),
}


@pytest.mark.parametrize("values", SOFT.values(), ids=SOFT)
def test_a_mask_of_other_values_needs_the_option_that_its_error_names(values):
    with pytest.raises(DataError, match=OPTION):
        binary_mask("liver.nii.gz", values)
    expected = values > (0.5 if values.max() < 2 else values.max() / 2)
    assert expected.any()
    assert not expected.all()
    assert np.array_equal(binary_mask("liver.nii.gz", values, 0.5), expected)


@pytest.mark.parametrize(
    "values",
    [np.array([0, 1], np.uint8), np.array([0, 1], ">i2"), np.array([False, True]), np.array([0.0, 1.0]),
     np.array([0, 255]) * np.float32(1 / 255), np.array([0, 1 + 1e-6])],
)  # fmt: skip
def test_zero_and_one_of_any_type_are_a_mask(values):
    assert binary_mask("m", values).tolist() == [False, True]
    assert binary_mask("m", values, 0.5).tolist() == [False, True]


@pytest.mark.parametrize(
    "values",
    [[0, 1, 2, 3], [0, 1, 255], [0, 127, 255], [0, 1, 117, 60], [0, -1], [0.5, 1.7, 3], [0, np.nan], [0, np.inf]],
)
def test_what_seems_a_label_map_or_is_no_number_is_refused_even_with_the_option(values):
    with pytest.raises(DataError, match="label map needs its names|NaN or infinite"):
        binary_mask("m", np.array(values), 0.5)


@pytest.mark.parametrize("share", [0, 1, -0.5, 255, "half", float("nan")])
def test_a_share_is_between_0_and_1(share, tmp_path):
    with pytest.raises(InputError, match="binarize: it must be between 0 and 1"):
        Case("a", tmp_path, binarize=share)


def test_a_label_map_of_one_structure_is_read_like_a_mask():
    one, two = LabelMap(["liver"]), LabelMap(["liver", "spleen"])
    assert label_values(np.array([0, 255]), one, "x", 0.5).tolist() == [0, 1]
    with pytest.raises(DataError, match=OPTION):
        label_values(np.array([0, 255]), one, "x")
    for values, labels in (([0, 255], two), ([0, 2], one), ([0, 117, 1], one)):
        with pytest.raises(LabelError, match=f"labels must be between 0 and {len(labels) - 1}"):
            label_values(np.array(values), labels, "x", 0.5)


@pytest.fixture
def white(case):
    """The small set with a mask of 0 and 255 and one of 0 and 0.9999, and the masks as they should be."""
    masks = case / "s0001" / "segmentations"
    expected = {}
    for path, factor, dtype in ((masks / "liver.nii.gz", 255, np.uint8), (masks / "spleen.nii.gz", 0.9999, np.float32)):
        image = nib.load(path)
        values = np.asarray(image.dataobj)
        expected[path.name.removesuffix(".nii.gz")] = values > 0
        nib.save(nib.Nifti1Image((values * factor).astype(dtype), image.affine), path)
    return case, expected


def test_check_prepare_convert_train_and_evaluate_refuse_and_take_it_alike(white, tmp_path):
    root, expected = white
    labels = LabelMap(["spleen", "liver"])
    codes = [finding for finding in check_dataset(root).findings if finding.severity == "error"]
    assert [finding.code for finding in codes] == ["mask-values", "mask-values"]
    assert all("--binarize 0.5" in finding.fix for finding in codes)
    assert not [finding for finding in check_dataset(root, binarize=0.5).findings if finding.code == "mask-values"]
    summary = check_dataset(root, binarize=0.5).cases[0]
    assert summary.voxels == {name: int(mask.sum()) for name, mask in expected.items()}

    split = {"train": ["s0001"], "val": ["s0001"]}
    calls = {
        "prepare": lambda share, out: prepare(root, out, PrepareConfig(binarize=share)),
        "convert": lambda share, out: convert(root, out, "nnunet", binarize=share),
        "train": lambda share, out: open_dataset(root, labels, out, split, allow_repeats=True, binarize=share),
        "evaluate": lambda share, out: evaluate(root, root, binarize=share),
    }
    for name, call in calls.items():
        with pytest.raises(DataError, match=OPTION):
            call(None, tmp_path / f"{name}-refused")
        result = call(0.5, tmp_path / name)
        if name == "evaluate":
            both = int((expected["liver"] & expected["spleen"]).sum())
            sizes = {row["structure"]: row["truth_voxels"] for row in result.rows()}
            assert sizes == {"spleen": expected["spleen"].sum(), "liver": expected["liver"].sum() - both}
            continue
        case = result.cases[0] if name == "train" else discover(tmp_path / name).cases[0]
        label = np.asarray(nib.load(case.label).dataobj)
        merged = merge_masks(case.image, discover(root).cases[0].masks, labels, binarize=0.5).label
        assert np.array_equal(label > 0, expected["liver"] | expected["spleen"])
        assert np.array_equal(merged > 0, label > 0)


@pytest.mark.parametrize("value", [255, 0.9999])
def test_label_maps_of_one_structure_are_taken_in_training_and_check_alike(save, tmp_path, value):
    voxels, labels = np.zeros((12, 10, 8), np.float32), LabelMap(["liver"])
    voxels[3:6, 2:5, 1:4] = value
    (tmp_path / "set").mkdir()
    labels.save(tmp_path / "set" / "label_map.json")
    for id in "ab":
        ct = np.random.default_rng(ord(id)).integers(-200, 200, voxels.shape).astype(np.int16)
        save(f"set/images/{id}.nii.gz", ct)
        save(f"set/labels/{id}.nii.gz", voxels)
    for share in (None, 0.5):
        codes = {finding.code for finding in check_dataset(tmp_path / "set", binarize=share).findings}
        assert ("mask-values" in codes) == (share is None)
    with pytest.raises(DataError, match=OPTION):
        open_dataset(tmp_path / "set", labels, tmp_path / "cache")
    for case in open_dataset(tmp_path / "set", labels, tmp_path / "cache", binarize=0.5).cases:
        assert np.array_equal(np.asarray(nib.load(case.label).dataobj), voxels > 0)


def test_another_share_makes_other_label_maps_and_old_ones_are_not_reused(white, tmp_path):
    root, _ = white
    masks = root / "s0001" / "segmentations" / "liver.nii.gz"
    image = nib.load(masks)
    ramp = np.linspace(0, 255, image.shape[0]).astype(np.uint8)[:, None, None] * np.ones(image.shape, np.uint8)
    nib.save(nib.Nifti1Image(ramp, image.affine), masks)
    sizes = []
    for share in (0.3, 0.8):
        out = tmp_path / f"{share}"
        prepare(root, out, PrepareConfig("liver", binarize=share))
        sizes.append(json.loads((out / "fingerprint.json").read_text())["structures"]["liver"]["voxels"])
    assert sizes[0] > 2 * sizes[1] > 0
    labels, split = LabelMap(["liver"]), {"train": ["s0001"], "val": ["s0001"]}
    paths = [
        open_dataset(root, labels, tmp_path / "cache", split, allow_repeats=True, binarize=share).cases[0].label
        for share in (0.3, 0.8)
    ]
    assert [int(np.asarray(nib.load(path).dataobj).sum()) for path in paths] == sizes
