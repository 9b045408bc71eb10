"""Errors of the data room and of the words, as a user sees them."""

import numpy as np
import pytest

from medseg.cases import Case, DatasetIndex, Split
from medseg.data import PrepareConfig, discover, merge_masks, open_dataset, prepare, read_store
from medseg.data.class_colors import decode_mask
from medseg.errors import ConfigError, DataError, GeometryError, LabelError, OutputError
from medseg.grid import Grid
from medseg.image_io_2d import ClassColors, Image2D, read_image_2d
from medseg.labels import LabelMap


def test_a_patient_in_two_subsets(case, save):
    save("set/s0002/ct.nii.gz", np.zeros((2, 2, 2), np.int16))
    save("set/s0002/segmentations/liver.nii.gz", np.zeros((2, 2, 2), np.uint8))
    (case / "meta.csv").write_text("image_id;split;patient\ns0001;train;ann\ns0002;val;ann\n")
    with pytest.raises(DataError) as error:
        discover(case)
    assert str(error.value) == (
        f"{case}: patient 'ann' is in two subsets of the split (s0001 and s0002). Keep all cases of a patient in one "
        "subset; otherwise the scores are too high. For 2D slices, the setting data#patient says how the patient is "
        "read from a file name."
    )


def test_files_of_a_data_set(case, tmp_path):
    masks = case / "s0001" / "segmentations"
    (masks / "liver.nii.gz").rename(masks / "livr.nii.gz")
    with pytest.raises(LabelError) as error:
        discover(case)
    assert str(error.value) == (
        f"{masks}/livr.nii.gz: 'livr' is no structure of TotalSegmentator (117 in v2, 104 in v1). Did you mean 'liver'?"
    )
    (case / "s0001" / "ct.nii.gz").unlink()
    with pytest.raises(DataError) as error:
        discover(case)
    assert str(error.value) == f"{case}/s0001/ct.nii.gz: the case has no CT. Fetch it, or remove the folder."
    with pytest.raises(DataError) as error:
        discover(tmp_path / "nowhere")
    assert str(error.value) == f"{tmp_path}/nowhere: there is no such folder."


def test_masks_that_do_not_fit(case, save):
    masks, labels = discover(case).cases[0].masks, LabelMap(["liver", "spleen"])
    image, affine = case / "s0001" / "ct.nii.gz", np.diag([2.0, 2.0, 3.0, 1.0])
    save("set/s0001/segmentations/liver.nii.gz", np.zeros((12, 10, 7), np.uint8), affine)
    with pytest.raises(GeometryError) as error:
        merge_masks(image, masks, labels)
    assert str(error.value) == (
        f"{masks['liver']}: its shape (12, 10, 7) differs from the shape (12, 10, 8) of {image}. "
        "Resample it onto the image's grid, or leave it out."
    )
    save("set/s0001/segmentations/liver.nii.gz", np.full((12, 10, 8), 3, np.uint8), affine)
    with pytest.raises(DataError) as error:
        merge_masks(image, masks, labels)
    assert str(error.value) == (
        f"{masks['liver']}: a binary mask holds 0 and 1, but 960 of its voxels have other values (such as 3). "
        "If values above half of 3 mean the structure, add --binarize 0.5 (training, Python: binarize=0.5)."
    )


def test_settings_of_the_data_room(case, tmp_path):
    with pytest.raises(DataError) as error:
        prepare(case, case / "out")
    assert str(error.value) == (
        f"{case}/out: the folder must not lie inside the source {case}, nor hold it. Choose a folder beside it."
    )
    with pytest.raises(DataError) as error:
        PrepareConfig(axis=3)
    assert str(error.value) == "axis: it must be 0, 1 or 2 (got 3)."
    with pytest.raises(ConfigError) as error:
        open_dataset(case, LabelMap(["liver"]), tmp_path / "cache", {"train": ["s0001"]}, use_store=True)
    assert str(error.value) == f"data#use_store: {case} has no slice store. Make one: medseg data prepare --store."
    with pytest.raises(DataError) as error:
        read_store(tmp_path, "s0001")
    assert str(error.value) == (
        f"{tmp_path}/s0001.label.slices: this file of the slice store is missing. Prepare the set again."
    )


def test_images_and_colors(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError) as error:
        read_image_2d(tmp_path / "a.png")
    assert str(error.value) == f"{tmp_path}/a.png: the file is empty. Download or copy it again."
    with pytest.raises(LabelError) as error:
        decode_mask(Image2D(np.array([[0, 7, 7]], np.uint8), 255), ClassColors.indexed(("background", "a")), "m.png")
    assert str(error.value) == (
        "m.png: 2 pixels have values that no class has (7 in 2 pixels; the classes have 0, 1). "
        "Name them in classes.json, or correct the mask."
    )


def test_errors_of_the_words(tmp_path):
    dataset = DatasetIndex(tmp_path, (Case("s0001", tmp_path / "a.nii.gz"),), ("liver",), split=Split(("s0001",)))
    with pytest.raises(DataError) as error:
        dataset.subset("val")
    assert str(error.value) == (
        f"{tmp_path}: there is no case to validate on (the split has 1 train, 0 val, 0 test). "
        "Name some with split#val, or in the split column of meta.csv."
    )
    with pytest.raises(LabelError) as error:
        dataset.choose("livr")
    assert str(error.value) == (
        f"structure 'livr': {tmp_path} has neither a structure nor a group of this name. Did you mean 'liver'?"
    )
    with pytest.raises(GeometryError) as error:
        Grid((4, 4), np.eye(4))
    assert str(error.value) == "shape: a grid needs three positive sizes (got (4, 4))."
    (tmp_path / "file").touch()
    with pytest.raises(OutputError) as error:
        LabelMap(["liver"]).save(tmp_path / "file" / "labels.json")
    assert str(error.value) == (
        f"{tmp_path}/file: the folder cannot be written (this is a file). Choose another path, or move the file away."
    )
