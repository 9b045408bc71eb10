import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.catalogue import catalogue
from medseg.data.masks import combine_masks, merge_masks
from medseg.errors import DataError, GeometryError
from medseg.labels import LabelMap

LABELS = LabelMap(["liver", "spleen", "kidney_left"])


def masks_of(folder: Path) -> dict[str, Path]:
    return {path.name.removesuffix(".nii.gz"): path for path in sorted((folder / "segmentations").glob("*.nii.gz"))}


def load(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


def plain_merge(masks: dict[str, Path], labels: LabelMap, shape: tuple[int, ...]) -> np.ndarray:
    """An independent reading: all masks at once, the smallest by the catalogue's volume wins."""
    volumes = {entry["name"]: entry["volume_ml"] for entry in catalogue()}
    best, label = np.full(shape, np.inf), np.zeros(shape, int)
    for name in labels:
        if name in masks:
            wins = (load(masks[name]) > 0) & (volumes[name] < best)
            label[wins], best[wins] = labels.index(name), volumes[name]
    return label


def test_masks_merge_with_the_smaller_structure_on_top(case):
    folder = case / "s0001"
    merged = merge_masks(folder / "ct.nii.gz", masks_of(folder), LABELS)
    liver, spleen = load(folder / "segmentations/liver.nii.gz") > 0, load(folder / "segmentations/spleen.nii.gz") > 0
    assert merged.label.dtype == np.uint8
    assert np.array_equal(merged.label == LABELS.index("spleen"), spleen)
    assert np.array_equal(merged.label == LABELS.index("liver"), liver & ~spleen)
    assert merged.overlaps == {("spleen", "liver"): int((liver & spleen).sum())}
    assert merged.missing == ("kidney_left",)


def test_real_masks_merge_as_a_plain_reading_of_them_all(real):
    folder = real / "totalseg_mini" / "s0000"
    labels = LabelMap.totalsegmentator()
    merged = merge_masks(folder / "ct.nii.gz", masks_of(folder), labels)
    assert np.array_equal(merged.label, plain_merge(masks_of(folder), labels, merged.label.shape))
    assert np.count_nonzero(np.bincount(merged.label.ravel())[1:]) == 61


def test_the_phantoms_overlapping_masks_merge_as_a_plain_reading_of_them_all(phantom):
    labels, overlapped = LabelMap.totalsegmentator(), 0
    for folder in sorted(phantom.glob("p0*")):
        masks = masks_of(folder)
        assert len(masks) == 117
        merged = merge_masks(folder / "ct.nii.gz", masks, labels)
        assert np.array_equal(merged.label, plain_merge(masks, labels, merged.label.shape))
        claimed = sum(int((load(path) > 0).sum()) for path in masks.values())
        assert claimed - sum(merged.overlaps.values()) == np.count_nonzero(merged.label)
        overlapped += sum(merged.overlaps.values())
    assert overlapped > 0


def test_a_subset_of_structures_is_not_hidden_by_the_others(case):
    folder = case / "s0001"
    merged = merge_masks(folder / "ct.nii.gz", masks_of(folder), LabelMap(["liver"]))
    assert np.array_equal(merged.label, load(folder / "segmentations/liver.nii.gz"))


def test_a_mask_of_another_shape_is_refused(case, save):
    save("set/s0001/segmentations/liver.nii.gz", np.zeros((12, 10, 7), np.uint8), np.diag([2.0, 2, 3, 1]))
    folder = case / "s0001"
    with pytest.raises(GeometryError, match=r"liver\.nii\.gz: its shape .* differs from the shape .*ct\.nii\.gz"):
        merge_masks(folder / "ct.nii.gz", masks_of(folder), LABELS)


def test_a_mask_of_another_affine_is_refused_with_the_distance(case, save):
    affine = np.diag([2.0, 2, 3, 1])
    affine[0, 3] = 0.5
    save("set/s0001/segmentations/liver.nii.gz", np.zeros((12, 10, 8), np.uint8), affine)
    folder = case / "s0001"
    with pytest.raises(GeometryError, match=r"liver\.nii\.gz: it lies up to 0\.5 mm from"):
        merge_masks(folder / "ct.nii.gz", masks_of(folder), LABELS)


@pytest.mark.parametrize(("value", "kind"), [(255, np.uint8), (-1, np.int16), (0.5, np.float32)])
def test_a_mask_that_is_not_binary_is_refused(case, save, value, kind):
    mask = np.zeros((12, 10, 8), kind)
    mask[0, 0, 0] = value
    save("set/s0001/segmentations/liver.nii.gz", mask, np.diag([2.0, 2, 3, 1]))
    folder = case / "s0001"
    with pytest.raises(DataError, match=rf"liver\.nii\.gz.*binary mask.*{value}"):
        merge_masks(folder / "ct.nii.gz", masks_of(folder), LABELS)


def test_combinations_lose_nothing(phantom):
    labels = LabelMap.totalsegmentator("organs")
    for folder in sorted(phantom.glob("p0*")):
        masks = masks_of(folder)
        combined = combine_masks(folder / "ct.nii.gz", masks, labels)
        for channel, name in enumerate(labels):
            codes = [code for code, channels in enumerate(combined.combinations) if channel in channels]
            assert np.array_equal(np.isin(combined.codes, codes), load(masks[name]) > 0), name
        assert any(len(channels) > 1 for channels in combined.combinations) == (
            combined.codes.max() > 0 and sum((load(masks[name]) > 0).astype(int) for name in labels).max() > 1
        )


def test_masks_in_two_members_of_like_length_are_read_whole(case):
    folder = case / "s0001"
    path = folder / "segmentations" / "liver.nii.gz"
    expected = merge_masks(folder / "ct.nii.gz", masks_of(folder), LABELS).label
    content = gzip.decompress(path.read_bytes())
    half = len(content) // 2
    path.write_bytes(gzip.compress(content[:half]) + gzip.compress(content[half:]))
    assert len(content) == 2 * half
    assert np.array_equal(merge_masks(folder / "ct.nii.gz", masks_of(folder), LABELS).label, expected)


def test_a_declared_precedence_overrules_the_size(case):
    folder = case / "s0001"
    merged = merge_masks(folder / "ct.nii.gz", masks_of(folder), LABELS, ("liver",))
    assert np.array_equal(merged.label == 1, load(folder / "segmentations/liver.nii.gz") > 0)
    assert set(merged.overlaps) == {("liver", "spleen")}


def test_masks_of_any_type_and_compression_merge_alike(case, save):
    folder = case / "s0001"
    expected = merge_masks(folder / "ct.nii.gz", masks_of(folder), LABELS).label
    affine = nib.load(folder / "ct.nii.gz").affine
    liver = load(folder / "segmentations" / "liver.nii.gz")
    for dtype in (np.int16, np.float64, np.int8, ">u2"):
        save("set/s0001/segmentations/liver.nii.gz", liver.astype(dtype), affine)
        assert np.array_equal(merge_masks(folder / "ct.nii.gz", masks_of(folder), LABELS).label, expected)
    plain = save("set/s0001/liver.nii", liver, affine)
    assert np.array_equal(
        merge_masks(folder / "ct.nii.gz", {**masks_of(folder), "liver": plain}, LABELS).label, expected
    )
