import dataclasses

import numpy as np
import pytest

from medseg.cases import Case
from medseg.data import prepare
from medseg.data.checks.case import CaseJob, check_case
from medseg.data.layouts import collect
from medseg.findings import error
from medseg.labels import LabelMap


@pytest.fixture
def job(case) -> CaseJob:
    return CaseJob("s0001", collect(case).cases[0])


def single(id, image, **files) -> CaseJob:
    return CaseJob(id, Case(id, image, **files))


def codes(report) -> list[str]:
    return sorted({finding.code for finding in report.findings if finding.severity != "note"})


def test_a_case_is_summarized(job):
    report = check_case(job)
    assert report.summary.voxels == {"liver": 144, "spleen": 48}
    assert report.summary.ml["liver"] == pytest.approx(144 * 12 / 1000)
    assert (report.summary.shape, report.summary.spacing, report.summary.axes) == ((12, 10, 8), (2, 2, 3), "RAS")
    assert report.overlaps == {("liver", "spleen"): 8}
    assert set(report.complete_ml) == {"liver"}  # the spleen ends at the border
    assert {finding.case for finding in report.findings} == {"s0001"}


def test_masks_are_checked_without_their_image(job):
    broken = job.case.masks["liver"]
    broken.write_bytes(broken.read_bytes()[:-20])
    job.case.image.write_bytes(b"no image")
    report = check_case(job)
    assert {finding.code for finding in report.findings} == {"file-not-image", "file-truncated", "spacing-suspicious"}
    assert (report.summary, report.digest, report.preview) == (None, "", None)
    missing = (error("image-missing", "ct.nii.gz", "the case has no CT"),)
    assert "file-truncated" in {f.code for f in check_case(dataclasses.replace(job, findings=missing)).findings}


def test_the_digest_of_an_image_does_not_depend_on_its_storage(job, save):
    report = check_case(job)
    hu = np.random.default_rng(0).integers(-200, 200, (12, 10, 8))
    second = single("x", save("x.nii", hu.astype(np.float64)))
    assert check_case(second).digest == report.digest
    assert check_case(single("y", save("y.nii", hu.astype(np.int32) + 1))).digest != report.digest


def test_a_label_map_is_measured_like_its_masks(case, tmp_path, job):
    prepare(case, tmp_path / "out")
    listing = collect(tmp_path / "out")
    masks, label_map = check_case(job), check_case(CaseJob("s0001", listing.cases[0]), listing.labels)
    voxels = masks.summary.voxels
    assert label_map.summary.voxels == {"liver": voxels["liver"] - 8, "spleen": voxels["spleen"]}
    assert label_map.overlaps == {}


def test_a_label_map_must_hold_labels(job, save):
    names = LabelMap(["liver", "spleen"])
    ct = job.case.image
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    label = np.zeros((12, 10, 8))
    label[2:4, 2:4, 2:4] = 5
    job = single("s", ct, label=save("high.nii", label, affine))
    assert "label-values" in codes(check_case(job, names))
    assert "label_5" in check_case(job, names).summary.voxels
    label[0, 0, 0] = 0.5
    assert "label-values" in codes(check_case(single("s", ct, label=save("half.nii", label, affine)), names))
    assert "label-shape" in codes(check_case(single("s", ct, label=save("small.nii", label[1:], affine)), names))
    empty = check_case(single("s", ct, label=save("empty.nii", label * 0, affine)), names)
    assert "nothing-labeled" in codes(empty)
    assert empty.absent == ("liver", "spleen")


def test_loose_files_need_not_be_ct(save):
    mask = save("mask.nii", np.eye(40, dtype=np.uint8)[..., None].repeat(3, axis=2))
    job = CaseJob("mask.nii", Case("mask", mask), loose=True)
    assert codes(check_case(job)) == []
    assert codes(check_case(dataclasses.replace(job, loose=False))) == ["not-hu"]


def test_the_preview_is_the_slice_with_most_labels(job):
    printable = check_case(job, preview=True).preview
    assert printable.hu.shape == printable.label.shape == (12, 10, 1)
    assert printable.names == ("liver", "spleen")
    assert printable.grid.spacing == (2, 2, 3)
    assert set(np.unique(printable.label)) == {0, 1, 2}
