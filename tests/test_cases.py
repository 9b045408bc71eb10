import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.cases import Case, Dataset, Split, read_datalist, write_datalist
from medseg.errors import DataError
from medseg.labels import LabelMap

IDS = st.lists(st.text("abcdef0123456789", min_size=1, max_size=5), min_size=2, max_size=30, unique=True)


def dataset(ids: str = "abcd", split: Split | None = None) -> Dataset:
    cases = tuple(Case(id, Path(f"{id}.nii.gz")) for id in ids)
    return Dataset(Path("set"), cases, ("liver",), split=split or Split())


@given(IDS, st.floats(0.01, 0.6))
def test_a_split_by_hash_parts_the_cases_and_validates_at_least_one(ids, share):
    split = Split.by_hash(ids, validation=share)
    assert sorted(split.train + split.val) == sorted(ids)
    assert split.val
    assert not split.both_sides()


@given(IDS)
def test_a_case_keeps_its_rank_whatever_order_the_others_come_in(ids):
    assert Split.by_hash(ids) == Split.by_hash(list(reversed(ids)))


def test_a_single_case_trains_and_nothing_validates():
    assert Split.by_hash(["a"]) == Split(train=("a",))


def test_sides_that_are_named_hold_exactly_what_was_named():
    found = dataset(split=Split(train=("a", "b"), val=("c",), test=("d",))).with_split({"val": ["a"], "train": None})
    assert found.split == Split(train=("a", "b"), val=("a",), test=("d",))
    assert found.split.both_sides() == ("a",)


def test_without_a_split_of_its_own_the_rest_is_split_by_hash():
    found = dataset().with_split({"test": ["a"]})
    assert found.split.test == ("a",)
    assert set(found.split.train + found.split.val) == {"b", "c", "d"}


def test_an_unknown_case_in_a_split_names_the_nearest():
    cases = tuple(Case(id, Path(id)) for id in ("s0001", "s0002"))
    with pytest.raises(DataError, match="Did you mean 's0001'"):
        Dataset(Path("set"), cases, ()).with_split({"train": ["s001"]})


def test_an_unknown_side_is_refused():
    with pytest.raises(DataError, match="Did you mean 'val'"):
        dataset().with_split({"vall": ["a"]})


def test_an_empty_side_says_what_there_is():
    with pytest.raises(DataError, match=r"at least one case to validate on.*none \(4 train, 0 val, 0 test\)"):
        dataset(split=Split(train=("a", "b", "c", "d"))).with_split().side("val")


@pytest.mark.parametrize("ids", [("a", "a"), ("S1", "s1")])
def test_two_cases_of_one_id_are_refused(ids):
    with pytest.raises(DataError, match="different id"):
        Dataset(Path("set"), tuple(Case(id, Path(id)) for id in ids), ())


def test_a_set_without_cases_is_refused():
    with pytest.raises(DataError, match="at least one case"):
        Dataset(Path("set"), (), ())


def test_items_need_label_maps():
    with pytest.raises(DataError, match="needs a label map"):
        dataset(split=Split(train=("a",))).items("train")


def make(folder: Path, ids: str) -> Dataset:
    cases = []
    for id in ids:
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            (folder / kind / f"{id}.nii.gz").write_bytes(id.encode())
        cases.append(
            Case(id, folder / "images" / f"{id}.nii.gz", folder / "labels" / f"{id}.nii.gz", annotated=("liver",))
        )
    return Dataset(folder, tuple(cases), ("liver",), LabelMap(["liver"]), Split(("a", "b"), ("c", "a"), ()))


def test_a_datalist_is_read_back_as_it_was_written(tmp_path):
    written = make(tmp_path, "abc")
    write_datalist(tmp_path / "datalist.json", written, LabelMap(["liver"]))
    read = read_datalist(tmp_path / "datalist.json")
    assert read == written
    content = json.loads((tmp_path / "datalist.json").read_text())
    assert content["training"][0]["image"] == "images/a.nii.gz"
    assert content["numTraining"] == 2


def test_a_datalist_moves_with_its_folder(tmp_path):
    write_datalist(tmp_path / "one" / "datalist.json", make(tmp_path / "one", "abc"), LabelMap(["liver"]))
    (tmp_path / "one").rename(tmp_path / "two")
    assert read_datalist(tmp_path / "two" / "datalist.json").cases[0].image.is_file()


def test_a_datalist_whose_files_moved_says_which(tmp_path):
    write_datalist(tmp_path / "datalist.json", make(tmp_path, "abc"), LabelMap(["liver"]))
    (tmp_path / "labels" / "b.nii.gz").unlink()
    with pytest.raises(DataError, match=r"b\.nii\.gz: must exist"):
        read_datalist(tmp_path / "datalist.json")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"training": []}', '{"labels": {"0": "background", "1": "liver"}, "training": [{}]}']
)
def test_a_broken_datalist_names_itself(tmp_path, text):
    (tmp_path / "datalist.json").write_text(text)
    with pytest.raises(DataError, match=r"datalist\.json"):
        read_datalist(tmp_path / "datalist.json")


def test_the_fingerprint_goes_by_content_and_split_not_by_place(tmp_path):
    one, two = make(tmp_path / "one", "abc"), make(tmp_path / "two", "abc")
    assert one.fingerprint() == two.fingerprint()
    assert one.fingerprint() != one.with_split({"val": ["b"]}).fingerprint()
    (tmp_path / "two" / "images" / "a.nii.gz").write_bytes(b"longer")
    assert one.fingerprint() != two.fingerprint()


def test_the_fingerprint_of_a_file_that_is_gone_names_it(tmp_path):
    found = make(tmp_path, "abc")
    (tmp_path / "images" / "a.nii.gz").unlink()
    with pytest.raises(DataError, match=r"a\.nii\.gz: must exist"):
        found.fingerprint()
