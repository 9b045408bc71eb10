"""Read and write 2D images (PNG and the like) as arrays `(row, column)`, as they look on the screen.

Not MONAI's `PILReader`, which returns columns first, scales nothing and accepts damaged files.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medseg.atomic import atomic_path
from medseg.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_COMMENT = "Comment"  # a keyword of the PNG specification
_PNG, _LFS = b"\x89PNG\r\n\x1a\n", b"version https://git-lfs"
_COPY_AGAIN = "Download or copy it again."
_VOLUME = "A bundle of 2D images takes volumes through `medseg predict` alone, with --set window=[LOW,HIGH]."
_ORIENTATION, _SIDEWAYS = 0x0112, 5  # EXIF: from 5 on rows are columns
_GREY_WEIGHTS = np.array([19595, 38470, 7471], dtype=np.int64)  # ITU-R BT.601, in 65536ths


@dataclass(frozen=True)
class ClassColors:
    """Say what the values or colors of masks mean.

    Args:
        names: the classes, the background first.
        codes: of each class: a color `(r, g, b)`, or the one value `(v,)` that a grey mask has there.
        colored: whether the codes are colors.
    """

    names: tuple[str, ...]
    codes: tuple[tuple[int, ...], ...]
    colored: bool = False

    @classmethod
    def indexed(cls, names: Sequence[str]) -> ClassColors:
        """Return the classes of masks whose values are class indices."""
        return cls(tuple(names), tuple((index,) for index in range(len(names))))

    @property
    def structures(self) -> tuple[str, ...]:
        """Return the names without the background."""
        return self.names[1:]


@dataclass(frozen=True)
class SliceInfo:
    """Describe the place of a 2D slice in its scan.

    Args:
        scan: the scan it is a slice of; empty if it belongs to none.
        number: its number in the scan; None if it has none.
        spacing: mm from row to row and from column to column; None if unknown.
        limits: the lowest and highest value of the scan; None if unknown yet, or if there is no scan.
        runs: its masks as run lengths by structure (`medseg.data.layouts.kaggle`), if it has these.
    """

    scan: str = ""
    number: int | None = None
    spacing: tuple[float, float] | None = None
    limits: tuple[float, float] | None = None
    runs: Mapping[str, str] | None = None

    def item(self, neighbors: Sequence[Path]) -> dict[str, Any]:
        """Return what a MONAI item of a slice holds beside its files.

        `scan` (empty if it belongs to none), `slice` (its number, -1 if it has none), `neighbors` (the paths of the
        slices around it, itself in the center) and, if they are known, `spacing` (mm from row to row and from column to
        column) and `limits` (the scan's lowest and highest value).
        """
        item: dict[str, Any] = {"scan": self.scan, "slice": -1 if self.number is None else self.number}
        item["neighbors"] = [str(path) for path in neighbors]
        if self.spacing is not None:
            item["spacing"] = list(self.spacing)
        if self.limits is not None:
            item["limits"] = list(self.limits)
        return item


@dataclass(frozen=True, eq=False)
class Image2D:
    """Hold a 2D image in memory.

    Args:
        values: `(rows, columns)`, or `(rows, columns, 3)` of colors.
        white: the value of white; None if values have no such end (32 bits, floats).
        palette: colors of the values, `(n, 3)`, uint8; None if values mean themselves.
        loss: the part of the file that was not read, as the end of a sentence; empty if there is none.
        orientation: how its EXIF data said that it is shown, 1 to 8; the values are turned that way.
        lossy: whether its format changes values (JPEG).
    """

    values: npt.NDArray[Any]
    white: int | None
    palette: npt.NDArray[np.uint8] | None = None
    loss: str = ""
    orientation: int = 1
    lossy: bool = False

    @property
    def deep(self) -> bool:
        """Return whether it has more than 8 bits, so that only a range tells which value is black and which white."""
        return self.white is None or self.white > 255

    @property
    def limits(self) -> tuple[float, float]:
        """Return its lowest and highest value."""
        return float(self.values.min()), float(self.values.max())


def is_image_2d(path: Path) -> bool:
    """Return whether a file is named like a 2D image; hidden files (`._x.png`) are not."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def read_image_2d(path: str | Path) -> Image2D:
    """Read a 2D image completely, turned as its EXIF data say, whatever the format. A PNG's checksums must be right.

    Raises:
        DataError: it is missing, empty, truncated, damaged, no image, several images, or partly transparent.
    """
    from PIL import Image, ImageOps

    content = _content(Path(path))
    depth, loss = _check_png(path, content) if content.startswith(_PNG) else (8, "")
    try:
        image: Any = Image.open(io.BytesIO(content))
        if getattr(image, "n_frames", 1) > 1:
            raise DataError(path, f"the file holds {image.n_frames} images", "", "Save each in a file of its own.")
        orientation, lossy = int(image.getexif().get(_ORIENTATION, 1)), image.format == "JPEG"
        image.load()
        image = ImageOps.exif_transpose(image)
    except DataError:
        raise
    except Exception as error:  # Pillow raises many types for one thing: a file that is not what it claims to be
        if not is_image_2d(Path(path)):
            problem = f"this is no 2D image ({', '.join(SUFFIXES)})"
            raise DataError(path, problem, "", _VOLUME) from error
        raise DataError(path, "the image cannot be read", _first_line(error), _COPY_AGAIN) from error
    return replace(_decoded(path, image, depth, loss), orientation=orientation, lossy=lossy)


def _decoded(path: str | Path, image: Any, depth: int, loss: str) -> Image2D:
    """Return what Pillow read as an array; of grey, `depth` are the bits of a value in the file."""
    if "transparency" in image.info and image.mode in ("P", "L", "RGB", "1"):
        _drop_alpha(path, image.convert("RGBA"))  # refuses it if any pixel has the transparent color
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa"):
        image, loss = _drop_alpha(path, image), "its alpha channel, which is opaque everywhere"
    if image.mode == "P":
        colors = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
        palette = np.vstack([colors, np.zeros((256 - len(colors), 3), np.uint8)])
        return Image2D(np.asarray(image), 255, palette, loss)
    values = np.asarray(image)
    if image.mode in ("1", "L"):
        white = 1 if image.mode == "1" else 2**depth - 1
        # Pillow scales grey of 1, 2 and 4 bits to 0-255; the values in the file are wanted.
        return Image2D(values.astype(np.uint8) // (255 // white if image.mode == "L" else 1), white, loss=loss)
    if image.mode == "RGB":
        return Image2D(values, 255, loss=loss)
    if image.mode.startswith("I;16"):
        return Image2D(values.astype(np.uint16), 65535)
    if image.mode in ("I", "F") and np.isfinite(values).all():
        return Image2D(values, None)
    raise DataError(path, "the image is neither grey, RGB nor a palette", f"mode {image.mode}", "Convert it to PNG.")


def read_size(path: str | Path) -> tuple[int, int]:
    """Return rows and columns of an image, from its header alone.

    Raises:
        DataError: it is missing or no image.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            # Pillow turns a TIFF when it opens it, and decodes all of a PNG to look for EXIF data.
            stored = image.format != "TIFF" and (image.format != "PNG" or _png_has_exif(Path(path)))
            sideways = stored and image.getexif().get(_ORIENTATION, 1) >= _SIDEWAYS
            return (image.width, image.height) if sideways else (image.height, image.width)
    except Exception as error:
        raise DataError(path, "the image cannot be read", _first_line(error), _COPY_AGAIN) from error


def intensities(
    image: Image2D, channels: int = 1, limits: tuple[float, float] | None = None
) -> npt.NDArray[np.float32]:
    """Return an image as a network takes it: `(channels, rows, columns)`, from 0 (black) to 1 (white).

    Up to 8 bits, white is white. With more bits `limits` become 0 and 1; without limits, the image's own.

    Args:
        image: see `read_image_2d`.
        channels: 1 (colors become grey, ITU-R BT.601) or 3 (grey is repeated).
        limits: the lowest and the highest value of the scan.

    Raises:
        DataError: another number of channels.

    Example:
        >>> intensities(Image2D(np.array([[0, 51]], dtype=np.uint8), 255))[0].tolist()
        [[0.0, 0.20000000298023224]]
    """
    if channels not in (1, 3):
        raise DataError("channels", "a 2D image has 1 channel or 3", f"got {channels}")
    values = image.palette[image.values] if image.palette is not None else image.values
    if values.ndim == 3 and channels == 1:
        values = (values.astype(np.int64) @ _GREY_WEIGHTS + 32768) >> 16
    if image.deep:
        low, high = limits or image.limits
        scaled = np.clip((values.astype(np.float64) - low) / (high - low if high > low else 1.0), 0, 1)
    else:
        scaled = values / float(image.white or 1)
    scaled = scaled.astype(np.float32)
    return np.ascontiguousarray(np.moveaxis(scaled, -1, 0) if scaled.ndim == 3 else np.stack([scaled] * channels))


def on_screen(image: Image2D) -> npt.NDArray[np.uint8]:
    """Return an image as a screen shows it, `(rows, columns, 3)`; with more than 8 bits its central 99 % of values."""
    values = image.palette[image.values] if image.palette is not None else image.values.astype(np.float64)
    low, high = np.percentile(values, [0.5, 99.5]) if image.deep else (0.0, float(image.white or 255))
    if image.deep or image.white != 255:
        values = np.clip((values - low) * (255 / max(high - low, 1e-9)), 0, 255)
    rgb = values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)
    return np.ascontiguousarray(rgb.round().astype(np.uint8))


def write_image_2d(
    path: str | Path, values: npt.NDArray[Any], colors: Sequence[Sequence[int]] | None = None, comment: str = ""
) -> Path:
    """Write an array as a PNG that looks the same on the screen, complete or not at all.

    Args:
        path: the file.
        values: `(rows, columns)` of uint8 or uint16, or `(rows, columns, 3)` of uint8.
        colors: for class indices (uint8): the color of each; the file keeps the indices, a viewer shows the colors.
        comment: text that is stored in the file, see `read_comment`.

    Raises:
        DataError: an array of another kind.
        OutputError: the file cannot be written.
    """
    from PIL import Image, PngImagePlugin

    grey = values.ndim == 2 and values.dtype in (np.uint8, np.uint16)
    if not (grey or (values.ndim == 3 and values.shape[2] == 3 and values.dtype == np.uint8)):
        problem = "an image needs rows and columns of grey (uint8, uint16) or RGB (uint8)"
        raise DataError(path, problem, f"got {values.dtype} {values.shape}")
    image = Image.fromarray(np.ascontiguousarray(values))
    if colors is not None:
        if values.ndim != 2 or values.dtype != np.uint8:
            raise DataError(path, "only class indices (uint8) can have colors", f"got {values.dtype} {values.shape}")
        image.putpalette([int(value) for color in colors for value in color])
    text = PngImagePlugin.PngInfo()
    if comment:
        text.add_text(_COMMENT, comment)
    with atomic_path(path) as partial:
        image.save(partial, format="PNG", pnginfo=text)
    return Path(path)


def read_comment(path: str | Path) -> str:
    """Return the comment that `write_image_2d` stored in the file; empty if there is none.

    Raises:
        DataError: it is missing or no image.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return str(image.info.get(_COMMENT, ""))
    except Exception as error:
        raise DataError(path, "the image cannot be read", _first_line(error), _COPY_AGAIN) from error


def slice_neighbors(slices: Mapping[str, SliceInfo], context: int) -> dict[str, tuple[str, ...]]:
    """Return for each slice those around it in its scan, `2 * context + 1` ids, lowest number first.

    A step is the smallest difference between two numbers of the scan. If there is no slice one step further
    (the end of the scan, or a gap), the last one before is repeated. A slice without a number has only itself.

    Example:
        >>> scan = {name: SliceInfo("p", number) for name, number in (("a", 1), ("b", 2), ("d", 4))}
        >>> slice_neighbors(scan, 1)
        {'a': ('a', 'a', 'b'), 'b': ('a', 'b', 'b'), 'd': ('d', 'd', 'd')}
    """
    scans: dict[str, dict[int, str]] = {}
    for id, info in slices.items():
        if info.scan and info.number is not None:
            scans.setdefault(info.scan, {})[info.number] = id
    steps = {scan: _smallest_step(sorted(ids)) for scan, ids in scans.items()}
    neighbors = {}
    for id, info in slices.items():
        if not info.scan or info.number is None:
            neighbors[id] = (id,) * (2 * context + 1)
            continue
        ids, step = scans[info.scan], steps[info.scan]
        before = _walk(ids, id, info.number, -step, context)
        after = _walk(ids, id, info.number, step, context)
        neighbors[id] = (*reversed(before), id, *after)
    return neighbors


def _walk(ids: Mapping[int, str], start: str, number: int, step: int, count: int) -> list[str]:
    """Return the next slices in one direction; from a gap on, the last one before it is repeated."""
    chain = [start]
    for offset in range(1, count + 1):
        following = ids.get(number + offset * step)
        if following is None:
            break
        chain.append(following)
    return chain[1:] + [chain[-1]] * (count + 1 - len(chain))


def _smallest_step(numbers: list[int]) -> int:
    return min((after - before for before, after in itertools.pairwise(numbers)), default=1)


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(path, "the image cannot be read", error.strerror or str(error)) from error
    if not content:
        raise DataError(path, "the file is empty", "", _COPY_AGAIN)
    if content.startswith(_LFS):
        raise DataError(path, "this is a Git LFS pointer, not the image itself", "", "Fetch the file: git lfs pull")
    return content


def _check_png(path: str | Path, content: bytes) -> tuple[int, str]:
    """Verify the checksum of every chunk; return bits per value, and what Pillow does not read.

    Pillow's own `verify` accepts a file that ends before its IEND chunk.
    """
    position, depth, loss = len(_PNG), 8, ""
    while position + 12 <= len(content):
        (length,) = struct.unpack(">I", content[position : position + 4])
        kind, body = content[position + 4 : position + 8], memoryview(content)[position + 8 : position + 8 + length]
        end = position + 12 + length
        if end > len(content):
            break
        if zlib.crc32(body, zlib.crc32(kind)) != struct.unpack(">I", content[end - 4 : end])[0]:
            raise DataError(path, f"the checksum of the {kind.decode('latin-1')} chunk is wrong", "", _COPY_AGAIN)
        if kind == b"IHDR" and length == 13:
            depth, color = body[8], body[9]
            loss = "the lower 8 of its 16 bits per color" if depth == 16 and color in (2, 4, 6) else ""
        if kind == b"IEND":
            return min(depth, 8), loss
        position = end
    raise DataError(path, "the PNG file ends before its IEND chunk", f"{len(content):,} bytes", _COPY_AGAIN)


def _png_has_exif(path: Path) -> bool:
    """Return whether a PNG has EXIF data, from the headers of its chunks."""
    with path.open("rb") as file:
        file.seek(len(_PNG))
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            start = file.read(min(length, 16)) if kind in (b"tEXt", b"zTXt", b"iTXt") else b""
            if kind == b"eXIf" or start == b"Raw profile type":
                return True
            file.seek(length + 4 - len(start), 1)
    return False


def _drop_alpha(path: str | Path, image: Any) -> Any:
    """Return the image without its alpha channel, which must be opaque everywhere."""
    alpha = np.asarray(image.getchannel("A"))
    if alpha.min() < 255:
        count = int((alpha < 255).sum())
        problem = f"{count} of its pixels are transparent"
        fix = "Save it without its alpha channel, as grey or RGB."
        raise DataError(path, problem, f"{len(image.getbands())} channels", fix)
    return image.convert("L" if image.mode in ("LA", "La") else "RGB")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
