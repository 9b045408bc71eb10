"""Many scans at once: what fails stops no other, nothing half-written stays, and memory is held to."""

import numpy as np
import pytest

from medseg import resources
from medseg.bundle import Bundle, Predictor, Segmentation
from medseg.bundle.segmenting import shapes_of
from medseg.data import read_grid, read_volume
from medseg.data.nifti import read_looked_for
from medseg.errors import DataError, LabelError, OutputError


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor(Bundle(trained), {"device": "cpu"})


@pytest.fixture
def scan(phantom):
    return phantom / "p0002" / "ct.nii.gz"


def as_dicom(scan, save_dicom, name="series"):
    """The same voxels as a DICOM series, and as a NIfTI file they would be read from."""
    hu, _ = read_volume(scan)
    return save_dicom(name, hu[:, :, :3], step=5.0, PixelSpacing=(2.0, 2.0))


def test_a_dicom_folder_gives_what_its_nifti_gives_on_the_grid_of_the_series(
    predictor, scan, save_dicom, save, tmp_path
):
    folder = as_dicom(scan, save_dicom)
    grid = read_grid(folder)
    contralateral = save("contralateral.nii.gz", read_volume(scan)[0][:, :, :3], grid.affine)
    found = predictor.predict_case(folder)
    assert np.array_equal(found.label, predictor.predict_case(contralateral).label)
    label, location = read_volume(found.save(tmp_path / "mask.nii.gz"))
    assert location.matches(grid, tolerance_mm=1e-6)
    assert np.array_equal(label, found.label)


def test_a_real_dicom_series_and_its_nifti_give_one_mask(trained, real):
    predictor = Predictor(Bundle(trained), {"device": "cpu", "patch_size": [512, 512], "spacing": [4.0, 4.0, -1]})
    series = predictor.predict_case(real / "dicom" / "abdomen_ct")
    nifti = predictor.predict_case(real / "totalseg_mini" / "s0001" / "ct.nii.gz")
    assert series.grid.matches(nifti.grid)
    assert np.array_equal(series.label, nifti.label)


def test_errors_name_the_dicom_folder_and_not_what_it_was_turned_into(predictor, scan, save_dicom):
    folder = as_dicom(scan, save_dicom)
    loaded = predictor.load(folder)
    loaded.item["image"][0, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match=f"{folder}.*finite"):
        predictor.segment(loaded)


def test_only_the_named_structures_come_out(trained, predictor, scan, tmp_path):
    whole = predictor.predict_case(scan).label
    some = Predictor(Bundle(trained), {"device": "cpu"}, only=["liver", "spleen"])
    found = some.predict_case(scan)
    indices = [found.labels.index(name) for name in ("liver", "spleen")]
    assert np.array_equal(found.label, np.where(np.isin(whole, indices), whole, 0))
    assert read_looked_for(found.save(tmp_path / "m.nii.gz")) == found.only == some.labels.select(["liver", "spleen"])
    with pytest.raises(LabelError, match="Did you mean 'liver'"):
        Predictor(Bundle(trained), {"device": "cpu"}, only=["livr"])


def test_what_a_killed_process_left_is_removed_and_strangers_stay(predictor, scan, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    left, stranger = out / ".a.12345678.partial.nii.gz", out / ".b.12345678.partial.nii.gz"
    left.touch()
    stranger.touch()
    (outcome,) = Segmentation(predictor, {scan: out / "a.nii.gz"}).run()
    assert outcome.error is None
    assert {path.name for path in out.iterdir()} == {"a.nii.gz", stranger.name}


def test_a_full_disk_leaves_no_mask_that_looks_whole(predictor, scan, tmp_path):
    resource = pytest.importorskip("resource", reason="only Unix limits the size of files")
    mask = tmp_path / "out" / "a.nii.gz"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    prediction = predictor.predict_case(scan)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, hard))
    try:
        with pytest.raises(OutputError, match=r"a\.nii\.gz: the file cannot be written.*Free space"):
            prediction.save(mask)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(mask.parent.iterdir())


def test_a_budget_makes_the_batch_smaller_or_refuses_the_scan(trained, scan, tmp_path):
    predictor = Predictor(Bundle(trained), {"device": "cpu"})
    shapes = shapes_of(predictor, read_grid(scan))
    assert shapes.network == tuple(read_grid(scan).shape)
    work = Segmentation(predictor, {scan: tmp_path / "a.nii.gz"}, budget=10**15)
    assert work.need.ram > 0
    assert work.options.sw_batch_size == shapes.batch
    work = Segmentation(predictor, {scan: tmp_path / "a.nii.gz"}, budget=resources.process_ram() + 1000)
    (outcome,) = work.run()
    assert isinstance(outcome.error, DataError)
    assert str(outcome.error).startswith(f"{scan}: needs at least")


def test_an_unexpected_error_of_one_scan_names_it(predictor, scan, tmp_path):
    class Breaks(Predictor):
        def __init__(self):
            vars(self).update(vars(predictor))

        def segment(self, scan):
            raise ZeroDivisionError("of a bug")

    (outcome,) = Segmentation(Breaks(), {scan: tmp_path / "a.nii.gz"}).run()
    assert f"{scan}: could not be segmented (ZeroDivisionError: of a bug" in str(outcome.error)
    assert isinstance(outcome.error.__cause__, ZeroDivisionError)
