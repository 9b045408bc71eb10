"""The patient of a case, from a table or a datalist, through every layout that is written, and back into a split."""

import json

import numpy as np
import pytest

from medseg.cases import SPLITS
from medseg.data import convert, discover, open_dataset, prepare
from medseg.errors import DataError

PATIENTS = {f"s{number:04}": f"p{number // 2}" for number in range(8)}


@pytest.fixture
def cohort(tmp_path, save):
    """Eight cases of four patients in TotalSegmentator's layout, with a table."""
    for number, id in enumerate(PATIENTS):
        ct = np.random.default_rng(number).integers(-200, 200, (6, 5, 4)).astype(np.int16)
        mask = np.zeros(ct.shape, np.uint8)
        mask[1:4, 1:3, 1:3] = 1
        save(f"set/{id}/ct.nii.gz", ct)
        save(f"set/{id}/segmentations/liver.nii.gz", mask)
    return tmp_path / "set"


def write_table(root, column="patient", split=None, spelling=str):
    rows = [f"{spelling(id)};{patient};{(split or {}).get(id, '')}" for id, patient in PATIENTS.items()]
    (root / "meta.csv").write_text("\n".join([f"image_id;{column};split", *rows]) + "\n", encoding="utf-8")


def patients_of(dataset):
    return {case.id: case.patient for case in dataset.cases}


def subsets(dataset):
    return {subset: set(getattr(dataset.split, subset)) for subset in SPLITS}


@pytest.mark.parametrize(("column", "spelling"), [("patient", str), ("subject_id", str.upper)])
def test_a_patient_stays_with_its_cases_through_every_layout(cohort, tmp_path, column, spelling):
    write_table(cohort, column, spelling=spelling)
    dataset = discover(cohort)
    assert patients_of(dataset) == PATIENTS
    expected = subsets(dataset.with_split())
    assert expected["val"]
    steps = {
        "prepared": lambda source, out: prepare(source, out),
        "raw": lambda source, out: convert(source, out, "nnunet"),
        "decathlon": lambda source, out: convert(source, out, "datalist"),
        "again": lambda source, out: prepare(source, out),
        "last": lambda source, out: convert(source, out, "nnunet"),
    }
    source = cohort
    for name, step in steps.items():
        step(source, tmp_path / name)
        source = tmp_path / name
        dataset = discover(source)
        assert patients_of(dataset) == PATIENTS, name
        assert subsets(dataset) == expected, name
    # What another fold of the last set does: a split by hash, and one that names patients.
    (tmp_path / "last" / "splits_final.json").unlink()
    dataset = discover(tmp_path / "last")
    assert subsets(dataset.with_split()) == expected
    assert dataset.with_split({"val": ["P3"]}).split.val == ("s0006", "s0007")
    with pytest.raises(DataError, match="is in two subsets of the split"):
        dataset.with_split({"val": ["s0006"], "train": ["s0007"]})


def test_a_table_that_spreads_a_patient_is_refused_before_and_after_conversion(cohort, tmp_path):
    write_table(cohort, split={id: "val" if id == "s0001" else "train" for id in PATIENTS})
    for work in (lambda: prepare(cohort, tmp_path / "a"), lambda: convert(cohort, tmp_path / "b", "nnunet")):
        with pytest.raises(DataError, match="patient 'p0' is in two subsets of the split"):
            work()
    write_table(cohort)
    convert(cohort, tmp_path / "raw", "nnunet")
    (tmp_path / "raw" / "splits_final.json").write_text(json.dumps([{"train": ["s0000"], "val": ["s0001"]}]))
    with pytest.raises(DataError, match="patient 'p0' is in two subsets of the split"):
        discover(tmp_path / "raw")


def test_the_patient_of_a_datalist_survives_and_test_cases_keep_theirs(cohort, tmp_path):
    write_table(cohort, split={id: "test" if patient == "p3" else "" for id, patient in PATIENTS.items()})
    convert(cohort, tmp_path / "list", "datalist")
    path = tmp_path / "list" / "dataset.json"
    content = json.loads(path.read_text())
    for entry in [*content["training"], *content.pop("validation")]:
        entry["patient"] = int(entry["patient"][1:])  # a number, as tables have it
    path.write_text(json.dumps(content))
    prepare(tmp_path / "list", tmp_path / "out")
    expected = {id: patient if patient == "p3" else patient[1:] for id, patient in PATIENTS.items()}
    listed = {case.id: case.patient for case in discover(tmp_path / "out").cases}
    assert listed == {id: patient for id, patient in expected.items() if id in listed}
    assert {"s0006", "s0007"} <= set(listed)
    dataset = open_dataset(tmp_path / "out", discover(tmp_path / "out").labels, tmp_path / "cache")
    assert not dataset.split.leaks(dataset.patients)
