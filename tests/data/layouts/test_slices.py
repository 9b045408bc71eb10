import json
import logging
import re

import numpy as np
import pytest
from PIL import Image

from medseg.data import discover, open_dataset
from medseg.data.layouts.slices import PATIENT, collect, patient_of, slice_info
from medseg.data.slice_labels import read_slice
from medseg.errors import ConfigError, DataError, LabelError
from medseg.labels import LabelMap


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)


GREY, LABEL = np.arange(12).reshape(3, 4), np.eye(3, 4)
NAMES = ("p1_1", "p1_2", "p2_1", "p3_9")


@pytest.fixture
def plain(tmp_path):
    for name in NAMES:
        save(tmp_path / "set" / "images" / f"{name}.png", GREY)
        save(tmp_path / "set" / "masks" / f"{name}.png", LABEL)
    (tmp_path / "set" / "classes.json").write_text('{"background": [0, 0, 0], "liver": [1, 1, 1]}')
    return tmp_path / "set"


def test_one_folder_is_split_by_patient(plain):
    result = discover(plain)
    assert [case.id for case in result.cases] == sorted(NAMES)
    assert (result.structures, result.split.train) == (("liver",), ())
    assert result.case("p1_2").annotated == ("liver",)
    for validation in (0.2, 0.5, 0.8):
        split = result.with_split(validation=validation).split
        assert split.train
        assert split.val
        assert not {id.split("_")[0] for id in split.train} & {id.split("_")[0] for id in split.val}
        assert len(split.train) + len(split.val) == 4


def test_a_subset_may_name_patients(plain):
    split = discover(plain).with_split({"val": ["p1"]}).split
    assert (split.val, split.train) == (("p1_1", "p1_2"), ("p2_1", "p3_9"))


def test_a_pattern_finds_the_patient_in_a_name(plain, caplog):
    assert {case.patient for case in discover(plain, r"_(\d)").cases} == {"1", "2", "9"}
    with caplog.at_level(logging.WARNING):
        discover(plain, "p")
    assert "all slices are taken for those of one patient, 'p'" in caplog.text
    with pytest.raises(ConfigError, match="regular expression"):
        discover(plain, "(")


def test_a_name_tells_patient_scan_and_number():
    info = slice_info("case101_day20_slice_0078")
    assert (info.scan, info.number) == ("case101_day20", 78)
    assert patient_of("case101_day20_slice_0078", re.compile(PATIENT)) == "case101"
    assert (slice_info("10001_394").scan, slice_info("10001_394").number) == ("10001", 394)
    assert (slice_info("0007").scan, slice_info("0007").number) == ("", None)
    assert patient_of("0007", re.compile(PATIENT)) is None
    assert patient_of("a", re.compile("x")) is None
    assert PATIENT == r"[^_]+"


@pytest.mark.parametrize("valid", ["valid", "val"])
def test_subsets_come_from_folders_and_pairs_from_names(tmp_path, valid):
    for side, name in (("train", "a_1"), ("train", "a_2"), (valid, "b_1"), ("test", "c_1")):
        save(tmp_path / side / "images" / f"{name}.png", GREY)
        save(tmp_path / side / "masks" / f"{name}_mask.png", LABEL)
    (tmp_path / "test" / "masks" / "c_1_mask.png").unlink()
    result = discover(tmp_path)
    assert (result.split.train, result.split.val, result.split.test) == (("a_1", "a_2"), ("b_1",), ("c_1",))
    assert result.case("a_2").label == tmp_path / "train" / "masks" / "a_2_mask.png"
    assert result.case("c_1").label is None
    assert result.structures == ("class_1",)


def test_slices_of_one_name_in_two_subsets_are_two_cases(tmp_path):
    for side in ("train", "valid"):
        for name in ("1", "s_2"):
            save(tmp_path / side / "images" / f"{name}.png", GREY)
            save(tmp_path / side / "masks" / f"{name}.png", LABEL)
    result = discover(tmp_path)
    assert [case.id for case in result.cases] == ["train_1", "train_s_2", "valid_1", "valid_s_2"]
    assert result.patients["train_1"] != result.patients["valid_1"]
    assert result.case("train_s_2").slice.scan != result.case("valid_s_2").slice.scan


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_a_file_without_its_partner_is_named(plain, folder):
    (plain / folder / "p1_1.png").unlink()
    remaining = "masks" if folder == "images" else "images"
    with pytest.raises(DataError, match=rf"{remaining}/p1_1\.png: the \w+ has no \w+ of its name"):
        discover(plain)


def test_two_masks_of_one_image_are_refused(plain):
    save(plain / "masks" / "p1_1_seg.png", LABEL)
    with pytest.raises(DataError, match="'p1_1' has this mask already"):
        discover(plain)
    (plain / "masks" / "p1_1_seg.png").rename(plain / "masks" / "p1_1.bmp")
    with pytest.raises(DataError, match="has the same name"):
        discover(plain)


def test_one_mask_for_each_class_in_folders_or_by_ending(tmp_path):
    for name in ("a_1", "b_1"):
        save(tmp_path / "one" / "images" / f"{name}.png", GREY)
        save(tmp_path / "two" / "images" / f"{name}.png", GREY)
        for structure in ("liver", "small_bowel"):
            save(tmp_path / "one" / "masks" / structure / f"{name}.png", LABEL * 255)
            save(tmp_path / "two" / "masks" / f"{name}_{structure}.png", LABEL * 255)
    (tmp_path / "one" / "masks" / "liver" / "a_1.png").unlink()
    first, two = discover(tmp_path / "one"), discover(tmp_path / "two")
    assert first.structures == two.structures == ("liver", "small_bowel")
    assert first.case("a_1").annotated == ("small_bowel",)  # nobody looked for the liver there
    assert set(two.case("a_1").masks) == {"liver", "small_bowel"}
    (tmp_path / "two" / "classes.json").write_text(json.dumps({"livr": [1, 1, 1], "small_bowel": [2, 2, 2]}))
    with pytest.raises(LabelError, match=r"'liver' is not one of the set's classes\. Did you mean 'livr'"):
        discover(tmp_path / "two")


def test_images_and_masks_may_lie_in_one_folder(tmp_path):
    for name in ("a_1", "a_2", "b_1"):
        save(tmp_path / f"{name}.png", GREY)
        save(tmp_path / f"{name}_mask.png", LABEL * 255)
    result = discover(tmp_path)
    assert [case.id for case in result.cases] == ["a_1", "a_2", "b_1"]
    assert result.case("b_1").label == tmp_path / "b_1_mask.png"
    assert result.class_colors.codes == ((0,), (255,))


def test_volumes_and_images_without_masks_are_no_slices(tmp_path, save):
    save("set/images/a.nii.gz", np.zeros((2, 2, 2), np.uint8))
    save("set/masks/a.nii.gz", np.zeros((2, 2, 2), np.uint8))
    (tmp_path / "only").mkdir()
    Image.new("L", (3, 3)).save(tmp_path / "only" / "a.png")
    assert collect(tmp_path / "set") is None
    assert collect(tmp_path / "only") is None


def test_discovery_reads_names_and_not_pixels(plain):
    for path in (*(plain / "images").iterdir(), *(plain / "masks").iterdir()):
        path.write_bytes(b"")
    assert len(discover(plain).cases) == 4


def test_the_real_set_keeps_its_patients_apart(real):
    result = discover(real / "png_slices")
    assert (len(result.split.train), len(result.split.val)) == (78, 30)
    assert result.structures == ("pancreas", "kidney", "liver")
    assert not {result.patients[id] for id in result.split.train} & {result.patients[id] for id in result.split.val}


def subsets(root, **names):
    for folder, stems in names.items():
        for name in stems:
            save(root / folder / "images" / f"{name}.png", GREY)
            save(root / folder / "masks" / f"{name}.png", LABEL)
    return root


def test_slices_of_a_patient_in_two_subsets_are_refused(tmp_path):
    root = subsets(tmp_path, train=["ann_1", "ben_1"], valid=["ann_2"])
    with pytest.raises(
        DataError, match=r"patient 'ann' is in two subsets of the split \(ann_1 and ann_2\).*data#patient"
    ):
        discover(root)
    assert discover(root, patient=r".*").split.val == ("ann_2",)
    assert discover(root, exclude=["ann_1"]).split.train == ("ben_1",)


def test_patients_in_subsets_whose_names_restart_are_a_warning(tmp_path):
    for name in ("train/images/p1_1", "train/images/p2_1", "val/images/p1_1", "val/images/p3_1"):
        save(tmp_path / f"{name}.png", GREY)
        save(tmp_path / f"{name.replace('images', 'masks')}.png", LABEL)
    (tmp_path / "classes.json").write_text('{"background": [0, 0, 0], "liver": [1, 1, 1]}')
    (finding,) = collect(tmp_path).findings
    assert (finding.severity, finding.code) == ("warning", "patients-unclear")
    assert "'p1' is taken for another patient in each" in finding.message
    with pytest.raises(DataError, match="patient 'p1' is in two subsets"):
        discover(tmp_path, PATIENT)


def test_names_that_all_begin_alike_tell_no_patients(tmp_path):
    result = discover(subsets(tmp_path, train=["img_1", "img_2"], valid=["img_3"]))
    assert result.patients == {"img_1": "img_1", "img_2": "img_2", "img_3": "img_3"}
    with pytest.raises(DataError, match="patient 'img' is in two subsets"):
        discover(tmp_path, patient=r"[a-z]+")


@pytest.mark.parametrize("separator", ["_", "--"])
def test_numbered_files_of_one_class_are_one_class(tmp_path, separator):
    images, pieces = ("amos_0004_90", "amos_0005_12"), {}
    for name in images:
        save(tmp_path / "images" / f"{name}.png", GREY)
        for number, position in enumerate([(0, 0), (1, 2), (2, 3)]):
            piece = np.zeros((3, 4), np.uint8)
            piece[position] = 255
            pieces[position] = piece
            save(tmp_path / "masks" / f"{name}{separator}liver_{number:03d}.png", piece)
        save(tmp_path / "masks" / f"{name}{separator}small_bowel_000.png", LABEL * 255)
    result = discover(tmp_path)
    assert result.structures == ("liver", "small_bowel")
    content = read_slice(result.case(images[0]), result.class_colors)
    assert np.argwhere(content.masks["liver"]).tolist() == [[0, 0], [1, 2], [2, 3]]
    assert len(result.case(images[0]).files()) == 5
    codes = [(finding.severity, finding.code) for finding in collect(tmp_path).findings]
    assert ("note", "mask-pieces") in codes
    labels = LabelMap(["liver", "small_bowel"])
    opened = open_dataset(tmp_path, labels, tmp_path / "cache", slices=True, split={"val": ["amos_0005_12"]})
    with Image.open(opened.case(images[0]).label) as image:
        assert (np.asarray(image) == 1)[1, 2]


def test_numbers_that_a_class_has_in_its_name_stay(tmp_path):
    save(tmp_path / "images" / "a_1.png", GREY)
    for name in ("rib_left_1", "rib_left_2", "node_001", "node_002"):
        save(tmp_path / "masks" / f"a_1_{name}.png", LABEL * 255)
    assert discover(tmp_path).structures == ("node", "rib_left_1", "rib_left_2")
    names = ("node_001", "node_002", "rib_left_1", "rib_left_2")
    (tmp_path / "classes.json").write_text(json.dumps({name: [9, 9, k] for k, name in enumerate(names)}))
    assert tuple(discover(tmp_path).case("a_1").masks) == names
    save(tmp_path / "masks" / "a_1_node_002_mask.png", LABEL * 255)
    with pytest.raises((DataError, LabelError)):
        discover(tmp_path)


@pytest.mark.parametrize("suffix", [".webp", ".gif", ".jp2"])
def test_pictures_in_other_formats_are_named(plain, suffix, caplog):
    path = plain / "images" / f"p9_1{suffix}"
    path.write_bytes(b"any")
    with caplog.at_level(logging.WARNING):
        assert len(discover(plain).cases) == 4
    assert f"p9_1{suffix}: the file is not read" in caplog.text
    for image in (plain / "images").glob("*.png"):
        image.rename(image.with_suffix(suffix))
    with pytest.raises(DataError, match=r"images: none of its 5 images is in a format that is read"):
        discover(plain)
