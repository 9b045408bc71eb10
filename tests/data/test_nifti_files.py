"""The bytes of NIfTI files: every type of number, order and container; what is not one, by its code."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from medseg.data.nifti import describe_bytes
from medseg.data.volumes import read_stored, read_volume
from medseg.errors import DataError

ARRAY = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def write(path, image):
    nib.save(image, path)
    return path


def refused(path):
    with pytest.raises(DataError) as caught:
        read_volume(path)
    assert str(path.name) in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, ">i2", ">f4", np.int64])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_voxels_are_those_that_nibabel_reads(tmp_path, dtype, name):
    path = write(tmp_path / name, nib.Nifti1Image(ARRAY.astype(dtype), np.eye(4), dtype=dtype))
    voxels, grid = read_volume(path)
    np.testing.assert_array_equal(voxels, np.asarray(nib.load(path).dataobj))
    assert voxels.dtype.isnative
    np.testing.assert_array_equal(grid.affine, np.eye(4))


def test_nifti_2_big_endian_and_scaling_are_read(tmp_path):
    path = write(tmp_path / "two.nii.gz", nib.Nifti2Image(ARRAY, np.eye(4)))
    np.testing.assert_array_equal(read_volume(path)[0], ARRAY)
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    path = write(tmp_path / "big.nii", nib.Nifti1Image(ARRAY, np.eye(4), header))
    np.testing.assert_array_equal(read_volume(path)[0], ARRAY)
    image = nib.Nifti1Image(ARRAY, np.eye(4))
    image.header.set_slope_inter(2, -1024)
    path = write(tmp_path / "scaled.nii.gz", image)
    stored = read_stored(path)
    assert (stored.slope, stored.intercept) == (2, -1024)
    known = np.asarray(nib.load(path).dataobj)
    np.testing.assert_array_equal(stored.scaled(stored.raw), known)
    assert read_volume(path)[0].dtype == known.dtype


def test_header_extensions_are_passed_over_and_broken_ones_named(tmp_path):
    image = nib.Nifti1Image(ARRAY, np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"a comment"))
    path = write(tmp_path / "a.nii", image)
    np.testing.assert_array_equal(read_volume(path)[0], ARRAY)
    content = bytearray(path.read_bytes())
    content[352:356] = (7).to_bytes(4, "little")  # an extension cannot be shorter than its own header
    path.write_bytes(content)
    assert refused(path) == "file-header"


def test_several_gzip_members_are_read_and_garbage_refused(tmp_path):
    content = nib.Nifti1Image(ARRAY, np.eye(4)).to_bytes()
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(content[:300]) + gzip.compress(content[300:]))
    np.testing.assert_array_equal(read_volume(path)[0], ARRAY)
    path.write_bytes(gzip.compress(content) + b"garbage")
    assert refused(path) == "file-damaged"


def test_a_vox_offset_of_0_is_read_behind_the_header_in_nifti_2_too(tmp_path, caplog):
    path = write(tmp_path / "a.nii", nib.Nifti2Image(ARRAY, np.eye(4)))
    content = bytearray(path.read_bytes())
    content[168:176] = bytes(8)
    path.write_bytes(content)
    np.testing.assert_array_equal(read_volume(path)[0], ARRAY)
    assert "from byte 544" in caplog.text
    content[540] = 1  # an extension follows: where do the voxels begin?
    path.write_bytes(content)
    assert refused(path) == "file-header"


def test_headers_without_their_voxels_are_no_scans(tmp_path):
    write(tmp_path / "pair.hdr", nib.Nifti1Pair(ARRAY, np.eye(4)))
    assert refused(tmp_path / "pair.hdr") == "file-pair"
    assert refused(tmp_path / "pair.img") == "file-pair"
    (tmp_path / "pair.hdr").rename(tmp_path / "renamed.nii")
    assert refused(tmp_path / "renamed.nii") == "file-pair"
    write(tmp_path / "b.hdr", nib.AnalyzeImage(ARRAY, np.eye(4)))
    (tmp_path / "b.hdr").rename(tmp_path / "analyze.nii")
    with pytest.raises(DataError, match="an Analyze file") as caught:
        read_volume(tmp_path / "analyze.nii")
    assert caught.value.code == "file-not-image"


@pytest.mark.parametrize(("name", "right"), [("a.nii.gz", "a.nii"), ("A.NII.GZ", "A.nii"), ("b.1.nii.gz", "b.1.nii")])
def test_a_file_by_the_wrong_name_is_to_be_renamed_not_copied_again(tmp_path, name, right):
    packed = write(tmp_path / name, nib.Nifti1Image(ARRAY, np.eye(4)))
    content = packed.read_bytes()
    packed.write_bytes(gzip.decompress(content))
    with pytest.raises(DataError, match=f"not compressed, .* Rename it to {right}[.]") as caught:
        read_volume(packed)
    assert caught.value.code == "file-name"
    (tmp_path / right).write_bytes(content)
    with pytest.raises(DataError, match="compressed, but its name does not end in .gz. Rename it to .*nii.gz"):
        read_volume(tmp_path / right)


def test_what_cannot_be_opened_has_a_code(tmp_path):
    assert refused(tmp_path / "nowhere.nii") == "file-missing"
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    assert refused(tmp_path / "empty.nii.gz") == "file-empty"


def test_files_of_other_kinds_are_named():
    assert [describe_bytes(start) for start in (b"\x89PNG\r\n", b"\xff\xd8\xff\xe0", b"PK\x03\x04", b"hello")] == [
        "a PNG image", "a JPEG image", "a zip archive", "text"
    ]  # fmt: skip
    assert describe_bytes(bytes(200)) == describe_bytes(b"\xfe\xff\x00\x80") == "bytes of another kind"
