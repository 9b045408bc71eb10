"""One DICOM file: what it holds, the values of its header that change what its pixels mean, and its pixels in HU.

Headers and pixels come from pydicom, and HU are what its `apply_rescale` gives. The compressions that pydicom has no
decoder for (JPEG lossless, JPEG-LS without pyjpegls) are decoded by ITK (GDCM), from a copy without the tags that
GDCM would apply in its own way: it inverts MONOCHROME1, which says how to show a CT and changes no HU.
"""

from __future__ import annotations

import functools
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from medseg.errors import DataError

KEYWORDS = (
    *("SOPClassUID", "Modality", "ImageType", "SeriesInstanceUID", "SeriesNumber", "FrameOfReferenceUID"),
    *("StudyInstanceUID", "PatientID", "NumberOfFrames", "SamplesPerPixel", "Rows", "Columns", "PixelSpacing"),
    *("ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence"),
    *("PixelPaddingValue", "PhotometricInterpretation"),
)
_PIXEL_DATA = 0x7FE00010
_LONG_VRS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"UN")  # two reserved bytes, then a length of four
_UNDEFINED = 0xFFFFFFFF  # the length of compressed pixel data, which comes in items
_DEFLATED = "1.2.840.10008.1.2.1.99"  # all of the file behind its first header is one compressed stream
_ITEM, _SEQUENCE_END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
# Modalities whose objects hold no slices; asked where the SOP class is missing or newer than pydicom.
_OBJECTS = ("AU", "DOC", "FID", "KO", "PLAN", "PR", "REG", "RTDOSE", "RTPLAN", "RTRECORD", "RTSTRUCT", "RWV", "SEG",
            "SR")  # fmt: skip


@dataclass(frozen=True)
class SliceHeader:
    """The header of one file.

    Args:
        path: the file.
        values: by DICOM keyword; only those that are set.
    """

    path: Path
    values: Mapping[str, Any]

    def text(self, keyword: str) -> str:
        r"""Return a value as text, several joined by a backslash; empty where it is not set."""
        value = self.values.get(keyword)
        parts = [value] if isinstance(value, (str, int, float)) else list(value or ())
        return "\\".join(str(part).strip(" \0") for part in parts)

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """Return the numbers of a value; None where it is not set or holds anything but `count` finite numbers."""
        value = self.values.get(keyword)
        parts = [value] if isinstance(value, (str, int, float)) else list(value or ())
        try:
            numbers = tuple(float(part) for part in parts)
        except (TypeError, ValueError):
            return None
        return numbers if len(numbers) == count and bool(np.isfinite(numbers).all()) else None

    def number(self, keyword: str) -> float | None:
        """Return the one number of a value; None where it is not set or no finite number."""
        numbers = self.numbers(keyword, 1)
        return numbers[0] if numbers else None

    @property
    def kind(self) -> str:
        """What the file holds if that is no slice of a scan, such as `RT Structure Set`; empty for a slice."""
        from pydicom.uid import UID

        uid = UID(self.text("SOPClassUID"))
        name = str(uid.name).removesuffix(" Storage") if uid else ""
        if uid and uid.is_private and "Rows" not in self.values:
            return "private object"
        if name in ("", str(uid)):  # no class, a private one, or one that this pydicom does not know
            modality = self.text("Modality")
            return f"{modality} object" if modality in _OBJECTS else ""
        if "Image" not in name or "Secondary Capture" in name:
            return name
        return "localizer" if "LOCALIZER" in self.text("ImageType").split("\\") else ""


def read_header(path: Path) -> SliceHeader | None:
    """Return the header of a file; None unless it is an object without slices, or an image to its last byte."""
    import pydicom

    try:
        with path.open("rb") as file, pydicom.config.disable_value_validation(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=list(KEYWORDS))
            # A value that cannot be converted raises when it is fetched.
            values = {name: dataset[name].value for name in KEYWORDS if name in dataset}
            values["SOPClassUID"] = values.get("SOPClassUID") or dataset.file_meta.get("MediaStorageSOPClassUID", "")
            header = SliceHeader(path, values)
            order = "big" if getattr(dataset, "original_encoding", (None, True))[1] is False else "little"
            if header.kind or dataset.file_meta.get("TransferSyntaxUID") == _DEFLATED:
                return header
            return header if _pixels_are_complete(file, order, path.stat().st_size) else None
    except Exception:  # pydicom raises many kinds on bytes that are not DICOM
        return None


def _pixels_are_complete(file: BinaryIO, order: str, size: int) -> bool:
    """Return whether the file goes on to the end of its pixel data; it stands where the element begins."""
    endian: Any = order
    tag = file.read(4)
    if int.from_bytes(tag[:2], endian) << 16 | int.from_bytes(tag[2:], endian) != _PIXEL_DATA:
        return False
    vr = file.read(4)
    length = int.from_bytes(file.read(4) if vr[:2] in _LONG_VRS and vr[2:] == b"\0\0" else vr, endian)
    if length != _UNDEFINED:
        return 0 < length <= size - file.tell()
    while True:  # items of compressed bytes, each with its length, until the sequence ends
        head = file.read(8)
        if head[:4] == _SEQUENCE_END:
            return len(head) == 8
        if head[:4] != _ITEM:
            return False
        file.seek(int.from_bytes(head[4:], "little"), 1)


def read_pixels(header: SliceHeader) -> npt.NDArray[Any]:
    """Return the pixels of a slice in HU, `(columns, rows)`: integers where slope and intercept are, else float32.

    Raises:
        DataError: they cannot be decoded.
    """
    import pydicom
    from pydicom.pixels import get_decoder

    path = header.path
    try:
        with pydicom.config.disable_value_validation(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, force=True)
            if "TransferSyntaxUID" not in dataset.file_meta:
                implicit, little = dataset.original_encoding
                name = "ImplicitVRLittleEndian" if implicit else f"ExplicitVR{'Little' if little else 'Big'}Endian"
                dataset.file_meta.TransferSyntaxUID = getattr(pydicom.uid, name)
            syntax = dataset.file_meta.TransferSyntaxUID
            if syntax.is_encapsulated and not get_decoder(syntax).is_available:
                stored = _decoded_by_itk(dataset)
            else:
                stored = dataset.pixel_array
    except Exception as error:  # each decoder raises its own kinds
        reason = str(error).strip().rpartition("\n")[2]
        raise DataError(path, "the pixels cannot be decoded", reason, "Copy the series again.") from error
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    if slope.is_integer() and intercept.is_integer():
        return np.asarray((stored.astype(np.int64) * int(slope) + int(intercept)).T)
    return np.asarray((stored * slope + intercept).astype(np.float32).T)


def _decoded_by_itk(dataset: Any) -> npt.NDArray[Any]:
    """Return the stored pixels, `(rows, columns)`, as GDCM decodes them where it has nothing else to apply."""
    itk = load_itk()
    dataset.PhotometricInterpretation = "MONOCHROME2"
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        if keyword in dataset:
            del dataset[keyword]
    with tempfile.TemporaryDirectory(prefix="medseg-dicom-") as folder:
        path = Path(folder) / "slice.dcm"
        dataset.save_as(path)
        image = itk.imread(str(path), imageio=itk.GDCMImageIO.New())
    pixels: npt.NDArray[Any] = np.asarray(itk.array_view_from_image(image))
    pixels = np.array(pixels.reshape(pixels.shape[-2:]))
    # The bits above BitsStored mean nothing; the shifts carry the sign.
    unused = 8 * pixels.itemsize - int(dataset.BitsStored)
    return pixels << unused >> unused


@functools.cache
def load_itk() -> Any:
    """Return ITK with its DICOM reader loaded, which takes seconds.

    Its compiled modules warn of their own types when they are loaded, and crash where warnings are errors.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        import itk

        itk.GDCMImageIO.New()
    return itk
