import json
import shutil

import pytest

from medseg.data import check_dataset, choose_labels, convert, discover, prepare
from medseg.data.layouts import collect


def codes(listing) -> set[str]:
    return {finding.code for finding in listing.findings}


@pytest.fixture
def volumes(case, tmp_path):
    """The same case in each layout of volumes."""
    prepare(case, tmp_path / "prepared")
    for layout in ("nnunet", "datalist"):
        convert(case, tmp_path / layout, layout)
    return {"totalsegmentator": case, **{name: tmp_path / name for name in ("prepared", "nnunet", "datalist")}}


@pytest.mark.parametrize("layout", ["totalsegmentator", "prepared", "nnunet", "datalist"])
def test_a_sound_set_is_listed_without_findings(volumes, layout):
    listing, dataset = collect(volumes[layout]), discover(volumes[layout])
    assert codes(listing) == set()
    assert tuple(listing.cases) == dataset.cases
    assert (listing.structures, listing.labels, listing.split) == (dataset.structures, dataset.labels, dataset.split)


@pytest.mark.parametrize(("layout", "code"), [("nnunet", "image-alone"), ("datalist", "file-missing")])
def test_a_missing_label_map_is_listed_and_the_check_reports_it_once(volumes, layout, code):
    discover(volumes[layout]).cases[0].label.unlink()
    listing = collect(volumes[layout])
    assert code in codes(listing)
    report = check_dataset(volumes[layout], workers=1)
    assert [finding.code for finding in report.findings if finding.severity == "error"] == [code]


def test_names_of_version_1_are_known(case):
    masks = case / "s0001" / "segmentations"
    (masks / "spleen.nii.gz").rename(masks / "heart_myocardium.nii.gz")
    assert codes(collect(case)) == set()
    assert collect(case).structures == discover(case).structures


def test_other_names_are_structures_of_the_sets_own_unless_misspelled(case):
    masks = case / "s0001" / "segmentations"
    own = ("liver_tumour", "Zyste", "kidney_tumor", "lesion 2")
    for name in own:
        shutil.copy(masks / "liver.nii.gz", masks / f"{name}.nii.gz")
    assert codes(collect(case)) == set()
    assert collect(case).structures == ("spleen", "liver", *sorted(own))
    labels = choose_labels(case)
    assert labels.structures == collect(case).structures
    assert labels.overlap_priority()[-1] not in ("liver", "spleen")  # a tumour in the liver stays a tumour
    for wrong in ("livver", "kidney_lefft", "vertebra_L1", "heart_ventricle"):
        shutil.copy(masks / "liver.nii.gz", masks / f"{wrong}.nii.gz")
    unknown = [finding for finding in collect(case).findings if finding.code == "unknown-name"]
    assert len(unknown) == 4
    assert all(finding.fix.startswith("Did you mean '") for finding in unknown)


def test_everything_that_discover_refuses_is_listed(case):
    (case / "s0002").mkdir()
    (case / "s0003" / "segmentations").mkdir(parents=True)
    shutil.copy(case / "s0001" / "segmentations" / "liver.nii.gz", case / "s0001" / "segmentations" / "livr.nii.gz")
    (case / "s0001" / "segmentations" / "spleen.nrrd").write_text("x")
    (case / "meta.csv").write_text("image_id;split\ns0001;nonsense\ns0001;train\ns0009;val\n")
    with pytest.raises(Exception, match="livr"):
        discover(case)
    listing = collect(case)
    assert codes(listing) == {
        "case-empty", "image-missing", "masks-missing", "unknown-name", "file-ignored", "meta", "meta-absent",
        "meta-no-subset",
    }  # fmt: skip
    unknown = next(finding for finding in listing.findings if finding.code == "unknown-name")
    assert (unknown.case, unknown.fix) == ("s0001", "Did you mean 'liver'?")
    assert listing.split.train == ("s0001",)


@pytest.mark.parametrize("content", [b"id,split\na,b\n", b"", b"\xff\xfe\x00"])
def test_a_table_that_cannot_be_read_is_one_finding(case, content):
    (case / "meta.csv").write_bytes(content)
    assert codes(collect(case)) == {"meta"}


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
    listing = collect(out)
    assert codes(listing) == {"datalist", "file-missing", "same-id"}
    assert {id: patient for id, patient in listing.patients.items() if id != patient} == {"S0001": "7"}
    for text in ("[1]", "{", '"x"'):
        path.write_text(text)
        assert [finding.code for finding in collect(out).findings] == ["datalist"]
        assert collect(path).cases == []
