from medseg.cases import Split
from medseg.data.checks.splits import examine, repeated


def codes(split: Split, patients=(), images=(), structures=()) -> list[tuple[str, str]]:
    found = examine(split, patients=dict(patients), images=dict(images), structures=dict(structures))
    return [(finding.severity, finding.code) for finding in found]


SPLIT = Split(train=("a", "b"), val=("c",), test=("d",))


def test_strangers_on_both_sides_are_as_they_should_be():
    patients, images = {"a": "1", "b": "1", "c": "2", "d": "2"}, {"a": "x", "b": "y", "c": "z", "d": "z"}
    assert codes(SPLIT, patients, images) == []
    assert codes(Split(), patients, images) == []


def test_case_patient_and_image_on_both_sides_are_errors():
    assert codes(Split(("a",), ("a",)), {"a": "1"}, {"a": "x"}) == [("error", "split-case")]
    assert codes(SPLIT, patients={"a": "1", "d": "1"}) == [("error", "split-patient")]
    assert codes(SPLIT, images={"b": "x", "c": "x"}) == [("error", "split-image")]


def test_a_structure_that_never_validates_is_noted_and_loud_where_a_case_could_be_spared():
    assert codes(SPLIT, structures={"a": ["liver"], "b": ["liver"], "c": ["spleen"]}) == [("note", "split-unvalidated")]
    many = Split(tuple("abcde"), ("z",))
    held = {id: ["liver"] for id in "abcde"}
    assert codes(many, structures=held) == [("warning", "split-unvalidated")]
    assert codes(many, structures={**held, "z": ["liver"]}) == []
    assert codes(Split(tuple("abcde")), structures=held) == []


def test_each_copy_of_an_image_names_the_first():
    found = repeated({"a": "x", "b": "y", "c": "x", "d": "x"})
    assert [(finding.case, finding.message) for finding in found] == [
        ("c", "it has the same voxels as a"), ("d", "it has the same voxels as a")
    ]  # fmt: skip
