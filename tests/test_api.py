"""The front door gives what `medseg predict` writes, for every kind of image, and says what to pass instead."""

import sys
import types

import nibabel as nib
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from monai.data import MetaTensor
from PIL import Image

import medseg
from medseg.bundle import Predictor
from medseg.cli.main import cli
from medseg.data import read_grid, read_volume
from medseg.data.dicom_file import load_itk
from medseg.errors import DataError, GeometryError, InputError, LabelError
from tests.made_inputs import itk_image
from tests.slices import trained_in

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def predictor(trained):
    return medseg.load(trained, device="cpu")


@pytest.fixture(scope="module")
def scan(phantom):
    return phantom / "p0002" / "ct.nii.gz"


@pytest.fixture(scope="module")
def predicted(trained, scan, tmp_path_factory):
    """What `medseg predict` writes for the scan: array and affine."""
    out = tmp_path_factory.mktemp("predicted")
    done = CliRunner().invoke(cli, ["predict", str(trained), str(scan), "-o", str(out), "--set", "device=cpu"])
    assert done.exit_code == 0, done.output
    image = nib.load(out / "p0002.nii.gz")
    return np.asanyarray(image.dataobj), image.affine


def kinds(voxels, grid):
    """The same scan as everything that `segment` takes from memory."""
    tensor = torch.from_numpy(voxels.astype(np.float32))
    return {
        "array": (voxels, grid.affine),
        "list": (voxels.tolist(), grid.affine.tolist()),
        "tensor": (tensor, torch.as_tensor(grid.affine.copy())),
        "nibabel": (nib.Nifti1Image(voxels, grid.affine), None),
        "itk": (itk_image(voxels, grid.affine), None),
        "metatensor": (MetaTensor(tensor, affine=grid.affine.copy()), None),
        "channel first": (MetaTensor(tensor[None], affine=grid.affine.copy()), None),
    }


@pytest.mark.parametrize("kind", ["array", "list", "tensor", "nibabel", "itk", "metatensor", "channel first"])
def test_an_image_in_memory_gives_the_mask_that_predict_writes(predictor, predicted, scan, kind):
    voxels, grid = read_volume(scan)
    image, affine = kinds(voxels, grid)[kind]
    prediction = medseg.segment(image, predictor, affine=affine)
    assert np.array_equal(prediction.array, predicted[0])
    assert np.allclose(prediction.affine, grid.affine, atol=1e-9 if kind != "itk" else 1e-5)
    assert np.allclose(prediction.to_nibabel().affine, predicted[1], atol=1e-6)


def test_a_nibabel_image_breaks_the_rules_that_its_file_breaks(predictor, predicted, scan):
    voxels, grid = read_volume(scan)
    image = nib.Nifti1Image(voxels[..., None], grid.affine)
    assert np.array_equal(medseg.segment(image, predictor).array, predicted[0])  # a last axis of 1
    image.header["sform_code"] = image.header["qform_code"] = 0
    with pytest.raises(GeometryError, match=r"image: neither sform nor qform is set.*accept=\[no-geometry\]"):
        medseg.segment(image, predictor)
    image = nib.Nifti1Image(voxels, np.diag([1e-3, 1e-3, 1e-3, 1]) @ grid.affine)
    with pytest.raises(GeometryError, match="image: a voxel measures 0.00"):
        medseg.segment(image, predictor)
    image.header.set_xyzt_units("meter")
    assert np.array_equal(medseg.segment(image, predictor).array, predicted[0])


@pytest.mark.parametrize("axes", ["LPS", "PIR", "SAL"])
def test_arrays_in_other_orientations_give_the_mask_that_predict_writes(predictor, trained, scan, tmp_path, axes):
    image = nib.load(scan)
    ornt = nib.orientations.axcodes2ornt(axes)
    turned = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), ornt))
    nib.save(turned, tmp_path / "turned.nii.gz")
    prediction = medseg.segment(np.asanyarray(turned.dataobj), predictor, affine=turned.affine)
    arguments = ["predict", trained, tmp_path / "turned.nii.gz", "-o", tmp_path / "out", "--set", "device=cpu"]
    assert CliRunner().invoke(cli, [str(argument) for argument in arguments]).exit_code == 0
    written = nib.load(tmp_path / "out" / "turned.nii.gz")
    assert np.array_equal(prediction.array, np.asanyarray(written.dataobj))
    assert np.array_equal(prediction.affine, turned.affine)
    assert np.array_equal(written.affine, nib.load(tmp_path / "turned.nii.gz").affine)


def test_every_kind_of_file_gives_the_same_mask(predictor, scan, save_dicom, tmp_path):
    voxels, _ = read_volume(scan)
    folder = save_dicom("series", voxels[:, :, :4], PixelSpacing=(2.0, 2.0))
    grid = read_grid(folder)
    itk = load_itk()
    expected = medseg.segment(folder, predictor)
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        path = tmp_path / f"scan{suffix}"
        itk.imwrite(itk_image(voxels[:, :, :4], grid.affine), str(path))
        prediction = medseg.segment(str(path), predictor)
        assert np.array_equal(prediction.array, expected.array)
        assert prediction.grid.matches(grid, 1e-4)
        saved, location = read_volume(prediction.save(tmp_path / f"mask{suffix}.nii.gz"))
        assert np.array_equal(saved, expected.array)
        assert location.matches(read_grid(path), 1e-5)


def test_simpleitk_images_are_read_by_their_package(predictor, predicted, scan, monkeypatch):
    """SimpleITK gives its direction as nine numbers, and has a function of its own for arrays."""
    voxels, grid = read_volume(scan)
    image = itk_image(voxels, grid.affine)

    class Stub:
        GetSpacing, GetOrigin = image.GetSpacing, image.GetOrigin

        def GetDirection(self):
            return tuple(load_itk().array_from_matrix(image.GetDirection()).ravel())

    Stub.__module__ = "SimpleITK.SimpleITK"
    package = types.ModuleType("SimpleITK")
    package.GetArrayFromImage = lambda stub: np.ascontiguousarray(voxels.T)
    monkeypatch.setitem(sys.modules, "SimpleITK", package)
    assert np.array_equal(medseg.segment(Stub(), predictor).array, predicted[0])


def test_a_bundle_is_taken_by_path_with_options(trained, scan, predicted):
    prediction = medseg.segment(scan, trained, only=["liver"], device="cpu", confidence=True)
    liver = prediction.labels.index("liver")
    assert np.array_equal(prediction.array, np.where(predicted[0] == liver, liver, 0))
    assert prediction.structures == ("liver",)
    assert set(prediction.confidence) <= {"liver", "spleen", "kidney_left", "kidney_right"}
    assert medseg.load(trained, "liver", device="cpu").only == ("liver",)
    with pytest.raises(InputError, match="a loaded Predictor takes no options"):
        medseg.segment(scan, medseg.load(trained, device="cpu"), only=["liver"])


def test_a_prediction_says_what_it_holds(predictor, scan, tmp_path):
    prediction = medseg.segment(scan, predictor)
    statistics = prediction.statistics()
    assert set(statistics) == set(predictor.labels.structures)
    for name, row in statistics.items():
        assert row["voxels"] == int(prediction.mask(name).sum())
        assert row["volume_ml"] == pytest.approx(row["voxels"] * prediction.grid.voxel_ml)
    assert prediction.mask("liver").dtype == bool
    assert prediction.preview().width > 300
    image = prediction.to_nibabel()
    assert np.array_equal(np.asanyarray(image.dataobj), prediction.array)
    nib.save(image, tmp_path / "a.nii.gz")
    evaluation = medseg.evaluate(tmp_path / "a.nii.gz", prediction.save(tmp_path / "b.nii.gz"))
    assert evaluation.mean("dice") == 1.0
    with pytest.raises(LabelError, match="Did you mean 'liver'"):
        prediction.mask("livr")
    plain = medseg.Prediction(prediction.label, prediction.grid, prediction.labels)
    for read in (plain.statistics, plain.preview):
        with pytest.raises(DataError, match="the voxels of the scan were not kept"):
            read()


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_an_array_in_memory_is_never_changed(predictor, scan, predicted, dtype):
    voxels, grid = read_volume(scan)
    voxels = np.asfortranarray(voxels.astype(dtype))
    before = voxels.copy()
    prediction = medseg.segment(voxels, predictor, affine=grid.affine)
    assert np.array_equal(voxels, before)
    assert np.array_equal(prediction.image, before)
    assert np.array_equal(prediction.array, predicted[0])


def test_values_that_are_no_hu_are_said_in_the_prediction_and_in_the_log(predictor, scan, caplog):
    voxels, grid = read_volume(scan)
    prediction = medseg.segment(voxels + 1024, predictor, affine=grid.affine)
    assert [problem.code for problem in prediction.warnings] == ["trained-on-phantoms", "rescale-missing"]
    assert "stored values (HU + 1024) that were never scaled" in caplog.text
    assert medseg.segment(scan, predictor).warnings == ()


def test_paths_may_begin_with_a_tilde(trained, scan, predicted, monkeypatch):
    monkeypatch.setenv("HOME", str(trained.parent))
    monkeypatch.setenv("USERPROFILE", str(trained.parent))
    predictor = medseg.load(f"~/{trained.name}", device="cpu")
    monkeypatch.setenv("HOME", str(scan.parent))
    monkeypatch.setenv("USERPROFILE", str(scan.parent))
    assert np.array_equal(medseg.segment("~/ct.nii.gz", predictor).array, predicted[0])


def test_the_network_is_a_bare_torch_module(predictor):
    assert isinstance(predictor, Predictor)
    assert not predictor.network.training
    with torch.no_grad():
        assert predictor.network(torch.zeros(1, 1, 32, 32)).shape == (1, 5, 32, 32)


def test_training_returns_its_run(phantom, tiny, tmp_path):
    run = medseg.train("unet2d", phantom, output_dir=str(tmp_path), **{**tiny, "max_epochs": 1})
    assert isinstance(run, medseg.Run)
    assert run.state == "finished"
    assert run.folder.parent.parent == tmp_path
    assert set(medseg.load(run.folder, device="cpu").labels.structures) == set(tiny["structures"])


def test_training_lands_here_and_begins_with_a_run(phantom, tiny, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDSEG_RUNS", raising=False)
    run = medseg.train("unet2d", phantom, **{**tiny, "max_epochs": 1}, init_weights=medseg.Run(trained))
    assert run.folder.parent == tmp_path / "runs" / "unet2d"
    assert run.config["init_weights"] == str(trained)


def test_predictors_predictions_and_evaluations_print_as_one_short_line(predictor, scan):
    prediction = medseg.segment(scan, predictor)
    assert repr(predictor).startswith(f"Predictor({str(predictor.root)!r}, device='cpu', LabelMap(4 structures")
    assert repr(prediction).startswith(f"Prediction({str(scan)!r}, ")
    assert repr(medseg.evaluate(prediction, prediction)) == "Evaluation(1 cases, 4 structures, mean Dice 1.0000)"
    assert repr(medseg.Bundle.open(predictor.root)) == f"Bundle({str(predictor.root)!r})"


@pytest.mark.parametrize("name", ["mask.png", "mask"])
def test_a_label_map_is_saved_as_nifti_only(predictor, scan, tmp_path, name):
    prediction = medseg.segment(scan, predictor)
    with pytest.raises(InputError, match=f"{name}: a label map is saved as NIfTI. Give a path that ends in .nii.gz"):
        prediction.save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_a_nifti_file_is_told_from_a_series(predictor, scan):
    with pytest.raises(DataError, match="holds no DICOM files, but other volumes .ct.nii.gz.. Give the path of a vol"):
        medseg.segment(scan.parent, predictor)


def test_training_on_a_missing_folder_raises_the_error_itself(tmp_path):
    with pytest.raises(DataError, match="absent: there is no such folder[.]"):
        medseg.train("unet2d", tmp_path / "absent", device="cpu", output_dir=str(tmp_path))


BAD = {
    "no affine": (np.zeros((4, 4, 4)), None, "an array does not say where its voxels lie.*Pass affine="),
    "3x3 affine": (np.zeros((4, 4, 4)), np.eye(3), r"affine: it must be 4x4.*shape \(3, 3\).*Pass affine="),
    "flat affine": (np.zeros((4, 4, 4)), np.zeros((4, 4)), "must be invertible"),
    "text as affine": (np.zeros((4, 4, 4)), "RAS", "affine: it must be 4x4 numbers .got 'RAS'.. Pass affine="),
    "paths": (["a.nii.gz"], None, "the voxels must be real numbers .got list.*Pass the path of one scan"),
    "2D": (np.zeros((4, 4)), None, r"this is a 2D slice, and the predictor takes volumes \(shape \(4, 4\)\)"),
    "2D with affine": (np.zeros((4, 4)), np.eye(4), "this is a 2D slice, and the predictor takes volumes"),
    "4D": (np.zeros((4, 4, 4, 2)), np.eye(4), r"a scan must have 3 dimensions \(shape \(4, 4, 4, 2\)\)"),
    "text": (np.array([["a"]]), np.eye(4), "the voxels must be real numbers"),
    "none": (None, None, "the voxels must be real numbers"),
    "nibabel and affine": (nib.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4)), np.eye(4), "it goes with an array only"),
}


@pytest.mark.parametrize("kind", BAD)
def test_images_that_say_too_little_are_value_errors_that_say_what_to_pass(predictor, kind):
    image, affine, message = BAD[kind]
    with pytest.raises(ValueError, match=message) as caught:
        medseg.segment(image, predictor, affine=affine)
    assert isinstance(caught.value, InputError)


def test_a_path_goes_without_an_affine_and_nan_is_refused(predictor, scan):
    with pytest.raises(InputError, match="a file says itself where it lies"):
        medseg.segment(scan, predictor, affine=np.eye(4))
    voxels = np.zeros((8, 8, 2), np.float32)
    voxels[0, 0, 0] = np.nan
    with pytest.raises(DataError, match="image: 1 voxels are NaN or infinite"):
        medseg.segment(voxels, predictor, affine=np.eye(4))


@pytest.fixture(scope="module")
def trained_slices(tmp_path_factory):
    return trained_in(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def slice_predictor(trained_slices):
    return medseg.load(trained_slices, slices=True, device="cpu")


def test_a_2d_image_in_memory_gives_what_its_png_gives(trained_slices, slice_predictor, tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (40, 30)).astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    written = medseg.segment(tmp_path / "a.png", trained_slices, device="cpu")
    assert isinstance(written, medseg.bundle.SlicePrediction)
    assert written.array.shape == (40, 30)
    for image in (values, torch.from_numpy(values)):
        assert np.array_equal(medseg.segment(image, slice_predictor).array, written.array)
    assert np.array_equal(written.mask("stomach"), written.array == 1)


def test_a_volume_is_refused_by_a_predictor_of_slices(slice_predictor, scan):
    for image, affine in ((scan, None), (np.zeros((4, 4, 4)), np.eye(4))):
        with pytest.raises(InputError, match="this is a volume, and the predictor takes 2D slices"):
            medseg.segment(image, slice_predictor, affine=affine)
