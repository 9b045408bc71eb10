import gzip
import json

import nibabel as nib
import numpy as np
import pytest

from medseg.data import read_grid, read_volume
from medseg.data.nifti import open_nifti
from medseg.data.nifti_writer import read_label_names, write_label_map
from medseg.errors import DataError, GeometryError, LabelError, OutputError
from medseg.labels import LabelMap

LABELS = LabelMap(["liver", "spleen"])
OBLIQUE = np.array([[1.92, -0.448, 0.504, -20], [0.56, 1.536, -1.728, 5], [0, 1.2, 2.4, 7], [0, 0, 0, 1]])
AFFINES = {
    "RAS": np.diag([2.0, 2, 3, 1]),
    "LPS": np.diag([-2.0, -2, 3, 1]),
    "permuted": np.array([[0, 0, 2.0, 1], [-1.5, 0, 0, 2], [0, 3, 0, 4], [0, 0, 0, 1]]),
    "oblique": OBLIQUE,
}


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES.keys())
@pytest.mark.parametrize("name", ["mask.nii.gz", "mask.nii"])
def test_a_label_map_lies_exactly_where_its_source_lies(save, tmp_path, affine, name):
    label = np.random.default_rng(0).integers(0, 3, (5, 6, 7)).astype(np.uint8)
    source = save("ct.nii.gz", np.zeros((5, 6, 7), np.int16), affine)
    path = write_label_map(tmp_path / "out" / name, label, source, LABELS)
    written, original = nib.load(path), nib.load(source)
    assert np.array_equal(written.affine, original.affine)
    assert written.shape == original.shape
    assert written.get_data_dtype() == np.uint8
    assert np.array_equal(np.asanyarray(written.dataobj), label)
    assert read_label_names(path) == LABELS


@pytest.mark.parametrize(("sform", "qform"), [(1, 0), (0, 1), (2, 1), (0, 0)])
def test_geometry_codes_are_kept(tmp_path, sform, qform):
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([2.0, 2, 3, 1]))
    image.set_sform(AFFINES["LPS"] if sform else None, sform)
    image.set_qform(AFFINES["RAS"] if qform else None, qform)
    nib.save(image, tmp_path / "ct.nii.gz")
    path = write_label_map(tmp_path / "m.nii.gz", np.zeros((4, 5, 6), np.uint8), tmp_path / "ct.nii.gz", LABELS)
    written, source = nib.load(path), nib.load(tmp_path / "ct.nii.gz")
    assert np.array_equal(written.affine, source.affine)
    if sform or qform:
        assert (written.header["sform_code"], written.header["qform_code"]) == (sform, qform)


def test_nothing_of_the_patient_in_the_header_is_kept(save, tmp_path):
    source = save("ct.nii.gz", np.zeros((4, 4, 4), np.int16))
    image = nib.load(source)
    image.header["descrip"] = b"DOE^JANE"
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"DOE^JANE 1970-01-01"))
    nib.save(image, tmp_path / "named.nii.gz")
    path = write_label_map(tmp_path / "m.nii.gz", np.zeros((4, 4, 4), np.uint8), tmp_path / "named.nii.gz", LABELS)
    assert b"DOE" in gzip.decompress((tmp_path / "named.nii.gz").read_bytes())
    assert b"DOE" not in gzip.decompress(path.read_bytes())


def test_nifti_2_stays_nifti_2(tmp_path):
    nib.save(nib.Nifti2Image(np.zeros((4, 4, 4), np.int16), np.eye(4)), tmp_path / "ct.nii")
    path = write_label_map(tmp_path / "m.nii", np.zeros((4, 4, 4), np.uint8), tmp_path / "ct.nii", LABELS)
    assert isinstance(nib.load(path), nib.Nifti2Image)


def test_more_than_256_classes_are_16_bit(save, tmp_path):
    labels = LabelMap([f"s{i}" for i in range(300)])
    source = save("ct.nii.gz", np.zeros((4, 4, 4), np.int16))
    path = write_label_map(tmp_path / "m.nii.gz", np.full((4, 4, 4), 299), source, labels)
    assert np.asanyarray(nib.load(path).dataobj).max() == 299


def test_another_shape_is_refused_and_leaves_nothing(save, tmp_path):
    source = save("ct.nii.gz", np.zeros((4, 4, 4), np.int16))
    with pytest.raises(
        GeometryError, match=r"label map of .*ct\.nii\.gz: its shape \(4, 4, 5\) is not that of the scan, \(4, 4, 4\)"
    ):
        write_label_map(tmp_path / "out" / "m.nii.gz", np.zeros((4, 4, 5), np.uint8), source, LABELS)
    assert not (tmp_path / "out").exists()


def test_a_label_without_a_name_is_refused(save, tmp_path):
    source = save("ct.nii.gz", np.zeros((4, 4, 4), np.int16))
    with pytest.raises(LabelError, match="label 3"):
        write_label_map(tmp_path / "m.nii.gz", np.full((4, 4, 4), 3, np.uint8), source, LABELS)


def test_a_folder_that_cannot_be_written_is_refused(save, tmp_path):
    source = save("ct.nii.gz", np.zeros((4, 4, 4), np.int16))
    with pytest.raises(OutputError, match="the folder cannot be written"):
        write_label_map(source / "m.nii.gz", np.zeros((4, 4, 4), np.uint8), source, LABELS)


def broken(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_files_that_are_not_nifti_are_refused_with_the_reason(tmp_path, save):
    whole = save("whole.nii.gz", np.random.default_rng(0).integers(0, 99, (20, 20, 20)).astype(np.int16)).read_bytes()
    cases = {
        "no such file": tmp_path / "missing.nii.gz",
        "the file is empty": broken(tmp_path, "empty.nii.gz", b""),
        "this file is no volume": broken(tmp_path, "ct.txt", b"x"),
        "only a Git-LFS pointer": broken(
            tmp_path, "lfs.nii.gz", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"
        ),
        "in NIfTI format, but text": broken(tmp_path, "text.nii.gz", b"this is no image"),
        "NIfTI format, but text": broken(tmp_path, "zip.nii.gz", gzip.compress(b"this is no image")),
        "the file is damaged or cut": broken(tmp_path, "short.nii.gz", whole[: len(whole) // 2]),
    }
    for reason, path in cases.items():
        with pytest.raises(DataError, match=reason) as caught:
            read_volume(path)
        assert path.name in str(caught.value)


def test_a_damaged_byte_in_the_middle_is_found(tmp_path, save):
    content = bytearray(
        save("a.nii.gz", np.random.default_rng(0).integers(0, 99, (20, 20, 20)).astype(np.int16)).read_bytes()
    )
    content[len(content) // 2] ^= 0xFF
    with pytest.raises(DataError, match="damaged or cut short|the file ends after"):
        read_volume(broken(tmp_path, "bad.nii.gz", bytes(content)))


def test_real_broken_files_are_refused(real):
    files = [*(real / "odd" / "truncated").glob("*.nii.gz"), *(real / "odd" / "lfs_pointers").glob("*.nii.gz")]
    assert files
    for path in files:
        with pytest.raises(DataError):
            read_volume(path)


def test_a_4d_file_is_refused(save):
    with pytest.raises(GeometryError, match="must be a 3D volume"):
        read_grid(save("4d.nii.gz", np.zeros((3, 3, 3, 2), np.int16)))


def test_a_comment_that_is_not_json_does_not_hide_the_names(save, tmp_path):
    source = save("ct.nii.gz", np.zeros((4, 4, 4), np.int16))
    assert read_label_names(source) is None
    image = nib.load(source)
    for text in (b"free text", json.dumps({"labels": LABELS.to_dict()}).encode()):
        image.header.extensions.append(nib.nifti1.Nifti1Extension(6, text))
    nib.save(image, tmp_path / "b.nii.gz")
    assert read_label_names(tmp_path / "b.nii.gz") == LABELS


def test_opening_reads_no_voxels(save):
    path = save("ct.nii", np.zeros((40, 40, 40), np.int16))
    path.write_bytes(path.read_bytes()[:400])
    assert open_nifti(path).shape == (40, 40, 40)
