import gzip
import io

import nibabel as nib
import numpy as np
import pytest

from medseg.data.checks.files import Volume, describe_bytes, parse, read
from medseg.findings import Finding

ARRAY = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def write(path, image):
    nib.save(image, path)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, ">i2", np.complex64])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_voxels_are_those_that_nibabel_reads(tmp_path, dtype, name):
    path = write(tmp_path / name, nib.Nifti1Image(ARRAY.astype(dtype), np.eye(4)))
    volume = read(path)
    assert isinstance(volume, Volume)
    np.testing.assert_array_equal(volume.scaled(volume.raw), np.asarray(nib.load(path).dataobj))
    np.testing.assert_array_equal(volume.header.get_sform(), np.eye(4))


def test_nifti_2_pairs_big_endian_and_scaling_are_read(tmp_path):
    path = write(tmp_path / "two.nii.gz", nib.Nifti2Image(ARRAY, np.eye(4)))
    np.testing.assert_array_equal(read(path).raw, ARRAY)
    path = write(tmp_path / "pair.hdr", nib.Nifti1Pair(ARRAY, np.eye(4)))
    np.testing.assert_array_equal(read(path).raw, ARRAY)
    (tmp_path / "pair.img").unlink()
    assert read(path).code == "file-missing"
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    path = write(tmp_path / "big.nii", nib.Nifti1Image(ARRAY, np.eye(4), header))
    np.testing.assert_array_equal(read(path).raw, ARRAY)
    image = nib.Nifti1Image(ARRAY, np.eye(4))
    image.header.set_slope_inter(2, -1024)
    path = write(tmp_path / "scaled.nii.gz", image)
    volume = read(path)
    assert (volume.slope, volume.intercept) == (2, -1024)
    np.testing.assert_allclose(volume.scaled(volume.raw), np.asarray(nib.load(path).dataobj))


def test_header_extensions_are_passed_over_and_broken_ones_named(tmp_path):
    image = nib.Nifti1Image(ARRAY, np.eye(4))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(6, b"a comment"))
    path = write(tmp_path / "a.nii", image)
    np.testing.assert_array_equal(read(path).raw, ARRAY)
    content = bytearray(path.read_bytes())
    content[352:356] = (7).to_bytes(4, "little")  # an extension cannot be shorter than its own header
    assert parse(path, content).code == "file-header"


def test_several_gzip_members_are_read_and_garbage_refused(tmp_path):
    buffer = io.BytesIO(nib.Nifti1Image(ARRAY, np.eye(4)).to_bytes()).getvalue()
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(buffer[:300]) + gzip.compress(buffer[300:]))
    np.testing.assert_array_equal(read(path).raw, ARRAY)
    path.write_bytes(gzip.compress(buffer) + b"garbage")
    assert read(path).code == "file-damaged"


def test_an_analyze_file_is_not_taken_for_nifti(tmp_path):
    nib.save(nib.AnalyzeImage(ARRAY, np.eye(4)), tmp_path / "a.hdr")
    result = read(tmp_path / "a.hdr")
    assert result.code == "file-not-image"
    assert "Analyze" in result.message


def test_an_unreadable_file_is_a_finding(tmp_path):
    assert read(tmp_path / "nowhere.nii").code == "file-missing"
    (tmp_path / "folder.nii.gz").mkdir()
    assert read(tmp_path / "folder.nii.gz").code == "file-unreadable"
    path = write(tmp_path / "a.nii.gz", nib.Nifti1Image(ARRAY, np.eye(4)))
    path.rename(tmp_path / "a.nii")
    result = read(tmp_path / "a.nii")
    assert isinstance(result, Finding)
    assert (result.severity, result.code) == ("error", "file-name")


def test_files_of_other_kinds_are_named():
    assert [describe_bytes(start) for start in (b"\x89PNG\r\n", b"\xff\xd8\xff\xe0", b"PK\x03\x04", b"hello")] == [
        "a PNG image", "a JPEG image", "a zip archive", "text"
    ]  # fmt: skip
    assert describe_bytes(bytes(200)) == "200 bytes of another kind"
    assert describe_bytes(b"\xfe\xff\x00\x80") == "4 bytes of another kind"
