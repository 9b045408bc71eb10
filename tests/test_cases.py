import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medseg.cases import Case, DatasetIndex, Split, read_datalist, write_datalist
from medseg.errors import DataError, LabelError
from medseg.labels import LabelMap

IDS = st.lists(st.text("abcdef0123456789", min_size=1, max_size=5), min_size=2, max_size=30, unique=True)


def dataset(ids: str = "abcd", split: Split | None = None) -> DatasetIndex:
    cases = tuple(Case(id, Path(f"{id}.nii.gz")) for id in ids)
    return DatasetIndex(Path("set"), cases, ("liver",), split=split or Split())


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
        DatasetIndex(Path("set"), cases, ()).with_split({"train": ["s001"]})


def test_an_unknown_side_is_refused():
    with pytest.raises(DataError, match="Did you mean 'val'"):
        dataset().with_split({"vall": ["a"]})


def test_an_empty_side_says_what_there_is():
    with pytest.raises(DataError, match=r"at least one case to validate on.*none \(4 train, 0 val, 0 test\)"):
        dataset(split=Split(train=("a", "b", "c", "d"))).with_split().side("val")


@pytest.mark.parametrize("ids", [("a", "a"), ("S1", "s1")])
def test_two_cases_of_one_id_are_refused(ids):
    with pytest.raises(DataError, match="different id"):
        DatasetIndex(Path("set"), tuple(Case(id, Path(id)) for id in ids), ())


def test_a_set_without_cases_is_refused():
    with pytest.raises(DataError, match="at least one case"):
        DatasetIndex(Path("set"), (), ())


def test_items_need_label_maps():
    with pytest.raises(DataError, match="needs a label map"):
        dataset(split=Split(train=("a",))).items("train")


def test_items_say_for_each_class_whether_somebody_looked_for_it():
    cases = (
        Case("a", Path("a"), Path("al"), annotated=("spleen", "heart")),
        Case("b", Path("b"), Path("bl")),
    )
    found = DatasetIndex(Path("set"), cases, (), split=Split(val=("a", "b")))
    labels = LabelMap(["liver", "spleen"])
    assert [item["annotated"].tolist() for item in found.items("val", labels)] == [[True, False, True], [True] * 3]
    assert "annotated" not in found.items("val")[0]


def make(folder: Path, ids: str) -> DatasetIndex:
    cases = []
    for id in ids:
        for kind in ("images", "labels"):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            (folder / kind / f"{id}.nii.gz").write_bytes(id.encode())
        cases.append(
            Case(id, folder / "images" / f"{id}.nii.gz", folder / "labels" / f"{id}.nii.gz", annotated=("liver",))
        )
    return DatasetIndex(folder, tuple(cases), ("liver",), LabelMap(["liver"]), Split(("a", "b"), ("c", "a"), ()))


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


@pytest.mark.parametrize("id", ["a/b", "a\\b", "..", ".hidden"])
def test_an_id_that_cannot_be_a_file_name_is_refused(id):
    with pytest.raises(DataError, match="can be the name of a file"):
        Case(id, Path("a.nii.gz"))


def decathlon(folder: Path, **changes: object) -> Path:
    """A folder of the Medical Segmentation Decathlon with two cases to train on and one to test."""
    for name in ("imagesTr/a_1", "labelsTr/a_1", "imagesTr/b.x", "labelsTr/b.x", "imagesTs/c"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.nii.gz").write_bytes(name.encode())
    training = [{"image": f"./imagesTr/{id}.nii.gz", "label": f"./labelsTr/{id}.nii.gz"} for id in ("b.x", "a_1")]
    content = {
        "modality": {"0": "CT"},
        "labels": {"2": "cancer", "0": "Background", "1": "pancreas"},
        "training": training,
        "test": ["./imagesTs/c.nii.gz"],
        **changes,
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder / "dataset.json"


def test_a_decathlon_is_read_as_it_comes(tmp_path):
    found = read_datalist(decathlon(tmp_path))
    assert [case.id for case in found.cases] == ["a_1", "b.x", "c"]
    assert found.labels == LabelMap(["pancreas", "cancer"])
    assert found.case("a_1").annotated == ("pancreas", "cancer")
    assert found.case("c").label is None
    assert found.split == Split(test=("c",))
    split = found.with_split().split
    assert sorted(split.train + split.val) == ["a_1", "b.x"]
    assert split.test == ("c",)


def test_test_cases_may_be_dictionaries_with_labels(tmp_path):
    test = [{"image": "imagesTs/c.nii.gz", "label": "labelsTr/a_1.nii.gz"}]
    assert read_datalist(decathlon(tmp_path, test=test)).case("c").label == tmp_path / "labelsTr" / "a_1.nii.gz"


def test_what_macos_leaves_behind_is_no_case(tmp_path):
    training = [{"image": f"./imagesTr/{id}.nii.gz", "label": f"./labelsTr/{id}.nii.gz"} for id in ("a_1", "._a_1")]
    assert [case.id for case in read_datalist(decathlon(tmp_path, training=training)).cases] == ["a_1", "c"]


@pytest.mark.parametrize("labels", [{"1": "liver"}, {"0": "unlabelled", "1": "liver"}])
def test_the_background_may_be_missing_or_have_another_name(tmp_path, labels):
    assert read_datalist(decathlon(tmp_path, labels=labels)).labels == LabelMap(["liver"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modality": {"0": "FLAIR", "1": "T1w"}}, r"dataset\.json: must have images of one channel (2"),
        ({"labels": {"0": "background", "2": "liver"}}, "without a gap"),
        ({"labels": {"0": "background", "1": "Background", "2": "background"}}, "label map"),
        ({"labels": ["liver"]}, "must be a datalist"),
        ({"test": 3}, "must be a datalist"),
        ({"test": [3]}, "needs an 'image' in every entry"),
        ({"test": ["./imagesTs/gone.nii.gz"]}, r"gone\.nii\.gz: must exist, for dataset\.json names it"),
        ({"test": ["./imagesTr/a_1.nii.gz"]}, "'a_1' for two"),
    ],
)
def test_a_decathlon_that_cannot_be_is_one_error(tmp_path, changes, message):
    with pytest.raises((DataError, LabelError), match=message):
        read_datalist(decathlon(tmp_path, **changes))


def test_two_cases_of_one_file_name_need_ids_of_their_own(tmp_path):
    for id in ("s1", "s2"):
        (tmp_path / id).mkdir()
        (tmp_path / id / "ct.nii.gz").touch()
    entries = [{"image": f"{id}/ct.nii.gz"} for id in ("s1", "s2")]
    path = decathlon(tmp_path, training=entries)
    with pytest.raises(DataError, match=r"'ct' for two\. .*a 'case' of its own"):
        read_datalist(path)
    path = decathlon(tmp_path, training=[{"case": id, "image": f"{id}/ct.nii.gz"} for id in ("s1", "s2")])
    assert [case.id for case in read_datalist(path).cases] == ["c", "s1", "s2"]


def test_a_set_that_names_its_test_cases_alone_is_split_by_hash_for_the_rest():
    found = dataset(split=Split(test=("a",))).with_split().split
    assert found.test == ("a",)
    assert sorted(found.train + found.val) == ["b", "c", "d"]


def test_sides_that_are_named_leave_no_other_case_out(tmp_path):
    found = DatasetIndex(tmp_path, tuple(Case(id, tmp_path / id) for id in "abcd"), ("liver",))
    assert found.with_split({"val": ["b"]}).split == Split(train=("a", "c", "d"), val=("b",))
    assert found.with_split({"train": ["b"]}).split == Split(train=("b",), val=("a", "c", "d"))
    assert found.with_split({"train": ["b"], "val": ["b"]}).split == Split(train=("b",), val=("b",))
    split = found.with_split({"test": ["b"]}).split
    assert sorted((*split.train, *split.val)) == ["a", "c", "d"]
