"""Every format of volume through one reader: the same voxels on the same grid, and damage is never passed over."""

import re
import shutil
import zlib

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, LoadImaged

from medseg.data import VolumeReader, read_grid, read_volume
from medseg.data.dicom_file import load_itk
from medseg.data.volume_reader import InMemoryReader
from medseg.errors import DataError, GeometryError
from medseg.grid import Grid
from tests.made_inputs import LPS, itk_image

OBLIQUE = np.array([[1.92, -0.448, 0.504, -20], [0.56, 1.536, -1.728, 5], [0, 1.2, 2.4, 7], [0, 0, 0, 1]])
PERMUTED = np.array([[0, 0, 2.0, 1], [-1.5, 0, 0, 2], [0, 3, 0, 4], [0, 0, 0, 1]])


def written_by_itk(path, voxels, affine, compressed):
    """Write with ITK, whose images have their axes in LPS."""
    load_itk().imwrite(itk_image(voxels, affine), str(path), compression=compressed)
    return path


@pytest.fixture
def voxels():
    return np.random.default_rng(0).integers(-1000, 1500, (7, 6, 5)).astype(np.int16)


@pytest.mark.parametrize("affine", [np.diag([2.0, 2, 3, 1]), LPS @ np.diag([1.5, 2, 3, 1]), OBLIQUE, PERMUTED])
@pytest.mark.parametrize("suffix", [".nrrd", ".nhdr", ".mha", ".mhd", ".nii.gz"])
@pytest.mark.parametrize("compressed", [False, True])
def test_what_itk_wrote_is_read_voxel_by_voxel_where_it_lies(tmp_path, voxels, suffix, affine, compressed):
    orthogonal = Grid(voxels.shape, affine).upright().affine
    path = written_by_itk(tmp_path / f"scan{suffix}", voxels, orthogonal, compressed)
    found, grid = read_volume(path)
    assert found.dtype == np.int16
    assert np.array_equal(found, voxels)
    assert grid.matches(Grid(voxels.shape, orthogonal), 1e-4)
    assert read_grid(path).matches(grid, 0)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "u4", "f4", "f8"])
@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_every_type_of_number_is_read(tmp_path, suffix, dtype):
    values = np.arange(24).reshape(4, 3, 2).astype(dtype)
    found, _ = read_volume(written_by_itk(tmp_path / f"a{suffix}", values, np.eye(4), True))
    assert found.dtype == np.dtype(dtype)
    assert np.array_equal(found, values)


def test_real_nrrd_files_equal_what_itk_reads(real):
    itk = load_itk()
    files = sorted((real / "dicom" / "dcmqi_ct_seg").rglob("*.nrrd"))
    read = []
    for path in files:
        try:
            found, grid = read_volume(path)
        except GeometryError:  # several segments that overlap, in a fourth dimension
            continue
        image = itk.imread(str(path))
        assert np.array_equal(found, itk.array_view_from_image(image).T), path
        assert np.allclose(grid.affine[:3, 3], np.array(image.GetOrigin()) * [-1, -1, 1]), path
        read.append(path)
    assert len(read) >= len(files) / 2


NRRD = (
    "NRRD0004\n# made by hand\ntype: short\ndimension: 3\nspace: {space}\nsizes: 4 3 2\n"
    "space directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (5,6,7)\nendian: big\nencoding: {encoding}\n\n"
)


def test_the_space_of_an_nrrd_decides_its_frame(tmp_path):
    values = np.arange(24, dtype=">i2")
    for space, signs in (("right-anterior-superior", [1, 1]), ("LPS", [-1, -1]), ("left-anterior-superior", [-1, 1])):
        path = tmp_path / "a.nrrd"
        path.write_bytes(NRRD.format(space=space, encoding="raw").encode() + values.tobytes())
        found, grid = read_volume(path)
        assert found.ravel(order="F").tolist() == list(range(24))
        frame = np.diag([*signs, 1, 1])
        assert np.array_equal(grid.affine, frame @ np.array([[2, 0, 0, 5], [0, 3, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]]))


def test_an_nrrd_in_meters_or_with_a_last_axis_of_one_is_the_same_volume(tmp_path, caplog):
    plain = NRRD.format(space="LPS", encoding="raw").replace("endian: big\n", "")
    meters = plain.replace("encoding", 'space units: "m" "m" "m"\nencoding')
    for size in ("2,0,0", "0,3,0", "0,0,4", "5,6,7"):
        meters = meters.replace(f"({size})", "(" + ",".join(f"0.00{part}" for part in size.split(",")) + ")")
    flat = plain.replace("dimension: 3", "dimension: 4").replace("4 3 2", "4 3 2 1").replace("(0,0,4)", "(0,0,4) none")
    grids = []
    for number, text in enumerate((plain, meters, flat)):
        path = tmp_path / f"{number}.nrrd"
        path.write_bytes(text.encode() + bytes(48))
        grids.append(read_volume(path)[1])
    assert grids[0].matches(grids[1])
    assert grids[0].matches(grids[2])
    assert "1.nrrd: its lengths are in m, converted to mm" in caplog.text


def changed(text, replacement):
    before, after = replacement
    assert before in text
    return text.replace(before, after)


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        (("space: LPS\n", ""), "does not say which side is left (no space)"),
        (("space: LPS", "space: scanner-xyz"), "does not say which side is left (scanner-xyz)"),
        (
            ("space directions: (2,0,0) (0,3,0) (0,0,4)\n", "spacings: 2 3 4\n"),
            "where the voxels lie: space directions",
        ),
        (("space origin: (5,6,7)\n", ""), "where the voxels lie: space origin (missing)"),
        (("(0,0,4)", "(0,3,0)"), "must be invertible"),
        (("(0,0,4)", "(0,0,nan)"), "must be 4x4 and finite"),
        (
            ("dimension: 3\nspace: LPS\nsizes: 4", "dimension: 4\nspace: LPS\nsizes: 4 1"),
            "be a 3D volume (4 dimensions)",
        ),
        (("sizes: 4 3 2", "sizes: 4 3"), "the header must give 3 numbers (4 3)"),
        (("type: short", "type: block"), "this kind of NRRD is not read (type block"),
        (("encoding: raw", "encoding: ascii"), "this kind of NRRD is not read"),
        (("endian: big\n", 'space units: "m" "m" "in"\n'), "its unit of length must be mm (in, m)"),
        (("endian: big\n", "data file: LIST\n"), "must be in one file beside the header (LIST)"),
        (("endian: big\n", "data file: ../a.raw\n"), "must be in one file beside the header"),
        (("endian: big\n", "data file: a.raw\n"), "its voxels are in a.raw, which is missing"),
        (("NRRD0004", "nearly"), "not in NRRD format"),
    ],
)
def test_an_nrrd_that_says_too_little_is_refused(tmp_path, replacement, message):
    path = tmp_path / "a.nrrd"
    path.write_bytes(changed(NRRD.format(space="LPS", encoding="raw"), replacement).encode() + bytes(48))
    with pytest.raises(DataError, match=r"a\.nrrd: .*" + re.escape(message)):
        read_volume(path)


META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nCompressedData = False\n"
    "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 1 2 3\nElementSpacing = 1 1 2\nDimSize = 4 3 2\n"
    "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"
)


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        (("TransformMatrix = 1 0 0 0 1 0 0 0 1\n", ""), "TransformMatrix is missing"),
        (("Offset = 1 2 3\n", ""), "Offset is missing"),
        (("ElementSpacing = 1 1 2\n", ""), "ElementSpacing is missing"),
        (("ElementSpacing = 1 1 2", "ElementSpacing = 1 1 0"), "must be invertible"),
        (("ElementSpacing = 1 1 2", "ElementSpacing = 1 1 -2"), "its ElementSpacing is negative (1 1 -2)"),
        (("MET_SHORT", "MET_SHORT\nElementNumberOfChannels = 3"), "this kind of MetaImage is not read"),
        (("BinaryData = True", "BinaryData = False"), "this kind of MetaImage is not read"),
        (("NDims = 3", "NDims = 2"), "a scan must be a 3D volume (2 dimensions)"),
        (("LOCAL", "slice%03d.raw 1 2 1"), "must be in one file beside the header"),
        (("ElementDataFile = LOCAL\n", ""), "not in MetaImage format"),
    ],
)
def test_a_metaimage_that_says_too_little_is_refused(tmp_path, replacement, message):
    path = tmp_path / "a.mha"
    path.write_bytes(changed(META, replacement).encode() + bytes(48))
    with pytest.raises(DataError, match=r"a\.mha: .*" + re.escape(message)):
        read_volume(path)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii.gz", ".nii"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_that_is_cut_short_is_refused(tmp_path, voxels, suffix, compressed):
    path = written_by_itk(tmp_path / f"a{suffix}", voxels, np.eye(4), compressed)
    content = path.read_bytes()
    for length in (len(content) - 1, len(content) - 100):
        path.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"damaged or cut short|the file ends after [\d,]+ of [\d,]+ bytes"):
            read_volume(path)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii.gz"])
def test_damaged_compressed_bytes_are_refused(tmp_path, voxels, suffix):
    path = written_by_itk(tmp_path / f"a{suffix}", voxels, np.eye(4), True)
    content = bytearray(path.read_bytes())
    for index in (-30, -3, -60):
        damaged = content.copy()
        damaged[index] ^= 0x55
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="damaged or cut short"):
            read_volume(path)


def test_detached_voxels_that_are_missing_or_short_are_named(tmp_path, voxels):
    path = written_by_itk(tmp_path / "a.mhd", voxels, np.eye(4), True)
    stored = tmp_path / "a.zraw"
    stored.write_bytes(zlib.compress(zlib.decompress(stored.read_bytes())[:-2]))
    with pytest.raises(DataError, match=r"a\.zraw: the file ends after 418 of 420 bytes"):
        read_volume(path)
    stored.unlink()
    with pytest.raises(DataError, match=r"a\.mhd: its voxels are in a\.zraw, which is missing"):
        read_volume(path)


def nifti(path, voxels, change):
    image = nib.Nifti1Image(voxels, OBLIQUE)
    image.set_qform(Grid(voxels.shape, OBLIQUE).upright().affine, 1)
    header = image.header.copy()
    change(header)
    nib.save(nib.Nifti1Image(voxels, None, header), path)  # with an affine nibabel would repair the header
    return path


def test_nifti_headers_that_cannot_be_right_are_refused_by_name(tmp_path, voxels):
    def no_number(header):
        header["srow_x"][3] = np.nan

    def contradictory(header):
        header.set_qform(np.diag([5.0, 5, 5, 1]), 1)

    for change, message in (
        (no_number, "its sform cannot be used: it must be 4x4 and finite"),
        (contradictory, "sform and qform differ, corners lie up to .* mm apart"),
    ):
        path = nifti(tmp_path / "a.nii.gz", voxels, change)
        for read in (read_volume, read_grid):
            with pytest.raises(GeometryError, match=r"a\.nii\.gz: " + message):
                read(path)


def test_the_sform_decides_where_pixdim_is_only_rounded(tmp_path, voxels):
    def rounded(header):
        header["pixdim"][1:4] = np.round(header["pixdim"][1:4], 2)
        header["qform_code"] = 0

    path = nifti(tmp_path / "a.nii.gz", voxels, rounded)
    assert np.allclose(read_grid(path).affine, OBLIQUE)
    loaded = LoadImaged("image", reader="medseg.data.VolumeReader")({"image": str(path)})["image"]
    assert np.allclose(loaded.affine, OBLIQUE)


def loaded(path, reader="medseg.data.VolumeReader"):
    return LoadImaged("image", reader=reader)({"image": str(path)})["image"]


def test_monai_sees_the_same_voxels_through_every_format(tmp_path, voxels, save_dicom):
    folder = save_dicom("series", voxels, PixelSpacing=(1.5, 2.0))
    grid = read_grid(folder)
    images = [loaded(folder)]
    for suffix in (".nii.gz", ".nrrd", ".mha"):
        images.append(loaded(written_by_itk(tmp_path / f"a{suffix}", voxels, grid.affine, True)))
    for image in images:
        assert isinstance(image, MetaTensor)
        assert image.dtype == torch.float32
        assert np.array_equal(image.numpy(), voxels)
        assert np.allclose(image.affine, grid.affine, atol=1e-5)
        assert np.allclose(image.meta["original_affine"], grid.affine, atol=1e-5)
        assert tuple(image.meta["spatial_shape"]) == voxels.shape


def test_monai_reads_real_scans_as_with_its_own_reader(real):
    for case in ("s0000", "s0001"):
        path = real / "totalseg_mini" / case / "ct.nii.gz"
        ours, theirs = loaded(path), loaded(path, "NibabelReader")
        assert torch.equal(ours.as_tensor(), theirs.as_tensor())
        assert np.array_equal(ours.affine, theirs.affine)


def test_no_other_reader_of_monai_takes_what_ours_refuses(tmp_path, voxels):
    path = written_by_itk(tmp_path / "a.nii.gz", voxels, np.eye(4), True)
    path.write_bytes(path.read_bytes()[:-80])
    with pytest.raises(DataError, match=r"a\.nii\.gz: the file is damaged or cut short"):
        loaded(path)
    with pytest.raises(RuntimeError, match="applying transform") as caught:
        Compose([LoadImaged("image", reader=VolumeReader)])({"image": str(path)})
    assert isinstance(caught.value.__cause__, DataError)


def test_several_files_become_channels_and_must_lie_on_one_grid(tmp_path, voxels):
    first = written_by_itk(tmp_path / "a.nrrd", voxels, np.eye(4), True)
    second = written_by_itk(tmp_path / "b.mha", voxels + 1, np.eye(4), True)
    other = written_by_itk(tmp_path / "c.mha", voxels, np.diag([1.0, 1, 2, 1]), True)
    load = LoadImaged("image", reader=VolumeReader(), ensure_channel_first=True)
    assert np.array_equal(load({"image": [str(first), str(second)]})["image"].numpy(), np.stack([voxels, voxels + 1]))
    with pytest.raises(GeometryError, match=r"c\.mha: .*a\.nrrd"):
        load({"image": [str(first), str(other)]})


def test_a_volume_in_memory_takes_the_place_of_a_file(voxels):
    load = LoadImaged("image", reader=VolumeReader, dtype=np.int16)
    image = load({"image": "array"}, reader=InMemoryReader(voxels, Grid(voxels.shape, PERMUTED)))["image"]
    assert np.array_equal(image.numpy(), voxels)
    assert np.array_equal(image.affine, PERMUTED)
    assert image.meta["filename_or_obj"] == "array"


def test_real_dicom_equals_the_label_on_its_grid(real):
    """nibabel's reading of the label of the same scan says where the DICOM voxels lie."""
    _, grid = read_volume(real / "dicom" / "abdomen_ct")
    label = nib.load(real / "dicom" / "abdomen_ct_labels.nii.gz")
    turned = label.as_reoriented(
        nib.orientations.ornt_transform(nib.io_orientation(label.affine), nib.io_orientation(grid.affine))
    )
    assert turned.shape == grid.shape
    assert np.allclose(turned.affine, grid.affine, atol=1e-3)


def test_highdicom_orders_a_series_in_the_same_way(real):
    spatial, pydicom = pytest.importorskip("highdicom.spatial"), pytest.importorskip("pydicom")
    folder = real / "dicom" / "sts_ct_rtstruct" / "STS_001" / "dicom" / "image"
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(folder.iterdir())]
    spacing, order = spatial.get_series_volume_positions(headers)
    assert spacing == pytest.approx(read_grid(folder).spacing[2], abs=1e-4)
    assert sorted(order) == list(range(len(headers)))


def test_a_file_without_its_folder_is_not_found(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_volume(tmp_path / "missing.nrrd")
    shutil.copy(__file__, tmp_path / "text.mha")
    with pytest.raises(DataError, match=r"text\.mha: "):
        read_volume(tmp_path / "text.mha")
