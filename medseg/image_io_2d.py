"""Pictures on disk (PNG and the like) as arrays the way round they have on the screen: first rows, then columns.

Not MONAI's `PILReader`, which gives columns first, scales nothing and lets damaged files pass.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.atomic import atomic_path
from medseg.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_COMMENT = "Comment"  # a keyword of the PNG specification
_PNG, _LFS = b"\x89PNG\r\n\x1a\n", b"version https://git-lfs"
_AGAIN = "Download or copy it again."
_ORIENTATION, _ON_ITS_SIDE = 0x0112, 5  # of EXIF: from 5 on rows are columns
_GREY = np.array([19595, 38470, 7471], dtype=np.int64)  # ITU-R BT.601, in 65536ths


@dataclass(frozen=True)
class ClassColors:
    """What the values or colours of masks mean.

    Args:
        names: of the classes, the background first.
        codes: of each class: a colour `(r, g, b)`, or the one value `(v,)` that a grey mask has there.
        coloured: whether the codes are colours.
        generic: whether nobody said what the classes are called.
    """

    names: tuple[str, ...]
    codes: tuple[tuple[int, ...], ...]
    coloured: bool = False
    generic: bool = False


@dataclass(frozen=True)
class SliceInfo:
    """What is known of a picture that is a slice.

    Args:
        patient: whose it is: no patient stands on two sides of a split.
        scan: the scan it is a slice of; empty where it belongs to none.
        number: its number in the scan; None where it has none.
        spacing: mm from row to row and from column to column; None where that is not known.
        limits: least and greatest value of the scan; None where that is not known yet, or there is no scan.
        runs: its masks as run lengths by structure (`medseg.data.rle`), where it comes with these.
    """

    patient: str
    scan: str = ""
    number: int | None = None
    spacing: tuple[float, float] | None = None
    limits: tuple[float, float] | None = None
    runs: Mapping[str, str] | None = None

    def item(self, around: Sequence[Path]) -> dict[str, Any]:
        """What an item of a slice holds beside its files.

        `patient` and `scan` (empty where it belongs to none), `slice` (its number, -1 where it has none), `neighbours`
        (the paths of the slices around it, itself in the middle) and, where they are known, `spacing` (mm from row to
        row and from column to column) and `limits` (the scan's least and greatest value).
        """
        number = -1 if self.number is None else self.number
        item: dict[str, Any] = {"patient": self.patient, "scan": self.scan, "slice": number}
        item["neighbours"] = [str(path) for path in around]
        if self.spacing is not None:
            item["spacing"] = list(self.spacing)
        return item if self.limits is None else {**item, "limits": list(self.limits)}


@dataclass(frozen=True, eq=False)
class Image2D:
    """A picture in memory.

    Args:
        values: `(rows, columns)`, or `(rows, columns, 3)` of colours.
        full: the value of white; None where values have no such end (32 bits, floats).
        palette: colours of the values, `(n, 3)`, uint8; None where values mean themselves.
        loss: what of the file was not read, as the end of a sentence; empty where that is nothing.
    """

    values: npt.NDArray[Any]
    full: int | None
    palette: npt.NDArray[np.uint8] | None = None
    loss: str = ""

    @property
    def deep(self) -> bool:
        """Whether it has more than 8 bits, so that only a range says which value is black and which white."""
        return self.full is None or self.full > 255

    @property
    def limits(self) -> tuple[float, float]:
        """Its least and greatest value."""
        return float(self.values.min()), float(self.values.max())


def is_picture(path: Path) -> bool:
    """Whether a file is named like a picture; hidden ones (`._x.png`) are none."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_image_2d(path: str | Path) -> Image2D:
    """Read a picture whole. A PNG's checksums must hold.

    Raises:
        DataError: it is missing, empty, cut short, damaged, no picture, several pictures, or partly transparent.
    """
    from PIL import Image, ImageOps

    content = _content(Path(path))
    depth, loss = _png(path, content) if content.startswith(_PNG) else (8, "")
    try:
        image: Any = Image.open(io.BytesIO(content))
        if getattr(image, "n_frames", 1) > 1:
            raise DataError(path, "must hold one picture", f"{image.n_frames}", "Save each as a file of its own.")
        image.load()
        image = image if content.startswith(_PNG) else ImageOps.exif_transpose(image)
    except DataError:
        raise
    except Exception as error:  # Pillow raises many kinds for one thing: a file that is not what it says
        raise DataError(path, "must be a whole and readable picture", _first_line(error), _AGAIN) from error
    if "transparency" in image.info and image.mode in ("P", "L", "RGB", "1"):
        _opaque(path, image.convert("RGBA"))  # a colour that is transparent, where any pixel has it
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image, loss = _opaque(path, image), "its alpha channel, which is opaque everywhere"
    if image.mode == "P":
        colours = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        return Image2D(np.asarray(image), 255, np.vstack([colours, np.zeros((256 - len(colours), 3), np.uint8)]), loss)
    values = np.asarray(image)
    if image.mode in ("1", "L"):
        full = 1 if image.mode == "1" else 2**depth - 1
        return Image2D(values.astype(np.uint8) // (255 // full if image.mode == "L" else 1), full, loss=loss)
    if image.mode == "RGB":
        return Image2D(values, 255, loss=loss)
    if image.mode.startswith("I;16"):
        return Image2D(values.astype(np.uint16), 65535)
    if image.mode in ("I", "F") and np.isfinite(values).all():
        return Image2D(values, None)
    raise DataError(path, "must be grey, RGB or of a palette", f"the mode {image.mode}", "Convert it to PNG.")


def read_size(path: str | Path) -> tuple[int, int]:
    """Rows and columns of a picture, from its header alone.

    Raises:
        DataError: it is missing or no picture.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            turned = image.format != "PNG" and image.getexif().get(_ORIENTATION, 1) >= _ON_ITS_SIDE
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception as error:
        raise DataError(path, "must be a readable picture", _first_line(error), _AGAIN) from error


def intensities(
    picture: Image2D, channels: int = 1, limits: tuple[float, float] | None = None
) -> npt.NDArray[np.float32]:
    """A picture as a network takes it: `(channels, rows, columns)`, from 0 (black) to 1 (white).

    Up to 8 bits white is white. With more bits `limits` become 0 and 1; where none are given, the picture's own.

    Args:
        picture: as `read_image_2d` gives it.
        channels: 1 (colours become grey, ITU-R BT.601) or 3 (grey is repeated).
        limits: the least and the greatest value of the scan.

    Raises:
        DataError: another number of channels.

    >>> intensities(Picture(np.array([[0, 51]], dtype=np.uint8), 255))[0].tolist()
    [[0.0, 0.20000000298023224]]
    """
    if channels not in (1, 3):
        raise DataError("A picture", "can be had with 1 channel or 3", str(channels))
    values = picture.palette[picture.values] if picture.palette is not None else picture.values
    if values.ndim == 3 and channels == 1:
        values = (values.astype(np.int64) @ _GREY + 32768) >> 16
    if picture.deep:
        low, high = limits or picture.limits
        scaled = np.clip((values.astype(np.float64) - low) / (high - low if high > low else 1.0), 0, 1)
    else:
        scaled = values / float(picture.full or 1)
    scaled = scaled.astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(scaled, -1, 0) if scaled.ndim == 3 else np.stack([scaled] * channels))


def write_picture(
    path: str | Path, values: npt.NDArray[Any], colours: Sequence[Sequence[int]] | None = None, comment: str = ""
) -> Path:
    """Write an array as a PNG that looks the same on the screen: whole or not at all.

    Args:
        path: the file.
        values: `(rows, columns)` of uint8 or uint16, or `(rows, columns, 3)` of uint8.
        colours: for class indices (uint8): the colour of each; the file keeps the indices, a viewer shows the colours.
        comment: is kept in the file, see `read_comment`.

    Raises:
        DataError: an array of another kind.
        OutputError: the place cannot be written.
    """
    from PIL import Image, PngImagePlugin

    grey = values.ndim == 2 and values.dtype in (np.uint8, np.uint16)
    if not (grey or (values.ndim == 3 and values.shape[2] == 3 and values.dtype == np.uint8)):
        raise DataError(path, "needs rows and columns, grey or RGB", f"{values.dtype} {values.shape}")
    image = Image.fromarray(np.ascontiguousarray(values))
    if colours is not None:
        if values.ndim != 2 or values.dtype != np.uint8:
            raise DataError(path, "needs class indices (uint8) where colours are given", f"{values.dtype}")
        image.putpalette([int(one) for colour in colours for one in colour])
    said = PngImagePlugin.PngInfo()
    if comment:
        said.add_text(_COMMENT, comment)
    with atomic_path(path) as partial:
        image.save(partial, format="PNG", pnginfo=said)
    return Path(path)


def read_comment(path: str | Path) -> str:
    """What `write_picture` was told to keep in the file; empty where that was nothing.

    Raises:
        DataError: it is missing or no picture.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return str(image.info.get(_COMMENT, ""))
    except Exception as error:
        raise DataError(path, "must be a readable picture", _first_line(error), _AGAIN) from error


def neighbours(slices: Mapping[str, SliceInfo], context: int) -> dict[str, tuple[str, ...]]:
    """For each slice those around it in its scan, `2 * context + 1` ids, lowest number first, itself in the middle.

    A step is the least difference between two numbers of the scan. Where there is no slice one step further
    (the end of the scan, or a gap), the last one before is repeated. A slice without a number has only itself.

    >>> scan = {name: SliceInfo("p", "p", number) for name, number in (("a", 1), ("b", 2), ("d", 4))}
    >>> neighbours(scan, 1)
    {'a': ('a', 'a', 'b'), 'b': ('a', 'b', 'b'), 'd': ('d', 'd', 'd')}
    """
    scans: dict[str, dict[int, str]] = {}
    for id, one in slices.items():
        if one.scan and one.number is not None:
            scans.setdefault(one.scan, {})[one.number] = id
    steps = {scan: _step(sorted(held)) for scan, held in scans.items()}
    found = {}
    for id, one in slices.items():
        if not one.scan or one.number is None:
            found[id] = (id,) * (2 * context + 1)
            continue
        around = [id]
        for side in (-1, 1):
            last, gap = id, False
            for offset in range(1, context + 1):
                further = scans[one.scan].get(one.number + side * offset * steps[one.scan])
                last, gap = (last, True) if further is None or gap else (further, False)
                around.insert(0 if side < 0 else len(around), last)
        found[id] = tuple(around)
    return found


def _step(numbers: list[int]) -> int:
    return min((after - before for before, after in itertools.pairwise(numbers)), default=1)


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(path, "must be a readable picture", error.strerror or str(error)) from error
    if not content:
        raise DataError(path, "must be a picture", "an empty file", _AGAIN)
    if content.startswith(_LFS):
        raise DataError(path, "must be a picture", "a Git-LFS pointer", "Fetch the file itself: git lfs pull")
    return content


def _png(path: str | Path, content: bytes) -> tuple[int, str]:
    """Bits a value of a PNG, and what of it Pillow does not read; every chunk's checksum is held."""
    at, depth, loss = len(_PNG), 8, ""
    while True:
        if at + 12 > len(content):
            raise DataError(path, "must be a whole PNG", "an end in the middle", _AGAIN)
        (length,) = struct.unpack(">I", content[at : at + 4])
        kind, body = content[at + 4 : at + 8], memoryview(content)[at + 4 : at + 8 + length]
        if at + 12 + length > len(content):
            raise DataError(path, "must be a whole PNG", f"an end in the middle of {kind!r}", _AGAIN)
        if zlib.crc32(body) != struct.unpack(">I", content[at + 8 + length : at + 12 + length])[0]:
            raise DataError(path, "must be a sound PNG", f"a checksum that does not fit in {kind!r}", _AGAIN)
        if kind == b"IHDR" and length == 13:
            depth, colour = content[at + 16], content[at + 17]
            loss = "the lower 8 of its 16 bits a colour" if depth == 16 and colour in (2, 4, 6) else ""
        if kind == b"IEND":
            return min(depth, 8), loss
        at += 12 + length


def _opaque(path: str | Path, image: Any) -> Any:
    """The picture without its alpha channel, which must say nothing."""
    alpha = np.asarray(image.getchannel("A"))
    if alpha.min() < 255:
        raise DataError(
            path,
            "must have no transparent pixels",
            f"{len(image.getbands())} channels, {int((alpha < 255).sum())} pixels of them transparent",
            "Save it without its alpha channel, as grey or RGB.",
        )
    return image.convert("L" if image.mode in ("LA", "La") else "RGB")


def _first_line(fault: Exception) -> str:
    return str(fault).splitlines()[0] if str(fault) else type(fault).__name__
