"""What changes the meaning of DICOM pixels: applied as pydicom's own functions do, or refused; never ignored."""

import re
import shutil
import warnings

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_modality_lut
from pydicom.uid import JPEGLosslessSV1, RLELossless

from medseg.data import open_series, read_volume
from medseg.data.dicom_file import load_itk, read_header
from medseg.errors import DataError, MedsegError


@pytest.fixture
def series(save_dicom):
    """A series of three slices whose files `change` edits: `series(change)`, which gets the dataset and its number."""

    def make(change=lambda dataset, k: None, values=(-1000, 1500)):
        hu = np.random.default_rng(0).integers(*values, (6, 5, 3)).astype(np.int16)
        folder = save_dicom("series", hu)
        for k, path in enumerate(sorted(folder.iterdir())):
            dataset = pydicom.dcmread(path)
            change(dataset, k)
            dataset.save_as(path)
        return folder

    return make


def by_pydicom(folder):
    planes = []
    for header in open_series(folder).slices:
        dataset = pydicom.dcmread(header.path)
        planes.append(apply_modality_lut(dataset.pixel_array, dataset).T)
    return np.stack(planes, axis=2)


def setting(only=None, **values):
    def change(dataset, k):
        if only is None or k == only:
            for keyword, value in values.items():
                if value is None:
                    if keyword in dataset:
                        del dataset[keyword]
                else:
                    setattr(dataset, keyword, value)
                    if keyword == "PixelPaddingValue":
                        dataset[keyword].VR = "SS"

    return change


def twelve_bits(dataset, k):
    """Twelve bits in use, and rubbish in the four above, as of an old overlay."""
    stored = np.random.default_rng(k).integers(0, 4096, (5, 6)).astype(np.uint16)
    dataset.update({"PixelRepresentation": 0, "BitsStored": 12, "HighBit": 11})
    dataset.PixelData = (stored | (np.arange(30).reshape(5, 6) % 16 << 12).astype(np.uint16)).tobytes()


def twelve_signed_bits(dataset, k):
    stored = np.random.default_rng(k).integers(-2048, 2048, (5, 6)).astype(np.int16)
    dataset.update({"PixelRepresentation": 1, "BitsStored": 12, "HighBit": 11})
    dataset.PixelData = (stored & 0x0FFF).tobytes()


def mixed_signs(dataset, k):
    if k == 1:
        dataset.PixelRepresentation = 0
        dataset.PixelData = np.full((5, 6), 40000, np.uint16).tobytes()


def big_endian(dataset, k):
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRBigEndian
    dataset.PixelData = dataset.pixel_array.astype(">i2").tobytes()


TAKEN = {
    "MONOCHROME1": setting(PhotometricInterpretation="MONOCHROME1"),
    "MONOCHROME1 in one slice": setting(1, PhotometricInterpretation="MONOCHROME1"),
    "MONOCHROME1, compressed": lambda dataset, k: (
        setting(PhotometricInterpretation="MONOCHROME1")(dataset, k),
        dataset.compress(RLELossless),
    ),
    "another intercept in one slice": setting(2, RescaleIntercept=-24),
    "a slope below 0": setting(RescaleSlope=-1, RescaleIntercept=0),
    "a slope that is no whole number": setting(RescaleSlope="0.25"),
    "unused bits": twelve_bits,
    "unused bits of signed pixels": twelve_signed_bits,
    "signed and unsigned slices": mixed_signs,
    "padding": setting(PixelPaddingValue=-2000),
}


@pytest.mark.parametrize("name", TAKEN)
def test_values_are_those_of_pydicom(series, name):
    folder = series(TAKEN[name])
    assert np.array_equal(read_volume(folder)[0], by_pydicom(folder))
    assert open_series(folder).problems == ()


def test_the_real_series_of_inverted_gray_keeps_its_hu(real):
    voxels, _ = read_volume(real / "found" / "dicom_monochrome1")
    assert np.array_equal(voxels, by_pydicom(real / "found" / "dicom_monochrome1"))
    assert (int(voxels.min()), int(np.median(voxels[200:300, 200:300]))) == (-3024, 104)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_jpeg_lossless_which_pydicom_cannot_decode_gives_the_same_hu(series, tmp_path, photometric):
    """The compression of most archives. ITK writes it here, and reads it without what it would apply itself."""
    stored = np.random.default_rng(1).integers(0, 4096, (3, 5, 6)).astype(np.uint16)
    folder = series(setting(PixelRepresentation=0, PhotometricInterpretation=photometric, RescaleIntercept=-1000))
    itk = load_itk()
    for plane, path in zip(stored, sorted(folder.iterdir(), reverse=True), strict=True):
        io = itk.GDCMImageIO.New()
        io.SetCompressor("JPEG")
        itk.imwrite(itk.image_from_array(plane), str(tmp_path / "a.dcm"), imageio=io, compression=True)
        packed, dataset = pydicom.dcmread(tmp_path / "a.dcm"), pydicom.dcmread(path)
        assert packed.file_meta.TransferSyntaxUID == JPEGLosslessSV1
        dataset["PixelData"], dataset.file_meta = packed["PixelData"], packed.file_meta
        dataset.save_as(path)
    assert np.array_equal(read_volume(folder)[0], stored.T.astype(np.int32) - 1000)


REFUSED = {
    "1 of 3 slices do not say how their values become HU": setting(1, RescaleSlope=None, RescaleIntercept=None),
    "2 of 3 slices do not say": lambda d, k: setting(RescaleIntercept=None)(d, k) if k else None,
    "3 of 3 slices do not say": setting(RescaleSlope=None, RescaleIntercept=None, PixelRepresentation=0),
    "its RescaleSlope is 0": setting(2, RescaleSlope=0),
    "the slices are of 2 frames of reference (IM002.dcm)": setting(1, FrameOfReferenceUID="1.2.9"),
    "the slices are of 2 studies (IM003.dcm)": lambda d, k: setting(StudyInstanceUID="1.2" if k < 2 else "1.3")(d, k),
    "the slices are of 2 patients (IM001.dcm)": lambda d, k: setting(PatientID="b" if k else "a")(d, k),
    "do not lie in the lowest bits (BitsStored 12.0, HighBit 15.0)": setting(BitsStored=12),
    "its pixels have 8 bits, as a capture of a screen has": setting(BitsAllocated=8, BitsStored=8, HighBit=7),
    "its values are 'Z_EFF' (RescaleType), not HU": setting(RescaleType="Z_EFF"),
    "its values are 'MGML' (RescaleType), not HU": setting(0, RescaleType="MGML"),
    "it is a map (ELECTRON_DENSITY), not a CT": setting(ImageType=["DERIVED", "PRIMARY", "AXIAL", "ELECTRON_DENSITY"]),
    "it is a map (PERFUSION), not a CT": setting(ImageType=["DERIVED", "PRIMARY", "PERFUSION", "RCBF"]),
    "its pixels become values through a Modality LUT": setting(ModalityLUTSequence=[pydicom.Dataset()]),
    "the file holds colors": setting(SamplesPerPixel=3, PhotometricInterpretation="RGB"),
    "IM001.dcm: the file holds colors": setting(PhotometricInterpretation="PALETTE COLOR"),
    "the folder holds no slices of a CT (3 Secondary Capture Image)": setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"),
    "the folder holds no slices of a CT (3 localizer)": setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_no_hu_or_no_single_scan_is_refused(series, message):
    folder = series(REFUSED[message])
    with pytest.raises(DataError, match=re.escape(message)):
        read_volume(folder)


def test_the_lungs_of_a_series_without_rescale_are_taken_as_stored_with_a_warning(series):
    folder = series(setting(RescaleSlope=None, RescaleIntercept=None))
    (finding,) = open_series(folder).problems
    assert (finding.severity, finding.code) == ("warning", "rescale-absent")
    assert np.array_equal(read_volume(folder)[0], by_pydicom(folder))


DOUBTFUL = {
    "hu-changed": setting(RescaleType="HU_MOD"),
    "slices-differ": setting(1, ImageType=["DERIVED", "SECONDARY", "AXIAL"]),
    "padding-dense": setting(PixelPaddingValue=3000),
}


@pytest.mark.parametrize("code", DOUBTFUL)
def test_what_is_doubtful_is_said(series, code):
    assert [finding.code for finding in open_series(series(DOUBTFUL[code])).problems] == [code]


BESIDE = {
    "1 RT Structure Set": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.3", "Modality": "RTSTRUCT"},
    "1 RT Dose": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.481.2", "Modality": "RTDOSE"},
    "1 Segmentation": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4", "Modality": "SEG"},
    "1 SEG object": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.7", "Modality": "SEG"},  # newer than this pydicom
    "1 SR object": {"SOPClassUID": None, "Modality": "SR"},
    "1 Grayscale Softcopy Presentation State": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1", "Modality": "PR"},
    "1 private object": {"SOPClassUID": "1.3.12.2.1107.5.9.1", "Modality": "CT"},
    "1 Secondary Capture Image": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "CT", "Rows": 5},
}


@pytest.mark.parametrize("name", BESIDE)
def test_objects_beside_a_ct_are_named_and_left_out(series, name):
    folder = series()
    alone = read_volume(folder)[0]
    dataset = pydicom.Dataset()
    setting(**BESIDE[name], SeriesInstanceUID="1.2.77")(dataset, 0)
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID") or ""
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.78"
    pydicom.dcmwrite(folder / "object.dcm", dataset, enforce_file_format=False)
    (finding,) = open_series(folder).problems
    assert (finding.severity, finding.code) == ("note", "dicom-objects")
    assert finding.message.endswith(f"no slices of the CT: {name}")
    assert np.array_equal(read_volume(folder)[0], alone)


def test_a_localizer_in_the_series_itself_is_left_out(series):
    folder = series()
    other = pydicom.dcmread(folder / "IM001.dcm")
    other.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    other.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    other.save_as(folder / "scout.dcm")
    assert read_volume(folder)[0].shape == (6, 5, 3)


def test_a_private_slice_that_is_cut_short_is_not_taken_for_an_object(series):
    folder = series(setting(1, SOPClassUID="1.3.46.670589.5.0.1"))
    assert read_volume(folder)[0].shape == (6, 5, 3)
    path = folder / "IM002.dcm"
    path.write_bytes(path.read_bytes()[:-20])
    assert read_header(path) is None
    with pytest.raises(DataError, match=r"1 of 3 files are cut short or hold no image [(]IM002.dcm[)]"):
        open_series(folder)


def test_a_series_without_meta_headers_is_read(series):
    folder = series()
    expected = read_volume(folder)[0]
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            del dataset.file_meta
            pydicom.dcmwrite(path, dataset, implicit_vr=True, little_endian=True)
    assert np.array_equal(read_volume(folder)[0], expected)


@pytest.mark.parametrize("name", ["CT_small.dcm", "693_J2KR.dcm", "J2K_pixelrep_mismatch.dcm"])
def test_real_slices_equal_pydicom(real, tmp_path, name):
    shutil.copy(real / "odd" / "dicom" / "pydicom" / name, tmp_path)
    try:
        voxels, _ = read_volume(tmp_path)
    except MedsegError as error:
        pytest.fail(str(error))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom says that it corrects the sign
        assert np.array_equal(voxels, by_pydicom(tmp_path))
