import nibabel as nib
import numpy as np
import pytest

from medseg.errors import DataError, GeometryError, LabelError
from medseg.evaluation import find_sources, match
from medseg.evaluation.pairs import read_pair, read_source, resample_labels
from medseg.grid import Grid


def test_structures_are_matched_by_name_and_never_by_number(folders, kit):
    pairs = match(*map(find_sources, folders))
    assert pairs.labels.structures == ("spleen", "kidney_left", "liver")
    assert pairs.not_in_truth == ("gizmo",)
    assert pairs.not_predicted == ()
    true, predicted, grid, notes = read_pair(*pairs.cases["a"], pairs.labels)
    assert np.array_equal(true, predicted)
    assert np.array_equal(true, kit.renumber(kit.volume(), kit.TRUE, pairs.labels))
    assert grid.spacing == (2.0, 2.0, 3.0)
    assert notes == ()


def test_only_the_chosen_structures_are_evaluated(folders):
    pairs = match(*map(find_sources, folders), structures=["liver"])
    assert pairs.labels.structures == ("liver",)
    with pytest.raises(LabelError, match="Did you mean 'liver'"):
        match(*map(find_sources, folders), structures=["livr"])


def test_unpaired_cases_are_an_error_that_names_them(folders, put, kit):
    put("truth/d.nii.gz", kit.volume())
    put("pred/e.nii.gz", kit.volume(), kit.OTHER)
    sides = [find_sources(folder) for folder in folders]
    with pytest.raises(DataError, match=r"1 truth without a prediction: d; 1 prediction without a truth: e.*--partial"):
        match(*sides)
    pairs = match(*sides, partial=True)
    assert list(pairs.cases) == ["a", "b", "c"]
    assert (pairs.without_prediction, pairs.without_truth) == (("d",), ("e",))
    with pytest.raises(DataError, match="they have no case in common"):
        match({"x": sides[0]["a"]}, sides[1], partial=True)


def test_predictions_of_different_structures_are_refused(folders, put, kit):
    put("pred/b.nii.gz", kit.volume(), kit.TRUE)
    with pytest.raises(LabelError, match=r"structures differ from those of .*a.nii.gz [(]only one has gizmo[)]"):
        match(*map(find_sources, folders))


def test_sides_without_a_common_structure_are_refused(folders, kit):
    predictions, truths = map(find_sources, folders)
    strange = {
        case: type(first)(case, first.label, labels=kit.OTHER, structures=("gizmo",))
        for case, first in predictions.items()
    }
    with pytest.raises(LabelError, match="they have no structure in common, by name [(]gizmo in the predictions"):
        match(strange, truths)


def test_structures_that_predictions_lack_are_listed_and_not_evaluated(folders, kit):
    predictions, truths = map(find_sources, folders)
    some = {
        case: type(first)(case, first.label, labels=kit.OTHER, structures=("liver",))
        for case, first in predictions.items()
    }
    pairs = match(some, truths)
    assert pairs.labels.structures == ("liver",)
    assert set(pairs.not_predicted) == {"spleen", "kidney_left"}


@pytest.mark.parametrize(
    ("part", "thick", "message"),
    [
        (slice(-1), 3.0, r"its shape \(11, 10, 8\) differs from the shape \(12, 10, 8\) of .*truth.a.nii.gz"),
        (slice(None), 3.1, r"it lies up to .* mm from .*truth.a.nii.gz"),
    ],
)
def test_another_grid_is_refused_unless_resampling_is_requested(folders, put, kit, part, thick, message):
    label = kit.renumber(kit.volume()[part], kit.TRUE, kit.OTHER)
    put("pred/a.nii.gz", label, kit.OTHER, np.diag([2.0, 2.0, thick, 1.0]))
    pairs = match(*map(find_sources, folders))
    with pytest.raises(GeometryError, match=rf"pred.a.nii.gz: {message}.*--resample"):
        read_pair(*pairs.cases["a"], pairs.labels)
    true, predicted, _, notes = read_pair(*pairs.cases["a"], pairs.labels, resample=True)
    assert predicted.shape == true.shape
    assert "resampled" in notes[0]
    assert (predicted == true).mean() > 0.95


@pytest.mark.parametrize("axes", ["LAS", "RPI", "ASR", "SLP", "PIR"])
def test_a_prediction_with_turned_axes_is_compared_voxel_by_voxel(folders, put, kit, axes):
    first = nib.load(folders[1] / "a.nii.gz")
    expected, *_ = read_pair(*match(*map(find_sources, folders)).cases["a"], match(*map(find_sources, folders)).labels)
    for folder in folders:
        image = nib.load(folder / "a.nii.gz")
        turned = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(image.affine), nib.orientations.axcodes2ornt(axes)
        )
        if folder == folders[0]:
            moved = image.as_reoriented(turned)
            nib.save(moved, folder / "a.nii.gz")
    assert nib.aff2axcodes(nib.load(folders[0] / "a.nii.gz").affine) == tuple(axes)
    assert nib.aff2axcodes(first.affine) == ("R", "A", "S")
    pairs = match(*map(find_sources, folders))
    true, predicted, grid, notes = read_pair(*pairs.cases["a"], pairs.labels)
    assert np.array_equal(predicted, expected)
    assert np.array_equal(true, expected)
    assert grid.axes == "RAS"
    assert f"turned from axes {axes} to RAS, voxel by voxel" in notes[0]


def test_masks_with_an_axis_of_one_more_are_volumes(folders, kit):
    for folder in folders:
        image = nib.load(folder / "a.nii.gz")
        four = nib.Nifti1Image(np.asarray(image.dataobj)[..., None], image.affine)
        four.header.extensions.extend(image.header.extensions)
        nib.save(four, folder / "a.nii.gz")
    pairs = match(*map(find_sources, folders))
    true, predicted, *_ = read_pair(*pairs.cases["a"], pairs.labels)
    assert true.ndim == 3
    assert np.array_equal(true, predicted)


@pytest.mark.parametrize("content", [b"", b"text", b"\x1f\x8b\x08cut"])
def test_a_file_that_cannot_be_read_fails_alone(folders, content):
    (folders[0] / "b.nii.gz").write_bytes(content)
    pairs = match(*map(find_sources, folders))
    with pytest.raises(DataError, match=r"pred.b\.nii\.gz"):
        read_pair(*pairs.cases["b"], pairs.labels)
    assert read_pair(*pairs.cases["c"], pairs.labels)[2].shape == (12, 10, 8)
    for case in "ac":
        (folders[0] / f"{case}.nii.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"pred.a\.nii\.gz"):
        find_sources(folders[0])


def test_names_match_however_they_are_spelled(folders):
    for path in list(folders[0].glob("*.nii.gz")):
        path.rename(path.with_name(path.name.upper()))
    (folders[0] / "._a.nii.gz").touch()
    assert list(match(*map(find_sources, folders)).cases) == ["a", "b", "c"]
    (folders[1] / "A.nii").touch()
    with pytest.raises(DataError, match="has the same name"):
        find_sources(folders[1])


def test_resampling_takes_the_nearest_whatever_the_orientation():
    label = np.arange(24).reshape(2, 3, 4).astype(np.uint8)
    location = Grid((2, 3, 4), np.diag([2.0, 3.0, 4.0, 1.0]))
    flipped = location.affine @ np.array([[-1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    assert np.array_equal(resample_labels(label, location, Grid((2, 3, 4), flipped)), label[::-1])
    fine = resample_labels(label, location, Grid((4, 3, 4), np.diag([1.0, 3.0, 4.0, 1.0])))
    assert np.array_equal(fine[[0, 2]], label)
    assert not fine[3].any()  # 3 mm lies beyond the last center, at 2 mm


def test_masks_are_merged_and_their_overlap_is_noted(case):
    source = find_sources(case)["s0001"]
    pairs = match({"s0001": source}, {"s0001": source})
    label, _, overlapping = read_source(source, pairs.labels)
    assert overlapping == 2 * 2 * 2
    assert np.count_nonzero(label == pairs.labels.index("spleen")) == 4 * 3 * 4  # the smaller one keeps its voxels
    assert "8 voxels of the truth are in several masks" in read_pair(source, source, pairs.labels)[3][0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (9, r"a.nii.gz, case a: labels must be between 0 and 3 \(got 0 to 9\)"),
        (np.nan, "1 voxels are NaN"),
        (0.5, "whole numbers"),
    ],
)
def test_unknown_labels_and_broken_numbers_name_file_and_case(folders, save, value, message, kit):
    label = kit.volume().astype(np.float32)
    label[0, 0, 0] = value
    path = save("truth/a.nii.gz", label, kit.AFFINE)
    truths = find_sources(path.parent, kit.TRUE)
    pairs = match(find_sources(folders[0]), truths)
    with pytest.raises((LabelError, DataError), match=message):
        read_pair(*pairs.cases["a"], pairs.labels)


def test_whole_numbers_stored_as_floats_are_labels(folders, save, kit):
    path = save("truth/a.nii.gz", kit.volume().astype(np.float64), kit.AFFINE)
    pairs = match(find_sources(folders[0]), find_sources(path.parent, kit.TRUE))
    true, predicted, _, _ = read_pair(*pairs.cases["a"], pairs.labels)
    assert np.array_equal(true, predicted)


@pytest.mark.filterwarnings("ignore")
def test_a_spacing_of_zero_names_the_file(folders):
    path = folders[1] / "a.nii.gz"
    image = nib.load(path)
    data = np.asarray(image.dataobj)
    broken = nib.Nifti1Image(data, None)
    broken.header.set_sform(np.diag([2.0, 0.0, 3.0, 1.0]), 1)
    broken.header.extensions.append(image.header.extensions[0])
    nib.save(broken, path)
    pairs = match(*map(find_sources, folders))
    with pytest.raises(GeometryError, match=r"a.nii.gz: its sform cannot be used: it must be invertible"):
        read_pair(*pairs.cases["a"], pairs.labels)
