from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.cases import Case, DatasetIndex, Split
from medseg.errors import DataError
from medseg.labels import LabelMap
from tests.made_inputs import liver_cases

IDS = st.lists(st.text("abcdef0123456789", min_size=1, max_size=5), min_size=2, max_size=30, unique=True)


def dataset(ids: str = "abcd", split: Split | None = None) -> DatasetIndex:
    cases = tuple(Case(id, Path(f"{id}.nii.gz")) for id in ids)
    return DatasetIndex(Path("set"), cases, ("liver",), split=split or Split())


@given(IDS, st.floats(0.01, 0.6))
def test_a_split_by_hash_is_complete_and_validates_at_least_one(ids, share):
    split = Split.by_hash(ids, validation=share)
    assert sorted(split.train + split.val) == sorted(ids)
    assert split.val
    assert not split.repeated_cases()


@given(IDS)
def test_a_split_by_hash_does_not_depend_on_the_order(ids):
    assert Split.by_hash(ids) == Split.by_hash(list(reversed(ids)))


def test_a_single_case_trains_and_nothing_validates():
    assert Split.by_hash(["a"]) == Split(train=("a",))


def test_a_named_subset_holds_exactly_the_named_cases():
    result = dataset(split=Split(train=("a", "b"), val=("c",), test=("d",))).with_split({"val": ["a"], "train": None})
    assert result.split == Split(train=("a", "b"), val=("a",), test=("d",))
    assert result.split.repeated_cases() == ("a",)


def test_cases_without_a_split_are_split_by_hash():
    result = dataset().with_split({"test": ["a"]})
    assert result.split.test == ("a",)
    assert set(result.split.train + result.split.val) == {"b", "c", "d"}


def test_an_unknown_case_in_a_split_names_the_nearest():
    cases = tuple(Case(id, Path(id)) for id in ("s0001", "s0002"))
    with pytest.raises(DataError, match="Did you mean 's0001'"):
        DatasetIndex(Path("set"), cases, ()).with_split({"train": ["s001"]})


def test_an_unknown_subset_is_refused():
    with pytest.raises(DataError, match="Did you mean 'val'"):
        dataset().with_split({"vall": ["a"]})


def test_an_empty_subset_is_an_error_with_the_sizes():
    with pytest.raises(DataError, match=r"there is no case to validate on \(the split has 4 train, 0 val, 0 test\)"):
        dataset(split=Split(train=("a", "b", "c", "d"))).with_split().subset("val")


@pytest.mark.parametrize("ids", [("a", "a"), ("S1", "s1")])
def test_two_cases_of_one_id_are_refused(ids):
    with pytest.raises(
        DataError, match="two cases have the same id, or ids that differ only in accents or upper and lower case"
    ):
        DatasetIndex(Path("set"), tuple(Case(id, Path(id)) for id in ids), ())


def test_a_set_without_cases_is_refused():
    with pytest.raises(DataError, match="at least one case"):
        DatasetIndex(Path("set"), (), ())


def test_items_need_label_maps():
    with pytest.raises(DataError, match="case a: it has no label map"):
        dataset(split=Split(train=("a",))).items("train")


def test_items_tell_which_classes_are_annotated():
    cases = (
        Case("a", Path("a"), Path("al"), annotated=("spleen", "heart")),
        Case("b", Path("b"), Path("bl")),
    )
    result = DatasetIndex(Path("set"), cases, (), split=Split(val=("a", "b")))
    labels = LabelMap(["liver", "spleen"])
    assert [item["annotated"].tolist() for item in result.items("val", labels)] == [[True, False, True], [True] * 3]
    assert "annotated" not in result.items("val")[0]


def test_the_fingerprint_depends_on_content_and_split_not_path(tmp_path):
    one, two = liver_cases(tmp_path / "one", "abc"), liver_cases(tmp_path / "two", "abc")
    assert one.fingerprint() == two.fingerprint()
    assert one.fingerprint() != one.with_split({"val": ["b"]}).fingerprint()
    (tmp_path / "two" / "images" / "a.nii.gz").write_bytes(b"longer")
    assert one.fingerprint() != two.fingerprint()


def test_the_fingerprint_of_a_file_that_is_gone_names_it(tmp_path):
    result = liver_cases(tmp_path, "abc")
    (tmp_path / "images" / "a.nii.gz").unlink()
    with pytest.raises(DataError, match=r"a\.nii\.gz: the file cannot be read"):
        result.fingerprint()


@pytest.mark.parametrize("id", ["a/b", "a\\b", "..", ".hidden"])
def test_an_id_that_cannot_be_a_file_name_is_refused(id):
    with pytest.raises(DataError, match="cannot be the name of a file"):
        Case(id, Path("a.nii.gz"))


def test_a_set_with_only_test_cases_splits_the_others_by_hash():
    result = dataset(split=Split(test=("a",))).with_split().split
    assert result.test == ("a",)
    assert sorted(result.train + result.val) == ["b", "c", "d"]


def test_cases_outside_named_subsets_go_to_the_others(tmp_path):
    result = DatasetIndex(tmp_path, tuple(Case(id, tmp_path / id) for id in "abcd"), ("liver",))
    assert result.with_split({"val": ["b"]}).split == Split(train=("a", "c", "d"), val=("b",))
    assert result.with_split({"train": ["b"]}).split == Split(train=("b",), val=("a", "c", "d"))
    assert result.with_split({"train": ["b"], "val": ["b"]}).split == Split(train=("b",), val=("b",))
    split = result.with_split({"test": ["b"]}).split
    assert sorted((*split.train, *split.val)) == ["a", "c", "d"]


def cts(**patients: str | None) -> DatasetIndex:
    """A data set of cases with the given patients."""
    cases = tuple(Case(id, Path(f"{id}.nii.gz"), patient=patient) for id, patient in patients.items())
    return DatasetIndex(Path("set"), cases, ("liver",))


PATIENTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.sampled_from("XYZUVW"), min_size=2)


@given(PATIENTS, st.floats(0.01, 0.9))
def test_no_split_by_hash_separates_the_cases_of_a_patient(patients, validation):
    split = cts(**patients).with_split(validation=validation).split
    assert sorted(split.train + split.val) == sorted(patients)
    assert not {patients[id] for id in split.train} & {patients[id] for id in split.val}


@given(PATIENTS, st.sampled_from(["train", "val", "test"]))
def test_a_named_subset_keeps_its_patients_out_of_the_others(patients, subset):
    first = min(patients)
    split = cts(**patients).with_split({subset: [first]}).split
    assert getattr(split, subset) == (first,)
    others = [id for name in ("train", "val", "test") if name != subset for id in getattr(split, name)]
    assert patients[first] not in {patients[id] for id in others}


def test_a_case_without_a_patient_is_its_own_patient():
    assert cts(a=None, b="P", c="P").patients == {"a": "a", "b": "P", "c": "P"}
    assert Case("a", Path("a")).patient_id == "a"


def test_cases_of_a_used_patient_are_left_out_with_a_warning(caplog):
    split = cts(ct1="P", ct2="P", third="Q").with_split({"val": ["ct1"]}).split
    assert split == Split(train=("third",), val=("ct1",))
    assert "1 cases are left out, because their patients are already in another subset: ct2" in caplog.text


def test_a_patient_stands_for_all_of_its_cases():
    split = cts(ct1="P", ct2="P", third="Q").with_split({"val": ["P"]}).split
    assert split == Split(train=("third",), val=("ct1", "ct2"))


@pytest.mark.parametrize("subsets", [("train", "val"), ("train", "test"), ("val", "test")])
def test_a_patient_in_two_named_subsets_is_an_error(subsets):
    dataset = cts(ct1="P", ct2="P", third="Q")
    with pytest.raises(DataError) as error:
        dataset.with_split({subsets[0]: ["ct1"], subsets[1]: ["ct2"]})
    assert str(error.value) == (
        "set: patient 'P' is in two subsets of the split (ct1 and ct2). Keep all cases of a patient in one subset; "
        "otherwise the scores are too high. For 2D slices, the setting data#patient says how the patient is read from "
        "a file name."
    )


def test_a_subset_that_overrules_the_sets_own_must_not_leak():
    dataset = replace(cts(ct1="P", ct2="P", third="Q"), split=Split(train=("ct1", "ct2"), val=("third",)))
    with pytest.raises(DataError, match="patient 'P' is in two subsets"):
        dataset.with_split({"val": ["ct1"]})
    both = dataset.with_split({"train": ["ct1", "ct2"], "val": ["ct1", "ct2"]}).split  # a deliberate test of learning
    assert both.repeated_cases() == ("ct1", "ct2")


def test_a_leak_is_found_whatever_else_the_subsets_hold():
    patients = {"a": "P", "b": "P", "c": "Q"}
    assert Split(("a",), ("a",)).leaks(patients) == {}
    assert Split(("a", "b"), ("a",)).leaks(patients) == {"P": ("b", "a")}
    assert Split(("a",), ("a", "b")).leaks(patients) == {"P": ("a", "b")}
    assert Split(("a", "c"), ("c",), ("b",)).leaks(patients) == {"P": ("a", "b")}
