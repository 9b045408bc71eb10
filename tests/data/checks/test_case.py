import dataclasses

import numpy as np
import pytest

from medseg.data import prepare
from medseg.data.checks.case import read_case
from medseg.data.checks.survey import Plan, survey
from medseg.labels import LabelMap


@pytest.fixture
def plan(case) -> Plan:
    return survey(case).cases[0]


def codes(reading) -> list[str]:
    return sorted({finding.code for finding in reading.findings if finding.severity != "note"})


def test_a_case_is_summed_up(plan):
    reading = read_case(plan)
    assert reading.summary.voxels == {"liver": 144, "spleen": 48}
    assert reading.summary.ml["liver"] == pytest.approx(144 * 12 / 1000)
    assert (reading.summary.shape, reading.summary.spacing, reading.summary.axes) == ((12, 10, 8), (2, 2, 3), "RAS")
    assert reading.overlaps == {("liver", "spleen"): 8}
    assert set(reading.whole) == {"liver"}  # the spleen ends at the border
    assert {finding.case for finding in reading.findings} == {"s0001"}


def test_masks_are_looked_at_without_their_image(plan):
    broken = plan.masks["liver"]
    broken.write_bytes(broken.read_bytes()[:-20])
    plan.image.write_bytes(b"no image")
    reading = read_case(plan)
    assert {finding.code for finding in reading.findings} == {"file-not-image", "file-truncated"}
    assert (reading.summary, reading.digest, reading.picture) == (None, "", None)
    assert "file-truncated" in {finding.code for finding in read_case(dataclasses.replace(plan, image=None)).findings}


def test_an_image_is_the_same_however_it_is_stored(plan, save):
    reading = read_case(plan)
    hu = np.random.default_rng(0).integers(-200, 200, (12, 10, 8))
    other = Plan("x", save("x.nii", hu.astype(np.float64)))
    assert read_case(other).digest == reading.digest
    assert read_case(Plan("y", save("y.nii", hu.astype(np.int32) + 1))).digest != reading.digest


def test_label_maps_are_read_as_masks_are(case, tmp_path, plan):
    prepare(case, tmp_path / "out")
    seen = survey(tmp_path / "out")
    one, other = read_case(plan), read_case(seen.cases[0], seen.labels)
    assert other.summary.voxels == {"liver": one.summary.voxels["liver"] - 8, "spleen": one.summary.voxels["spleen"]}
    assert other.overlaps == {}


def test_a_label_map_must_hold_labels(plan, save):
    names = LabelMap(["liver", "spleen"])
    ct = plan.image
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    label = np.zeros((12, 10, 8))
    label[2:4, 2:4, 2:4] = 5
    plan = Plan("s", ct, label=save("high.nii", label, affine))
    assert "label-values" in codes(read_case(plan, names))
    assert "label_5" in read_case(plan, names).summary.voxels
    label[0, 0, 0] = 0.5
    assert "label-values" in codes(read_case(Plan("s", ct, label=save("half.nii", label, affine)), names))
    assert "label-shape" in codes(read_case(Plan("s", ct, label=save("small.nii", label[1:], affine)), names))
    empty = read_case(Plan("s", ct, label=save("empty.nii", label * 0, affine)), names)
    assert "nothing-labelled" in codes(empty)
    assert empty.absent == ("liver", "spleen")


def test_what_belongs_to_no_set_is_not_blamed_for_being_no_ct(save):
    plan = Plan("mask.nii", save("mask.nii", np.eye(40, dtype=np.uint8)[..., None].repeat(3, axis=2)), loose=True)
    assert codes(read_case(plan)) == []
    assert codes(read_case(dataclasses.replace(plan, loose=False))) == ["not-hu"]


def test_the_slice_of_a_picture_shows_most_of_what_is_there(plan):
    printable = read_case(plan, picture=True).picture
    assert printable.hu.shape == printable.label.shape == (12, 10, 1)
    assert printable.names == ("liver", "spleen")
    assert printable.grid.spacing == (2, 2, 3)
    assert set(np.unique(printable.label)) == {0, 1, 2}
