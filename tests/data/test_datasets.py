import json
import logging
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from medseg.cases import Case
from medseg.data import PrepareConfig, convert, discover, merge_masks, open_dataset, prepare, training_items
from medseg.data.case_list import write_exclude
from medseg.data.datasets import read_label
from medseg.errors import ConfigError, DataError, GeometryError, LabelError
from medseg.labels import LabelMap

LABELS = LabelMap(["liver", "spleen", "kidney_left"])
BOTH = {"split": {"train": ["s0001"], "val": ["s0001"]}, "allow_repeats": True}


def load(path):
    return np.asanyarray(nib.load(path).dataobj)


def test_a_label_map_is_written_once_and_cached(case, tmp_path):
    first = open_dataset(case, LABELS, tmp_path / "cache", **BOTH)
    label = first.case("s0001").label
    merged = merge_masks(case / "s0001" / "ct.nii.gz", first.case("s0001").masks, LABELS)
    assert np.array_equal(load(label), merged.label)
    stamp = label.stat().st_mtime_ns
    assert open_dataset(case, LABELS, tmp_path / "cache", **BOTH).case("s0001").label == label
    assert label.stat().st_mtime_ns == stamp
    assert sorted(path.name for path in (case / "s0001").rglob("*.nii.gz")) == [
        "ct.nii.gz",
        "liver.nii.gz",
        "spleen.nii.gz",
    ]


def test_another_mask_or_other_structures_give_another_label_map(case, tmp_path, save):
    first = open_dataset(case, LABELS, tmp_path / "cache", **BOTH).case("s0001").label
    other = open_dataset(case, LabelMap(["liver"]), tmp_path / "cache", **BOTH).case("s0001").label
    save("set/s0001/segmentations/liver.nii.gz", np.ones((12, 10, 8), np.uint8), np.diag([2.0, 2, 3, 1]))
    changed = open_dataset(case, LABELS, tmp_path / "cache", **BOTH).case("s0001").label
    assert len({first, other, changed}) == 3
    assert load(changed).min() > 0


def test_the_fingerprint_does_not_depend_on_the_cache(case, tmp_path):
    sets = [open_dataset(case, LABELS, tmp_path / name, **BOTH) for name in ("one", "two")]
    assert sets[0].fingerprint() == sets[1].fingerprint()


def test_overlaps_can_be_kept(case, tmp_path):
    item = open_dataset(case, LABELS, tmp_path / "cache", **BOTH, overlaps="keep").items("train")[0]
    codes = load(item["label"])
    for channel, name in enumerate(("liver", "spleen")):
        inside = [code for code, channels in enumerate(item["combinations"]) if channel in channels]
        assert np.array_equal(np.isin(codes, inside), load(case / "s0001" / "segmentations" / f"{name}.nii.gz") > 0)
    with pytest.raises(DataError, match="overlaps"):
        open_dataset(case, LABELS, tmp_path / "cache", **BOTH, overlaps="both")


def test_a_truncated_image_is_found_before_training(case, tmp_path):
    image = case / "s0001" / "ct.nii.gz"
    image.write_bytes(image.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"ct\.nii\.gz: the file is damaged or cut short"):
        open_dataset(case, LABELS, tmp_path / "cache", **BOTH)
    assert not list((tmp_path / "cache").iterdir())


def test_a_truncated_mask_leaves_no_label_map(case, tmp_path):
    mask = case / "s0001" / "segmentations" / "liver.nii.gz"
    mask.write_bytes(mask.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"liver\.nii\.gz: the file is damaged or cut short"):
        open_dataset(case, LABELS, tmp_path / "cache", **BOTH)
    assert not list((tmp_path / "cache").iterdir())


def test_structures_without_annotation_are_warned_about(case, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        open_dataset(case, LABELS, tmp_path / "cache", **BOTH)
    assert "no case has a mask of 1 of the 3 structures: kidney_left" in caplog.text
    with pytest.raises(LabelError, match="masks of none of the network's 1 structures"):
        open_dataset(case, LabelMap(["brain"]), tmp_path / "cache", **BOTH)


def test_a_case_that_trains_and_validates_is_refused_or_warned_about(case, tmp_path, caplog):
    with pytest.raises(DataError, match=r"s0001 train and are held out.*Leave each case in one subset"):
        open_dataset(case, LABELS, tmp_path / "cache", BOTH["split"])
    with caplog.at_level(logging.WARNING):
        open_dataset(case, LABELS, tmp_path / "cache", **BOTH)
    assert "s0001 train and are held out as well" in caplog.text


def test_no_validation_case_is_an_error_with_a_fix(case, tmp_path):
    with pytest.raises(DataError, match=r"there is no case to validate on.*split#val"):
        open_dataset(case, LABELS, tmp_path / "cache").items("val")


def test_the_phantom_is_used_only_without_a_data_set(tmp_path, caplog, tiny_spec):
    spec = {"train": 1, "val": 1, "test": 0, "size": [18, 16], "spacing": [18, 15, 18], "region": "abdomen"}
    with caplog.at_level(logging.INFO):
        result = open_dataset(None, LabelMap.totalsegmentator(), tmp_path / "cache", phantom=spec)
    assert caplog.text.count("using the phantom that comes with medseg") == 1
    assert result.root.parent == tmp_path / "cache"
    with pytest.raises(DataError, match="no such folder"):
        open_dataset(tmp_path / "typo", LABELS, tmp_path / "cache", phantom=spec)


def test_training_on_a_prepared_set_sees_the_same_labels_as_on_its_masks(phantom, tmp_path):
    prepare(phantom, tmp_path / "out")
    labels = LabelMap(["spleen", "liver", "kidney_left"])
    raw = open_dataset(phantom, labels, tmp_path / "cache1")
    ready = open_dataset(tmp_path / "out", labels, tmp_path / "cache2")
    assert raw.split == ready.split
    for case in ready.cases:
        assert case.label.parent == tmp_path / "cache2"
        # All 117 were merged before three were chosen: a small neighbor may hold a voxel, never another of the three.
        one, other = load(raw.case(case.id).label), load(case.label)
        assert np.array_equal(other[other > 0], one[other > 0])
        assert np.count_nonzero(one != other) < 0.02 * np.count_nonzero(one)


def test_a_prepared_set_with_the_networks_own_numbering_is_read_in_place(phantom, tmp_path):
    prepare(phantom, tmp_path / "out", PrepareConfig(("liver", "spleen")))
    labels = LabelMap.load(tmp_path / "out" / "label_map.json")
    result = open_dataset(tmp_path / "out", labels, tmp_path / "cache")
    assert result.cases[0].label.is_relative_to(tmp_path / "out")
    assert not list((tmp_path / "cache").glob("*.nii.gz"))


def test_a_label_without_a_name_in_a_prepared_set_names_the_case(phantom, tmp_path):
    prepare(phantom, tmp_path / "out", PrepareConfig(("liver", "spleen")))
    path = tmp_path / "out" / "labels" / "p0000.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.full(image.shape, 9, np.uint8), image.affine), path)
    with pytest.raises(LabelError, match=r"case p0000: labels must be between 0 and 2 [(]got 9 to 9[)]"):
        open_dataset(tmp_path / "out", LabelMap(["liver"]), tmp_path / "cache")


def test_overlaps_of_a_label_map_cannot_be_kept(phantom, tmp_path):
    prepare(phantom, tmp_path / "out", PrepareConfig(("liver", "spleen")))
    with pytest.raises(DataError, match="overlaps cannot be kept, because it has a label map"):
        open_dataset(tmp_path / "out", LabelMap(["liver"]), tmp_path / "cache", overlaps="keep")


def test_cases_on_the_list_are_left_out(phantom, tmp_path):
    write_exclude(tmp_path / "x.txt", {"p0000": "moved"})
    result = open_dataset(phantom, LABELS, tmp_path / "cache", exclude=tmp_path / "x.txt")
    assert [case.id for case in result.cases] == ["p0001", "p0002", "p0003"]
    assert "p0000" not in result.split.train
    with pytest.raises(DataError, match="one name per line"):
        open_dataset(phantom, LABELS, tmp_path / "cache", exclude=tmp_path / "y.txt")


def test_a_store_is_used_if_it_exists_unless_disabled(phantom, tmp_path):
    prepare(phantom, tmp_path / "out", PrepareConfig("organs", store=True))
    result = open_dataset(tmp_path / "out", LABELS, tmp_path / "cache")
    (first, *_) = training_items(result, LABELS)
    assert first["image"].shape == first["label"].shape == (1, 48, 40, first["slice_index"].shape[1])
    assert result.case("p0002").label.parent == tmp_path / "cache"  # it validates
    with pytest.raises(DataError, match="it has no label map"):
        result.items("train")  # never a label map in another numbering
    files = training_items(open_dataset(tmp_path / "out", LABELS, tmp_path / "cache", use_store=False), LABELS)
    assert files[0]["label"].startswith(str(tmp_path / "cache"))
    with pytest.raises(ConfigError, match="use_store"):
        open_dataset(phantom, LABELS, tmp_path / "cache", use_store=True)
    with pytest.raises(ConfigError, match="a slice store cannot keep overlaps"):
        open_dataset(tmp_path / "out", LABELS, tmp_path / "cache", use_store=True, overlaps="keep")


def test_label_maps_are_renumbered_by_name(save):
    case_labels, labels = LabelMap(["spleen", "liver", "aorta"]), LabelMap(["aorta", "spleen"])
    data = np.array([0, 1, 2, 3], np.float32).reshape(4, 1, 1)
    image = save("ct.nii.gz", data)
    assert read_label(Case("a", image, save("label.nii.gz", data)), case_labels, labels).label.ravel().tolist() == [
        0,
        2,
        0,
        1,
    ]
    for values, message in (
        ([0, 0.5], "whole numbers"),
        ([0, 4], r"between 0 and 3 \(got 0 to 4\)"),
        ([-1, 0], "between 0 and 3"),
    ):
        wrong = save("wrong.nii.gz", np.resize(np.array(values, np.float32), (4, 1, 1)))
        with pytest.raises(LabelError, match=message):
            read_label(Case("a", image, wrong), case_labels, labels)
    with pytest.raises(DataError, match="2 voxels are NaN or infinite"):
        read_label(Case("a", image, save("nan.nii.gz", np.resize([0, np.nan], (4, 1, 1)))), case_labels, labels)
    moved = np.eye(4)
    moved[0, 3] = 5.0
    with pytest.raises(GeometryError, match="it lies up to 5 mm from"):
        read_label(Case("a", image, save("apart.nii.gz", data, moved)), case_labels, labels)


def test_a_decathlon_opens_with_its_names_and_without_its_unlabelled_test_cases(save, tmp_path):
    for id, value in (("a", 1), ("b", 2)):
        save(f"set/imagesTr/{id}.nii.gz", np.zeros((2, 2, 2), np.int16))
        save(f"set/labelsTr/{id}.nii.gz", np.full((2, 2, 2), value, np.uint8))
    save("set/imagesTs/c.nii.gz", np.zeros((2, 2, 2), np.int16))
    training = [{"image": f"./imagesTr/{id}.nii.gz", "label": f"./labelsTr/{id}.nii.gz"} for id in "ab"]
    names = {"0": "background", "1": "spleen", "2": "liver"}
    content = {"labels": names, "training": training, "test": ["./imagesTs/c.nii.gz"]}
    (tmp_path / "set" / "dataset.json").write_text(json.dumps(content))
    result = open_dataset(tmp_path / "set", LabelMap(["liver", "spleen"]), tmp_path / "cache", {"train": ["a"]})
    assert load(result.case("a").label).max() == 2
    assert len(result.items("train")) == 1
    assert result.case("c").label is None
    with pytest.raises(DataError, match="case c: it has no label map"):
        result.items("test")


def partly(phantom, tmp_path, **known):
    """The phantom with other `annotated` structures in its training cases."""
    result = open_dataset(phantom, LABELS, tmp_path / "cache")
    cases = tuple(replace(case, annotated=known.get(case.id, case.annotated)) for case in result.cases)
    return replace(result, cases=cases)


def test_training_items_tell_which_classes_are_annotated(phantom, tmp_path):
    first, second = (case.id for case in open_dataset(phantom, LABELS, tmp_path / "cache").subset("train"))
    names = list(LABELS)
    known = {first: (names[0], "no such structure"), second: None}
    one, other = training_items(partly(phantom, tmp_path, **known), LABELS)
    assert one["annotated"].tolist() == [True, True, *[False] * (len(names) - 1)]
    assert other["annotated"].all()


def test_a_structure_annotated_nowhere_counts_as_annotated(phantom, tmp_path):
    first, second = (case.id for case in open_dataset(phantom, LABELS, tmp_path / "cache").subset("train"))
    names = list(LABELS)
    one, other = training_items(partly(phantom, tmp_path, **{first: names[:1], second: names[1:2]}), LABELS)
    remaining = [True] * (len(names) - 2)
    assert one["annotated"].tolist() == [True, True, False, *remaining]
    assert other["annotated"].tolist() == [True, False, True, *remaining]


def test_a_case_without_annotations_is_left_out_with_a_warning(phantom, tmp_path, caplog):
    first, second = (case.id for case in open_dataset(phantom, LABELS, tmp_path / "cache").subset("train"))
    (only,) = training_items(partly(phantom, tmp_path, **{first: ("no such structure",)}), LABELS)
    assert only["case"] == second
    assert "1 cases are left out of training" in caplog.text
    assert f"annotated there: {first}" in caplog.text
    with pytest.raises(DataError, match="no training case has an annotation"):
        training_items(partly(phantom, tmp_path, **{first: (), second: ()}), LABELS)


def test_excluded_cases_may_lack_files(case, save, tmp_path):
    save("set/s0002/segmentations/liver.nii.gz", np.zeros((2, 2, 2), np.uint8))
    with pytest.raises(DataError, match=r"s0002/ct\.nii\.gz: the case has no CT"):
        open_dataset(case, LABELS, tmp_path / "cache", **BOTH)
    write_exclude(tmp_path / "x.txt", {"s0002": "image-missing"})
    opened = open_dataset(case, LABELS, tmp_path / "cache", **BOTH, exclude=tmp_path / "x.txt")
    assert [case.id for case in opened.cases] == ["s0001"]


def test_prepare_and_convert_keep_patients(phantom, tmp_path):
    shutil.copytree(phantom, tmp_path / "set")
    rows = ["image_id;split;patient", "p0000;train;ann", "p0001;train;ann", "p0002;val;", "p0003;test;"]
    (tmp_path / "set" / "meta.csv").write_text("\n".join(rows))
    prepare(tmp_path / "set", tmp_path / "prepared", PrepareConfig(("liver",)))
    for layout in ("nnunet", "datalist"):
        convert(tmp_path / "set", tmp_path / layout, layout, "liver")
    for name in ("prepared", "nnunet", "datalist"):
        dataset = discover(tmp_path / name)
        assert dataset.patients == {"p0000": "ann", "p0001": "ann", "p0002": "p0002", "p0003": "p0003"}
        with pytest.raises(DataError, match="patient 'ann' is in two subsets"):
            dataset.with_split({"train": ["p0000"], "val": ["p0001"]})
