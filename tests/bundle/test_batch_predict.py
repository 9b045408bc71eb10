"""Many scans at once: what fails stops no other, nothing half-written stays, and memory is held to."""

import threading

import numpy as np
import pytest

from medseg import resources
from medseg.bundle import BatchPredictor, Bundle, Predictor, VolumeWriter
from medseg.bundle.batch_predict import run_pipelined, shapes_of
from medseg.data import read_grid, read_volume
from medseg.data.nifti_writer import read_restriction
from medseg.errors import DataError, LabelError, OutputError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor(Bundle(trained), {"device": "cpu"})


@pytest.fixture
def scan(phantom):
    return phantom / "p0002" / "ct.nii.gz"


def batch(predictor, targets, **options):
    return BatchPredictor(predictor, VolumeWriter(targets, predictor.labels), **options)


def as_dicom(scan, save_dicom, name="series"):
    """The same voxels as a DICOM series, and as a NIfTI file they would be read from."""
    hu, _ = read_volume(scan)
    return save_dicom(name, hu[:, :, :3], step=5.0, PixelSpacing=(2.0, 2.0))


def test_a_dicom_folder_and_its_nifti_give_the_same_mask(predictor, scan, save_dicom, save, tmp_path):
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


def test_errors_name_the_dicom_folder(predictor, scan, save_dicom):
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
    assert read_restriction(found.save(tmp_path / "m.nii.gz")) == found.only == some.labels.select(["liver", "spleen"])
    with pytest.raises(LabelError, match="Did you mean 'liver'"):
        Predictor(Bundle(trained), {"device": "cpu"}, only=["livr"])


def test_partial_files_of_a_killed_process_are_removed_and_others_stay(predictor, scan, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    left, stranger = out / ".a.12345678.partial.nii.gz", out / ".b.12345678.partial.nii.gz"
    left.touch()
    stranger.touch()
    (outcome,) = batch(predictor, {scan: out / "a.nii.gz"}).run()
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
    work = batch(predictor, {scan: tmp_path / "a.nii.gz"}, budget=10**15)
    assert work.need.ram > 0
    assert work.options.sw_batch_size == shapes.batch
    work = batch(predictor, {scan: tmp_path / "a.nii.gz"}, budget=resources.process_ram() + 1000)
    (outcome,) = work.run()
    assert isinstance(outcome.error, DataError)
    assert str(outcome.error).startswith(f"{scan}: needs at least")


def test_an_unexpected_error_of_one_scan_names_it(predictor, scan, tmp_path):
    class Breaks(Predictor):
        def __init__(self):
            vars(self).update(vars(predictor))

        def segment(self, scan, options=None):
            raise ZeroDivisionError("of a bug")

    (outcome,) = batch(Breaks(), {scan: tmp_path / "a.nii.gz"}).run()
    assert f"{scan}: segmenting failed (ZeroDivisionError: of a bug" in str(outcome.error)
    assert isinstance(outcome.error.__cause__, ZeroDivisionError)


def test_reading_computing_and_writing_overlap():
    read_next, wrote_last = threading.Event(), threading.Event()
    threads = {"read": set(), "compute": set(), "write": set()}

    def read(item):
        threads["read"].add(threading.get_ident())
        if item == 2:
            read_next.set()
        return item

    def compute(item):
        threads["compute"].add(threading.get_ident())
        if item == 1:
            assert read_next.wait(10)  # 2 is read while 1 is computed
        if item == 2:
            assert wrote_last.wait(10)  # 1 is written while 2 is computed
        return item

    def write(item, value):
        threads["write"].add(threading.get_ident())
        if item == 1:
            wrote_last.set()
        return value

    assert [outcome.result for outcome in run_pipelined([1, 2, 3], read, compute, write)] == [1, 2, 3]
    assert threads["compute"] == {threading.get_ident()}
    assert len(threads["read"] | threads["compute"] | threads["write"]) == 3


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("stage", ["read", "compute", "write"])
def test_a_failure_stops_no_other_and_the_order_stays(ahead, stage):
    def fail(name, item):
        if name == stage and item == 2:
            raise ValueError(f"{name} {item}")
        return item

    outcomes = list(
        run_pipelined(
            [1, 2, 3],
            lambda item: fail("read", item),
            lambda item: fail("compute", item),
            lambda item, made: fail("write", made),
            ahead,
        )
    )
    assert [one.item for one in outcomes] == [1, 2, 3]
    assert [outcome.result for outcome in outcomes] == [1, None, 3]
    assert str(outcomes[1].error) == f"{stage} 2"


def test_no_more_than_the_next_is_read():
    begun = []
    computed = []

    def compute(item):
        assert max(begun) <= item + 1
        computed.append(item)
        return item

    def read(item):
        assert item <= len(computed) + 2
        begun.append(item)
        return item

    assert len(list(run_pipelined(range(1, 20), read, compute, lambda item, made: made))) == 19


@pytest.mark.parametrize("ahead", [True, False])
def test_ctrl_c_finishes_the_file_being_written_and_starts_no_other(ahead):
    written, read_items = [], []

    def compute(item):
        if item == 2:
            raise KeyboardInterrupt
        return item

    def read(item):
        read_items.append(item)
        return item

    with pytest.raises(KeyboardInterrupt):
        for _ in run_pipelined([1, 2, 3, 4, 5], read, compute, lambda item, made: written.append(item)):
            pass
    assert written == [1]
    assert set(read_items) <= {1, 2, 3}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("medseg-read", "medseg-write"))]
