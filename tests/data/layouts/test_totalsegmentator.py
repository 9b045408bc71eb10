import logging
import unicodedata

import nibabel as nib
import numpy as np
import pytest

from medseg.catalogue import catalogue_v1, groups, in_order, version
from medseg.data import discover, open_dataset, prepare
from medseg.data.layouts import collect
from medseg.errors import DataError, LabelError
from medseg.evaluation import evaluate, find_sources
from medseg.labels import LabelMap


def test_a_case_is_found_with_its_masks(case):
    result = discover(case)
    assert [first.id for first in result.cases] == ["s0001"]
    assert result.structures == ("spleen", "liver")
    assert result.cases[0].annotated == ("liver", "spleen")
    assert result.cases[0].image == case / "s0001" / "ct.nii.gz"
    assert not result.split


def test_real_patients_are_found_with_their_split(real):
    result = discover(real / "totalseg_mini")
    assert [first.id for first in result.cases] == ["s0000", "s0001"]
    assert len(result.structures) == 117
    assert (result.split.train, result.split.val) == (("s0000",), ("s0001",))


def test_a_missing_ct_names_it(case):
    (case / "s0001" / "ct.nii.gz").unlink()
    with pytest.raises(DataError, match=r"s0001/ct\.nii\.gz: the case has no CT"):
        discover(case)


@pytest.mark.parametrize("keep_folder", [True, False])
def test_missing_masks_name_the_folder(case, keep_folder):
    for mask in (case / "s0001" / "segmentations").iterdir():
        mask.unlink()
    if not keep_folder:
        (case / "s0001" / "segmentations").rmdir()
    with pytest.raises(DataError, match="segmentations: the case has no masks"):
        discover(case)


def test_an_unknown_structure_names_the_file_and_the_nearest(case):
    masks = case / "s0001" / "segmentations"
    (masks / "liver.nii.gz").rename(masks / "livr.nii.gz")
    with pytest.raises(LabelError, match=r"livr\.nii\.gz.*Did you mean 'liver'"):
        discover(case)


def test_a_folder_that_is_no_case_is_left_out_with_a_warning(case, caplog):
    (case / "notes").mkdir()
    with caplog.at_level(logging.WARNING):
        assert len(discover(case).cases) == 1
    assert "notes" in caplog.text


def write_meta(root, text):
    (root / "meta.csv").write_text(text, encoding="utf-8")


def test_the_split_is_read_from_the_public_columns(case, save):
    save("set/s0002/ct.nii.gz", np.zeros((2, 2, 2), np.int16))
    save("set/s0002/segmentations/liver.nii.gz", np.zeros((2, 2, 2), np.uint8))
    write_meta(case, "\ufeffimage_id;age;split\ns0001;60;train\ns0002;70;val\ns0003;80;test\n")
    assert discover(case).split.train == ("s0001",)
    assert discover(case).split.val == ("s0002",)
    assert discover(case).split.test == ()


def test_a_case_without_a_split_beside_others_is_warned_about(case, save, caplog):
    save("set/s0002/ct.nii.gz", np.zeros((2, 2, 2), np.int16))
    save("set/s0002/segmentations/liver.nii.gz", np.zeros((2, 2, 2), np.uint8))
    write_meta(case, "image_id;split\ns0001;train\n")
    with caplog.at_level(logging.WARNING):
        discover(case)
    assert "s0002" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_id,split\ns0001,train\n", "separated by ';'"),
        ("", "separated by ';'"),
        ("image_id;split\ns0001;training\n", "'training' is no subset of a split"),
    ],
)
def test_a_broken_meta_csv_is_refused(case, text, message):
    write_meta(case, text)
    with pytest.raises(DataError, match=message):
        discover(case)


def test_the_104_names_of_version_1_are_known_in_their_order(case):
    masks = case / "s0001" / "segmentations"
    names = [entry["name"] for entry in catalogue_v1()]
    for name in names:
        if not (masks / f"{name}.nii.gz").exists():
            (masks / f"{name}.nii.gz").symlink_to(masks / "liver.nii.gz")
    result = discover(case)
    assert list(result.structures) == names
    assert version(result.structures) == 1


def test_versions_are_told_apart_by_what_only_one_of_them_has():
    assert version(groups()["all"]) == 2
    assert version(["spleen", "aorta"]) == 2
    mixed = ["face", "thyroid_gland", "aorta", "spleen"]
    assert version(mixed) == 2
    assert in_order(mixed) == ("spleen", "thyroid_gland", "aorta", "face")


def test_a_misspelt_name_of_version_1_is_refused(case):
    masks = case / "s0001" / "segmentations"
    (masks / "liver.nii.gz").rename(masks / "heart_miocardium.nii.gz")
    with pytest.raises(LabelError, match="Did you mean 'heart_myocardium'"):
        discover(case)


def test_names_that_differ_in_case_only_are_no_two_structures(case, save):
    save("set/s0001/segmentations/Liver.nii.gz", np.zeros((12, 10, 8), np.uint8))
    with pytest.raises(DataError, match=r"liver\.nii\.gz: Liver\.nii\.gz has the same name"):
        discover(case)


@pytest.mark.parametrize("name", ["liver.nii", "LIVER.NII.GZ", "Liver.Nii"])
def test_a_mask_is_read_whatever_the_spelling_of_its_suffix(case, name):
    masks = case / "s0001" / "segmentations"
    (masks / "liver.nii.gz").rename(masks / name)
    (case / "s0001" / "ct.nii.gz").rename(case / "s0001" / f"CT{name[5:]}")
    (masks / "._liver.nii.gz").write_bytes(b"mac")
    (masks / "Thumbs.db").write_bytes(b"windows")
    (case / "._s0001").mkdir()
    (case / "__MACOSX").mkdir()
    only = discover(case).cases[0]
    assert {structure: path.name for structure, path in only.masks.items()} == {
        "spleen": "spleen.nii.gz", "liver": name,
    }  # fmt: skip
    assert only.image.name == f"CT{name[5:]}"
    masks.rename(masks.with_name("Segmentations"))
    assert set(discover(case).cases[0].masks) == {"liver", "spleen"}
    assert set(find_sources(case)["s0001"].masks) == {"liver", "spleen"}
    assert [finding.code for finding in collect(case).findings] == []


def test_masks_stored_as_nii_are_annotated_like_all_others(real, tmp_path):
    root = real / "found" / "reports" / "06_masks_nii_ignored" / "dataset"
    dataset = discover(root)
    labels = LabelMap(["liver", "spleen"])
    suffixes = {case.masks["liver"].name for case in dataset.cases}
    assert suffixes == {"liver.nii", "liver.nii.gz"}
    assert all(case.annotation_flags(labels).all() for case in dataset.cases)
    opened = open_dataset(root, labels, tmp_path)
    for case in opened.cases:
        mask = np.asarray(nib.load(dataset.case(case.id).masks["liver"]).dataobj) > 0
        label = np.asarray(nib.load(case.label).dataobj)
        assert mask.any()
        assert (label[mask] > 0).all()
    prepared = discover(prepare(root, tmp_path / "out").datalist)
    assert all(set(case.annotated) == {"liver", "spleen"} for case in prepared.cases)
    assert evaluate(root, root).mean("dice") == 1.0


def test_a_structure_of_the_sets_own_is_one_however_its_cases_spell_it(case, save):
    save("set/s0002/ct.nii.gz", np.zeros((2, 2, 2), np.int16))
    for name in ("s0001/segmentations/Lésion", f"s0002/segmentations/{unicodedata.normalize('NFD', 'LÉSION')}"):
        save(f"set/{name}.nii.gz", np.zeros((2, 2, 2), np.uint8))
    assert discover(case).structures == ("spleen", "liver", "Lésion")


def test_two_masks_of_a_structure_are_refused(case):
    masks = case / "s0001" / "segmentations"
    (masks / "liver.nii").write_bytes(b"x")
    with pytest.raises(DataError, match=r"liver\.nii\.gz: liver\.nii has the same name"):
        discover(case)


def test_a_table_names_folders_however_they_are_spelled(case):
    (case / "s0001").rename(case / unicodedata.normalize("NFD", "Müller"))
    write_meta(case, f"image_id;split;patient\n{unicodedata.normalize('NFC', 'MÜLLER')};train;p1\n")
    result = discover(case)
    assert (result.split.train, result.patients) == (("Müller",), {"Müller": "p1"})
    assert result.with_split({"val": ["muller", "MÜLLER"][1:]}).split.val == ("Müller",)


def test_two_cases_whose_names_differ_in_case_only_are_refused(case, save):
    save("set/S0001/ct.nii.gz", np.zeros((2, 2, 2), np.int16))
    save("set/S0001/segmentations/liver.nii.gz", np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(DataError, match=r"s0001/ct\.nii\.gz: another case has the id 'S0001', which some file systems"):
        discover(case)


def test_a_missing_mask_is_unannotated_and_an_empty_one_absent(case, save):
    save("set/s0002/ct.nii.gz", np.zeros((2, 2, 2), np.int16))
    save("set/s0002/segmentations/liver.nii.gz", np.zeros((2, 2, 2), np.uint8))
    result = discover(case)
    assert result.structures == ("spleen", "liver")
    assert result.case("s0002").annotated == ("liver",)


def two_cts_of_a_patient(save, case, text):
    """Three cases of which s0001 and s0002 are of one patient."""
    for id in ("s0002", "s0003"):
        save(f"set/{id}/ct.nii.gz", np.zeros((2, 2, 2), np.int16))
        save(f"set/{id}/segmentations/liver.nii.gz", np.zeros((2, 2, 2), np.uint8))
    write_meta(case, text)


@pytest.mark.parametrize("column", ["patient", "patient_id", "subject", "subject_id"])
def test_two_cts_of_a_patient_stay_in_one_subset(case, save, column):
    two_cts_of_a_patient(save, case, f"image_id;{column}\ns0001;ann\ns0002;ann\ns0003;\n")
    result = discover(case)
    assert result.patients == {"s0001": "ann", "s0002": "ann", "s0003": "s0003"}
    for validation in (0.1, 0.5, 0.9):
        split = result.with_split(validation=validation).split
        assert {"s0001", "s0002"} in ({*split.train}, {*split.val})
    assert result.with_split({"val": ["ann"]}).split.train == ("s0003",)


@pytest.mark.parametrize("subset", ["val", "test"])
def test_a_table_that_separates_two_cts_of_a_patient_is_refused(case, save, subset):
    rows = f"image_id;split;patient\ns0001;train;ann\ns0002;{subset};ann\ns0003;train;ben\n"
    two_cts_of_a_patient(save, case, rows)
    with pytest.raises(DataError, match=r"patient 'ann' is in two subsets of the split \(s0001 and s0002\)"):
        discover(case)
    assert discover(case, exclude=["s0001"]).split.train == ("s0003",)
    with pytest.raises(DataError, match="patient 'ann' is in two subsets"):
        open_dataset(case, LabelMap(["liver"]), case.parent / "cache")
