"""Scans that failed once, through the commands: a right mask, or one clear error before anything is written."""

import json
import logging
import shutil

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Compose

from medseg.bundle import Bundle
from medseg.data import PrepareConfig, open_dataset, prepare, read_volume
from medseg.errors import DataError
from medseg.labels import LabelMap
from tests.odd_headers import Odd, itk_grid, put, write_odd

REFUSED = {
    "nifti/no_forms": ("no-geometry", "neither sform nor qform is set"),
    "nifti/shear_1deg": ("shear", "sheared, 1.1"),
    "nifti/inf": (None, "voxels are NaN or infinite"),
    "nifti/nan_in_affine": (None, "its sform cannot be used: it must be 4x4 and finite"),
    "reports/02_scan_pixdim_rounded/pixdim_z_0": (None, "its pixdim is 6 x 6 x 0"),
    "reports/15_negative_pixdim/negative_dz": ("pixdim-negative", "its pixdim is negative: 6 x 6 x -6"),
}
TAKEN = {
    "nifti/vox_offset_0": "vox_offset is 0; its voxels are read from byte 352",
    "nifti/units_meter": "its lengths are in meters, and converted to mm",
    "nifti/hu_plus_1024_unsigned": "rescale-missing|as if stored values had never been scaled",
    "nifti/trailing_axis_of_one": "",
    "reports/02_scan_pixdim_rounded/good_lps": "",
    "reports/02_scan_pixdim_rounded/pixdim_2digits_sform_only_lps": "",
    "reports/02_scan_pixdim_rounded/pixdim_4digits_both_forms": "",
    "reports/02_scan_pixdim_rounded/pixdim_111_sform_only_lps": "its affine gives voxels of 6 x 6 x 6 mm, its pixdim 1",
    "reports/02_scan_pixdim_rounded/oblique_cosines_4digits": "",
}


@pytest.fixture
def failed_once(real):
    if not (real / "found").is_dir():
        pytest.skip("no inputs that failed once among the real test data")
    return real / "found"


def lies_on_its_scan(mask, scan):
    logging.disable(logging.CRITICAL)
    written, source = nib.load(mask), nib.load(scan)
    logging.disable(logging.NOTSET)
    assert written.shape == source.shape
    assert np.array_equal(written.affine, source.affine)
    if "shear" not in scan.name:  # ITK does not read it
        assert all(np.array_equal(a, b) for a, b in zip(itk_grid(mask), itk_grid(scan), strict=True))


@pytest.mark.slow
def test_scans_that_break_a_rule_are_refused_before_anything_is_written(medseg, trained, failed_once, tmp_path):
    for name, (code, message) in REFUSED.items():
        scan = failed_once / f"{name}.nii.gz"
        out = tmp_path / scan.name.partition(".")[0]
        done = medseg("predict", trained, scan, "-o", out, "--stats", "--set", "device=cpu")
        assert done.code == 1, name
        assert f"{scan}: " in done.err, name
        assert message in done.err, (name, done.err)
        assert list(out.glob("*")) == [], name
        if code is None:
            continue
        assert f"--accept {code}" in done.err
        done = medseg("predict", trained, scan, "-o", out, "--stats", "--accept", code, "--set", "device=cpu")
        assert done.code == 0, (name, done.err)
        lies_on_its_scan(out / scan.name, scan)
        content = json.loads((out / f"{out.name}.statistics.json").read_text())
        assert code in [row["code"] for row in content["warnings"]], name


@pytest.mark.slow
def test_odd_scans_are_segmented_where_they_lie_with_their_warning(medseg, trained, failed_once, tmp_path):
    for name, message in TAKEN.items():
        scan = failed_once / f"{name}.nii.gz"
        done = medseg("predict", trained, scan, "-o", tmp_path / "out", "--stats", "--set", "device=cpu")
        assert done.code == 0, (name, done.err)
        lies_on_its_scan(tmp_path / "out" / scan.name, scan)
        content = json.loads((tmp_path / "out" / f"{scan.name.partition('.')[0]}.statistics.json").read_text())
        said = "".join(f"{row['code']}: {row['message']}" for row in content["warnings"])
        assert any(part in said for part in message.split("|")), (name, said)
        assert any(part in done.out + done.err for part in message.split("|")), name
        if name == "nifti/units_meter":
            assert content["spacing_mm"] == pytest.approx([3, 3, 3], rel=1e-5)


@pytest.mark.slow
def test_a_vox_offset_of_0_gives_the_mask_of_the_same_scan_with_352(medseg, trained, failed_once, tmp_path):
    scan = failed_once / "nifti" / "vox_offset_0.nii.gz"
    voxels, grid = read_volume(scan)
    nib.save(nib.Nifti1Image(voxels, grid.affine), tmp_path / "same.nii.gz")
    assert medseg("predict", trained, scan, tmp_path / "same.nii.gz", "-o", tmp_path / "out").code == 0
    labels = [np.asarray(nib.load(tmp_path / "out" / name).dataobj) for name in ("vox_offset_0.nii.gz", "same.nii.gz")]
    assert np.array_equal(*labels)


def preprocessing(bundle, stage, **overrides):
    parser = Bundle.open(bundle).resolve(stage, overrides)
    return Compose(parser.get_parsed_content("preprocess_transforms"))


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_labels_with_a_rounded_pixdim_are_not_turned(failed_once, tmp_path, stage):
    root = failed_once / "reports" / "01_label_pixdim_rounded"
    labels = LabelMap(["spleen", "liver", "stomach"])
    chain = preprocessing("unet2d", stage, spacing=[-1, -1, -1], device="cpu")
    masks = {}
    for name in ("dataset_good", "dataset"):
        data = open_dataset(root / name, labels, tmp_path / name, training=False)
        for item in data.items("train", labels):
            masks[name, item["case"]] = np.asarray(chain({key: item[key] for key in ("image", "label")})["label"])
    cases = {case for _, case in masks}
    assert len(cases) > 1
    for case in cases:
        assert masks["dataset_good", case].any()
        assert np.array_equal(masks["dataset_good", case], masks["dataset", case])


def test_label_maps_that_are_used_as_they_are_must_lie_on_their_image(failed_once, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(failed_once / "reports" / "01_label_pixdim_rounded" / "dataset_good", root)
    labels = LabelMap(["spleen", "liver", "stomach"])
    prepared = prepare(root, tmp_path / "prepared", PrepareConfig(structures=labels.structures))
    label = next((tmp_path / "prepared" / "labels").glob("*.nii.gz"))
    image = nib.load(label)
    moved = image.affine.copy()
    moved[0, 3] += 30
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), moved), label)
    with pytest.raises(DataError, match="it lies up to 30 mm from"):
        open_dataset(prepared.datalist.parent, labels, tmp_path / "cache", training=False)


def test_a_loader_without_a_reader_gets_ours_where_a_bundle_runs(tmp_path):
    from monai.transforms import LoadImage

    turned = Odd(None, np.diag([-2.5, -2.5, 6, 1.0]), np.diag([2.5, 2.5, 6, 1.0]), (1, 0), change=put(pixdim=[1] * 8))
    path = write_odd(tmp_path / "label.nii.gz", turned)
    assert np.array_equal(np.diag(LoadImage()(path).affine), [-2.5, -2.5, 6, 1])
    assert LoadImage()(path).shape == turned.shape


def test_what_is_prepared_of_an_odd_scan_breaks_no_rule(tmp_path, real):
    case = tmp_path / "set" / "s0000"
    (case / "segmentations").mkdir(parents=True)
    source = real / "totalseg_mini" / "s0000"
    for path in (source / "ct.nii.gz", source / "segmentations" / "liver.nii.gz"):
        image = nib.load(path)
        odd = Odd(None, image.affine, codes=(0, 0), shape=image.shape)
        write_odd(case / path.relative_to(source), odd, np.asarray(image.dataobj))
    with pytest.raises(DataError, match="neither sform nor qform"):
        prepare(tmp_path / "set", tmp_path / "refused")
    prepare(tmp_path / "set", tmp_path / "out", PrepareConfig(accept=("no-geometry",)))
    hu, grid = read_volume(tmp_path / "out" / "images" / "s0000.nii.gz")
    label, on = read_volume(tmp_path / "out" / "labels" / "s0000.nii.gz")
    assert on.matches(grid)
    assert grid.axes == "LAS"
    assert np.array_equal(hu, np.asarray(nib.load(source / "ct.nii.gz").dataobj))
    assert (label > 0).sum() == np.asarray(nib.load(source / "segmentations" / "liver.nii.gz").dataobj).sum()
