"""A mask lies exactly where its scan lies, however that is turned; here with a tiny network trained on the phantom."""

import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy import ndimage

from medseg.bundle import Bundle, Prediction, Predictor
from medseg.data import read_grid
from medseg.errors import ConfigError, DataError, DeviceError, GeometryError, WeightsError
from medseg.grid import Grid
from medseg.labels import LabelMap

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor(Bundle(trained), {"device": "cpu"})


def oblique(degrees=20.0):
    z = np.deg2rad(degrees)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]) @ np.diag([2.0, 2, 5])
    affine[:3, 3] = [-30, 12, 7]
    return affine


def scan(save, name, axes="RAS", affine=None, shape=(40, 36, 5)):
    """The same body in another orientation: the voxels are turned along, none is changed."""
    rng = np.random.default_rng(0)
    hu = np.full(shape, -1000, np.int16)
    hu[4:-4, 4:-4] = rng.integers(-100, 200, (shape[0] - 8, shape[1] - 8, shape[2]))
    image = nib.Nifti1Image(hu, np.diag([3.0, 3, 6, 1]) if affine is None else affine)
    turn = nib.orientations.ornt_transform(nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes))
    image = image.as_reoriented(turn)
    return save(name, np.asanyarray(image.dataobj), image.affine)


def in_ras(path):
    return np.asanyarray(nib.as_closest_canonical(nib.load(path)).dataobj)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SAL"])
def test_a_mask_has_its_scans_shape_affine_and_labels_in_every_orientation(predictor, save, tmp_path, axes):
    source = scan(save, f"{axes}.nii.gz", axes)
    plain = scan(save, "plain.nii.gz")
    mask = predictor.predict_case(source).save(tmp_path / "out" / "mask.nii.gz")
    written, original = nib.load(mask), nib.load(source)
    assert written.shape == original.shape
    assert np.array_equal(written.affine, original.affine)
    assert written.get_data_dtype() == np.uint8
    # the network sees the same picture, so the same voxels of the body must carry the same labels
    assert np.array_equal(in_ras(mask), predictor.predict_case(plain).label)


@pytest.mark.parametrize(
    ("name", "affine", "shape"),
    [
        ("oblique", oblique(), (40, 36, 5)),
        ("large", np.diag([-0.8, -0.8, 5, 1]), (512, 512, 2)),
        ("thin", None, (40, 36, 1)),
    ],
)
def test_oblique_large_and_thin_volumes_keep_their_grid(predictor, save, tmp_path, name, affine, shape):
    source = scan(
        save,
        f"{name}.nii.gz",
        affine=affine,
        axes="".join(nib.aff2axcodes(affine if affine is not None else np.eye(4))),
        shape=shape,
    )
    mask = predictor.predict_case(source).save(tmp_path / "out.nii.gz")
    assert np.array_equal(nib.load(mask).affine, nib.load(source).affine)
    assert nib.load(mask).shape == shape


def test_resampled_labels_come_back_to_the_place_of_the_scan(trained, save, tmp_path):
    """With the recipe's 1.5 mm in the plane: the way there and back must not shift anything by a voxel."""
    network_grid = Predictor(Bundle(trained), {"device": "cpu", "spacing": [1.5, 1.5, -1]})
    network_grid.network = torch.nn.Conv2d(1, 5, 1)  # says structure 1 where the input is bright: bone, here a cube
    with torch.no_grad():
        network_grid.network.weight[:] = torch.tensor([0.0, 10, 0, 0, 0]).reshape(5, 1, 1, 1)
        network_grid.network.bias[:] = torch.tensor([7.0, 0, -9, -9, -9])
    hu = np.full((30, 26, 4), -100, np.int16)
    hu[8:20, 9:21, 1:3] = 1000
    for affine in (np.diag([3.0, 3, 5, 1]), np.diag([-3.0, -3, 5, 1]), oblique()):
        found = network_grid.predict_case(save("cube.nii.gz", hu, affine)).label
        assert np.array_equal(found == 1, hu > 500)
    for spacing in (0.9, 0.977):  # finer than the network's grid: right but for the outermost voxels
        found = network_grid.predict_case(save("fine.nii.gz", hu, np.diag([spacing, spacing, 5, 1]))).label == 1
        assert not found[~ndimage.binary_dilation(hu > 500)].any()
        assert found[ndimage.binary_erosion(hu > 500, np.ones((3, 3, 1)))].all()
        assert np.abs(np.argwhere(found).mean(axis=0) - np.argwhere(hu > 500).mean(axis=0)).max() <= 0.5


def test_real_scans_keep_their_grid(predictor, real, tmp_path):
    for case in ("s0000", "s0001"):
        source = real / "totalseg_mini" / case / "ct.nii.gz"
        mask = nib.load(predictor.predict_case(source).save(tmp_path / f"{case}.nii.gz"))
        assert np.array_equal(mask.affine, nib.load(source).affine)
        assert mask.shape == nib.load(source).shape


@pytest.mark.parametrize("name", ["oblique", "axes"])
def test_odd_real_geometry_is_kept_or_refused_but_never_moved(predictor, real, tmp_path, name):
    files = sorted(path for path in (real / "odd" / "nifti").glob("*.nii*") if name[:4] in path.name.lower())
    for source in files:
        try:
            mask = predictor.predict_case(source).save(tmp_path / f"{source.name.partition('.')[0]}.nii.gz")
        except DataError:
            continue
        assert read_grid(mask).matches(read_grid(source), tolerance_mm=1e-6)


def test_every_odd_real_file_gives_a_mask_on_its_grid_or_one_clear_error(predictor, real, tmp_path):
    files = sorted((real / "odd" / "nifti").glob("*.nii*"))
    assert files
    outcomes = {}
    for source in files:
        try:
            mask = predictor.predict_case(source).save(tmp_path / f"{source.name.partition('.')[0]}.nii.gz")
            outcomes[source.name] = read_grid(mask).matches(read_grid(source), tolerance_mm=1e-6)
        except DataError as error:
            outcomes[source.name] = source.name in str(error)
    assert all(outcomes.values()), outcomes


def test_colors_complex_numbers_and_shear_are_refused_by_name(predictor, real):
    for name, why in (
        ("totalseg_spine_report_RGB.nii.gz", "the voxels are colors"),
        ("niivue_complex.nii.gz", "the voxels are complex"),
        ("niivue_shear.nii.gz", "sform and qform differ.*It also breaks shear"),
    ):
        with pytest.raises(DataError, match=f"{name}.*{why}"):
            predictor.predict_case(real / "odd" / "nifti" / name)


def test_a_sheared_scan_goes_by_its_voxel_axes_only_when_allowed(trained, save, tmp_path, caplog):
    straight = Grid((40, 36, 9), np.diag([-2.0, -2.0, 5.0, 1.0]))
    affine = straight.affine.copy()
    affine[0, 2] = 1.5
    voxels = np.random.default_rng(0).integers(-900, 900, straight.shape).astype(np.int16)
    sheared = save("sheared.nii.gz", voxels, affine)
    with pytest.raises(GeometryError, match=r"sheared\.nii\.gz: its axes are sheared.*--accept shear"):
        Predictor(Bundle(trained), {"device": "cpu"}).predict_case(sheared)
    found = Predictor(Bundle(trained), {"device": "cpu"}, accept=["shear"]).predict_case(sheared)
    assert "its axes are sheared, 16.70 degrees" in caplog.text
    upright = save("upright.nii.gz", voxels, Grid(straight.shape, affine).upright().affine)
    expected = Predictor(Bundle(trained), {"device": "cpu"}).predict_case(upright)
    assert np.array_equal(found.label, expected.label)
    grid = read_grid(found.save(tmp_path / "mask.nii.gz"), ["shear"])
    assert grid.matches(read_grid(sheared, ["shear"]), tolerance_mm=1e-5)


def test_confidence_is_given_by_structure_on_request(trained, phantom):
    predictor = Predictor(Bundle(trained), {"device": "cpu"})
    scan = predictor.load(phantom / "p0002" / "ct.nii.gz")
    plain = predictor.segment(scan)
    assert plain.confidence is None
    found = predictor.segment(scan, replace(predictor.options, confidence=True))
    assert np.array_equal(found.label, plain.label)
    there = {found.labels.name(int(index)) for index in np.unique(found.label)} - {"background"}
    assert there
    assert set(found.confidence) >= there
    assert all(1 / len(found.labels) < value <= 1 for value in found.confidence.values())


def test_a_coarse_pass_gives_the_same_labels_of_a_structure(trained, phantom):
    scan, only = phantom / "p0002" / "ct.nii.gz", ["liver"]
    whole = Predictor(Bundle(trained), {"device": "cpu"}, only).predict_case(scan).label
    found = Predictor(Bundle(trained), {"device": "cpu"}, only, coarse_first=True).predict_case(scan).label
    inside = found > 0
    assert np.array_equal(found[inside], whole[inside])
    assert inside.sum() >= 0.95 * (whole > 0).sum()


def test_the_mirrored_view_swaps_left_and_right_back(trained, phantom):
    """Of a scan that is its own mirror image, the labels are their own mirror image, sides swapped."""
    predictor = Predictor(Bundle(trained), {"device": "cpu", "inferer#flips": [[0]]})
    scan = predictor.load(phantom / "p0002" / "ct.nii.gz")
    image = scan.item["image"]
    image.set_array((image + image.flip(1)) / 2)
    label = predictor.segment(scan).label
    contralaterals = np.array(predictor.labels.mirror_permutation())
    assert any(contralaterals[index] != index for index in np.unique(label))
    assert np.mean(contralaterals[label[::-1]] != label) < 1e-4


def test_logits_are_not_a_label_map(trained, phantom):
    other = Predictor(Bundle(trained), {"device": "cpu", "inferer#decode": "logits"})
    with pytest.raises(GeometryError, match="the network must give one label map"):
        other.predict_case(phantom / "p0002" / "ct.nii.gz")


def test_a_label_map_of_another_shape_is_no_prediction():
    with pytest.raises(GeometryError, match="shape .* is not that of the grid"):
        Prediction(np.zeros((2, 2, 2), np.uint8), Grid((2, 2, 3), np.eye(4)), LabelMap(["liver"]), "ct.nii.gz")


def test_damaged_and_missing_scans_are_refused_by_name(predictor, save, tmp_path):
    path = scan(save, "cut.nii.gz")
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(DataError, match=r"cut\.nii\.gz: the file is damaged or cut short"):
        predictor.predict_case(path)
    with pytest.raises(DataError, match="no such file"):
        predictor.predict_case(tmp_path / "missing.nii.gz")


def test_weights_of_another_number_of_classes_are_refused(trained):
    with pytest.raises(WeightsError, match=r"model\.pt: .*does not fit the network with 3 output channels") as caught:
        Predictor(Bundle(trained), {"out_channels": "$3", "device": "cpu"})
    assert "got shape (5,)" in str(caught.value)
    with pytest.raises(ConfigError, match="the network's structures are those in"):
        Predictor(Bundle(trained), {"structures": ["liver", "spleen"], "device": "cpu"})


def test_a_recipe_without_weights_says_to_train_first(tmp_path):
    with pytest.raises(WeightsError, match=r"model\.pt: the trained weights are missing\. Train the bundle first"):
        Predictor(Bundle.open("unet2d"))


def test_a_run_without_weights_says_when_it_writes_them(trained, tmp_path):
    run = shutil.copytree(trained, tmp_path / "run", ignore=shutil.ignore_patterns("models", "checkpoints"))
    with pytest.raises(WeightsError, match=r"weights are missing\. A run writes them at its first validation"):
        Predictor(Bundle.open(str(run), trust=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none_is_refused(trained):
    with pytest.raises(
        DeviceError, match="device 'cuda': torch can use 0 CUDA devices on this machine. Use device=cpu"
    ):
        Predictor(Bundle(trained), {"device": "cuda"})


def test_a_mistyped_override_is_refused(trained):
    with pytest.raises(ConfigError, match="Did you mean 'inferer#overlap'"):
        Predictor(Bundle(trained), {"inferer#overlp": 0.5})


def test_a_run_that_was_moved_works_where_it_lies(trained, save, tmp_path):
    shutil.copytree(trained, tmp_path / "elsewhere")
    source = scan(save, "a.nii.gz")
    moved = Predictor(Bundle(tmp_path / "elsewhere"), {"device": "cpu"}).predict_case(source)
    assert np.array_equal(moved.label, Predictor(Bundle(trained), {"device": "cpu"}).predict_case(source).label)
