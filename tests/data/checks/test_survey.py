import json
import shutil

import pytest

from medseg.data import convert, discover, prepare
from medseg.data.checks.survey import survey
from medseg.errors import DataError
from medseg.findings import worst


def codes(seen) -> set[str]:
    return {finding.code for finding in seen.findings} | {f.code for plan in seen.cases for f in plan.findings}


def test_a_sound_set_is_what_discover_finds(phantom):
    seen, dataset = survey(phantom), discover(phantom)
    assert codes(seen) == set()
    assert [(plan.id, plan.image, dict(plan.masks), plan.annotated) for plan in seen.cases] == [
        (case.id, case.image, dict(case.masks), case.annotated) for case in dataset.cases
    ]
    assert (seen.structures, seen.split) == (dataset.structures, dataset.split)


def test_a_prepared_set_is_what_discover_finds(case, tmp_path):
    prepare(case, tmp_path / "out")
    seen, dataset = survey(tmp_path / "out"), discover(tmp_path / "out")
    assert [(plan.id, plan.label, plan.annotated) for plan in seen.cases] == [
        (case.id, case.label, case.annotated) for case in dataset.cases
    ]
    assert seen.labels == dataset.labels


@pytest.mark.parametrize("to", ["nnunet", "datalist"])
def test_other_layouts_are_what_discover_finds(case, tmp_path, to):
    convert(case, tmp_path / "out", to)
    seen, dataset = survey(tmp_path / "out"), discover(tmp_path / "out")
    assert [(plan.id, plan.image, plan.label, plan.annotated) for plan in seen.cases] == [
        (case.id, case.image, case.label, case.annotated) for case in dataset.cases
    ]
    assert (seen.labels, seen.split, codes(seen)) == (dataset.labels, dataset.split, set())
    dataset.cases[0].label.unlink()
    missing = survey(tmp_path / "out")
    # a datalist names its files, so that what is missing shows when it is read
    expected = {"nnunet": ({"layout", "not-read"}, "error"), "datalist": (set(), None)}
    assert (codes(missing), worst(missing.findings)) == expected[to]


def test_names_of_version_1_are_known(case):
    masks = case / "s0001" / "segmentations"
    (masks / "spleen.nii.gz").rename(masks / "heart_myocardium.nii.gz")
    assert codes(survey(case)) == set()
    assert survey(case).structures == discover(case).structures


def test_what_discover_refuses_is_listed(case):
    (case / "s0002").mkdir()
    (case / "s0003" / "segmentations").mkdir(parents=True)
    shutil.copy(case / "s0001" / "segmentations" / "liver.nii.gz", case / "s0001" / "segmentations" / "livr.nii.gz")
    (case / "s0001" / "segmentations" / "notes.txt").write_text("x")
    (case / "meta.csv").write_text("image_id;split\ns0001;nonsense\ns0001;train\ns0009;val\n")
    with pytest.raises(Exception, match="livr"):
        discover(case)
    seen = survey(case)
    assert codes(seen) == {
        "case-empty", "image-missing", "masks-missing", "unknown-name", "mask-ignored", "meta", "meta-absent",
        "meta-no-side",
    }  # fmt: skip
    unknown = next(f for plan in seen.cases for f in plan.findings if f.code == "unknown-name")
    assert (unknown.case, unknown.fix) == ("s0001", "Did you mean 'liver'?")
    assert seen.split.train == ("s0001",)


@pytest.mark.parametrize("content", [b"id,split\na,b\n", b"", b"\xff\xfe\x00"])
def test_a_table_that_cannot_be_read_is_one_finding(case, content):
    (case / "meta.csv").write_bytes(content)
    assert codes(survey(case)) == {"meta"}


def test_a_broken_datalist_is_described(case, tmp_path):
    out = tmp_path / "out"
    prepare(case, out)
    path = out / "datalist.json"
    content = json.loads(path.read_text())
    content["labels"] = {"1": "liver"}
    side = "training" if content["training"] else "validation"
    entry = content[side][0]
    content["training"] = [
        entry,
        {**entry, "label": "elsewhere.nii.gz"},
        {**entry, "case": "S0001", "patient": 7},
        {},
        3,
    ]
    path.write_text(json.dumps(content))
    seen = survey(out)
    assert codes(seen) == {"datalist", "same-id"}
    assert seen.patients == {"S0001": "7"}
    for text in ("[1]", "{", '"x"'):
        path.write_text(text)
        assert [finding.code for finding in survey(out).findings] == ["datalist"]
        assert survey(path).cases == ()


def test_loose_files_are_listed_by_themselves_and_the_rest_by_kind(case, tmp_path):
    shutil.copy(case / "s0001" / "ct.nii.gz", tmp_path / "a.nii.gz")
    shutil.rmtree(case)
    (tmp_path / "b.dcm").write_bytes(b"x")
    (tmp_path / "c").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "d.txt").write_text("x")
    (tmp_path / "e").write_bytes(b"")
    seen = survey(tmp_path)
    assert [(plan.id, plan.loose) for plan in seen.cases] == [("a.nii.gz", True)]
    assert [finding.message.split(",")[0] for finding in seen.findings if finding.code == "not-read"] == [
        "1 .txt file", "2 DICOM files", "1 empty file"
    ]  # fmt: skip
    assert [plan.id for plan in survey(tmp_path / "a.nii.gz").cases] == ["a.nii.gz"]
    with pytest.raises(DataError, match="no such folder"):
        survey(tmp_path / "nowhere")
