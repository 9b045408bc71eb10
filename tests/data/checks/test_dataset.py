from medseg.cases import Split
from medseg.data.checks.dataset import check_content, check_repeated_images, check_split, check_volumes


def codes(split: Split, patients=(), images=()) -> list[tuple[str, str]]:
    result = check_split(split, patients=dict(patients), images=dict(images))
    return [(finding.severity, finding.code) for finding in result]


SPLIT = Split(train=("a", "b"), val=("c",), test=("d",))


def test_different_patients_in_the_subsets_have_no_findings():
    patients, images = {"a": "1", "b": "1", "c": "2", "d": "3"}, {"a": "x", "b": "y", "c": "z", "d": "z"}
    assert codes(SPLIT, patients, images) == []
    assert codes(Split(), patients, images) == []


def test_a_case_patient_or_image_in_two_subsets_is_an_error():
    assert codes(Split(("a",), ("a",)), {"a": "1"}, {"a": "x"}) == [("error", "split-case")]
    assert codes(SPLIT, patients={"a": "1", "d": "1"}) == [("error", "split-patient")]
    assert codes(SPLIT, images={"b": "x", "c": "x"}) == [("error", "split-image")]


def content(split, structures, names=("liver", "spleen"), patients=()):
    result = check_content(split, structures, names, dict(patients))
    return [(finding.severity, finding.code) for finding in result]


def test_structures_in_one_subset_alone_or_in_none_are_reported():
    both = ["liver", "spleen"]
    assert content(SPLIT, {"a": both, "b": [], "c": both}, patients={"c": "1"}) == [("note", "split-one-patient")]
    assert content(SPLIT, {"a": ["liver"], "b": ["liver"], "c": ["spleen"]})[:2] == [
        ("note", "split-untrained"), ("note", "split-unvalidated")
    ]  # fmt: skip
    many = Split(tuple("abcde"), ("y", "z"))
    inside = {id: ["liver"] for id in "abcde"}
    assert content(many, {**inside, "z": ["spleen"]})[1] == ("warning", "split-unvalidated")
    assert content(many, {**inside, "z": ["liver"]}) == [("note", "structures-absent")]
    assert content(Split(tuple("abcde")), inside, ("liver",)) == []
    assert content(Split(), {"a": ["liver"]}) == [("note", "structures-absent")]
    assert content(many, {**inside, "y": [], "z": []}, ("liver",)) == [
        ("warning", "split-unvalidated"), ("warning", "masks-empty")
    ]  # fmt: skip


def test_masks_that_are_all_empty_are_an_error():
    for split in (SPLIT, Split(), Split(("a",))):
        assert content(split, {"a": [], "b": [], "c": []}) == [("error", "masks-empty")]
    assert content(SPLIT, {"a": [], "b": [], "c": ["liver"]}) == [("error", "masks-empty")]
    assert content(SPLIT, {}) == []  # nothing has labels


def test_each_copy_of_an_image_names_the_first():
    result = check_repeated_images({"a": "x", "b": "y", "c": "x", "d": "x"})
    assert [(finding.case, finding.message) for finding in result] == [
        ("c", "it has the same voxels as a"), ("d", "it has the same voxels as a")
    ]  # fmt: skip


def test_only_complete_volumes_of_enough_cases_are_compared():
    volumes = {f"s{number}": {"liver": 1500.0 + number} for number in range(6)}
    assert check_volumes(volumes) == []
    (finding,) = check_volumes({**volumes, "small": {"liver": 200.0}, "other": {"spleen": 1.0}})
    assert (finding.code, finding.case, finding.location) == ("volume-outlier", "small", "liver")
    assert "200 ml" in finding.message
    assert check_volumes({f"s{number}": {"liver": 10.0**number} for number in range(4)}) == []
    spread = {f"s{number}": {"colon": 100.0 * 2**number} for number in range(7)}
    assert check_volumes(spread) == []


def test_a_tenth_and_ten_times_the_usual_volume_are_named_even_in_small_sets_with_much_spread():
    bladder = {f"s{number}": {"urinary_bladder": 80.0 * 1.8**number} for number in range(5)}
    for factor in (0.1, 10.0):
        (finding,) = check_volumes({**bladder, "odd": {"urinary_bladder": 260 * factor}})
        assert (finding.case, finding.location) == ("odd", "urinary_bladder")
    three = {f"s{number}": {"spleen": 200.0 + 30 * number} for number in range(3)}
    (finding,) = check_volumes({**three, "odd": {"spleen": 22.0}})
    assert "22 ml" in finding.message
    assert check_volumes({"a": {"spleen": 200.0}, "b": {"spleen": 20.0}}) == []  # which is wrong cannot be known


def test_a_case_whose_structures_are_all_a_tenth_gets_one_finding():
    names = ("liver", "spleen", "pancreas", "kidney_left", "kidney_right")
    volumes = {f"s{number}": dict.fromkeys(names, 100.0 + number) for number in range(4)}
    (finding,) = check_volumes({**volumes, "odd": dict.fromkeys(names, 10.0)})
    assert finding.case == "odd"
    assert "5 of its structures measure about 0.099 times" in finding.message
    assert "spacing" in finding.fix
