import gzip
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from medseg.errors import DataError
from medseg.image_io_2d import (
    SliceInfo,
    intensities,
    read_comment,
    read_image_2d,
    read_size,
    slice_neighbors,
    write_image_2d,
)

CORNER = np.zeros((3, 5), np.uint8)  # higher than wide it is not, and no corner is like another
CORNER[0, 0], CORNER[0, 4], CORNER[2, 0] = 255, 100, 40


def test_rows_come_first_and_writing_is_the_inverse_of_reading(tmp_path):
    Image.fromarray(CORNER).save(tmp_path / "a.png")
    read = read_image_2d(tmp_path / "a.png")
    assert read.values.shape == (3, 5) == read_size(tmp_path / "a.png")
    assert read.values[0, 4] == 100
    assert read.values[2, 0] == 40
    write_image_2d(tmp_path / "b.png", read.values)
    with Image.open(tmp_path / "a.png") as before, Image.open(tmp_path / "b.png") as after:
        assert [after.getpixel((x, y)) for x in range(5) for y in range(3)] == [
            before.getpixel((x, y)) for x in range(5) for y in range(3)
        ]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_indices_with_colors_keep_their_indices(tmp_path, dtype):
    label = np.array([[0, 1, 2], [2, 1, 0]], dtype=dtype)
    if dtype is np.uint16:
        with pytest.raises(DataError, match="class indices"):
            write_image_2d(tmp_path / "a.png", label, [(0, 0, 0)])
        return
    write_image_2d(tmp_path / "a.png", label, [(0, 0, 0), (255, 0, 0), (0, 9, 0)])
    with Image.open(tmp_path / "a.png") as image:
        assert np.array_equal(np.asarray(image), label)
        assert image.convert("RGB").getpixel((2, 0)) == (0, 9, 0)


def test_every_kind_of_image_becomes_0_to_1(tmp_path):
    rng = np.random.default_rng(0)
    grey, color = rng.integers(0, 256, (4, 6), np.uint8), rng.integers(0, 256, (4, 6, 3), np.uint8)
    deep = rng.integers(0, 3000, (4, 6)).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "l.png")
    Image.fromarray(color).save(tmp_path / "rgb.png")
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(color).quantize(8).save(tmp_path / "p.png")
    Image.fromarray(grey > 99).save(tmp_path / "one.png")
    as_rgb = {name: np.asarray(Image.open(tmp_path / name).convert("RGB")) for name in ("l.png", "rgb.png", "p.png")}
    for name, expected in as_rgb.items():
        result = intensities(read_image_2d(tmp_path / name), 3)
        assert result.dtype == np.float32
        assert np.allclose(result, np.moveaxis(expected, -1, 0) / 255, atol=1e-6)
    as_grey = np.asarray(Image.fromarray(color).convert("L")) / 255
    assert np.allclose(intensities(read_image_2d(tmp_path / "rgb.png"))[0], as_grey, atol=1e-6)
    assert np.array_equal(intensities(read_image_2d(tmp_path / "one.png"))[0], grey > 99)
    separate = intensities(read_image_2d(tmp_path / "deep.png"), 1)[0]
    assert np.allclose(separate, (deep - float(deep.min())) / (deep.max() - float(deep.min())), atol=1e-6)
    scan = intensities(read_image_2d(tmp_path / "deep.png"), 1, (100, 2000))[0]
    assert np.allclose(scan, np.clip((deep - 100.0) / 1900, 0, 1), atol=1e-6)
    with pytest.raises(DataError, match="1 channel or 3"):
        intensities(read_image_2d(tmp_path / "l.png"), 2)


def _chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_values_of_two_bits_are_not_scaled(tmp_path):
    rows = bytes([0, 0b00011011]) + bytes([0, 0b11100100])
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 2, 2, 0, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + head + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(content)
    assert read_image_2d(tmp_path / "a.png").values.tolist() == [[0, 1, 2, 3], [3, 2, 1, 0]]


def test_opaque_alpha_is_dropped_and_transparent_alpha_refused(tmp_path):
    color = np.full((3, 4, 4), 255, np.uint8)
    color[1, 2] = (9, 8, 7, 255)
    Image.fromarray(color, "RGBA").save(tmp_path / "a.png")
    read = read_image_2d(tmp_path / "a.png")
    assert read.values[1, 2].tolist() == [9, 8, 7]
    assert "alpha" in read.loss
    color[0, 0, 3] = 3
    Image.fromarray(color, "RGBA").save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: 1 of its pixels are transparent [(]4 channels"):
        read_image_2d(tmp_path / "a.png")


def test_broken_files_are_named(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 40), np.uint8)).save(tmp_path / "a.png")
    complete = (tmp_path / "a.png").read_bytes()
    flipped = bytearray(complete)
    flipped[len(complete) // 2] ^= 1
    for content, message in (
        (b"", "the file is empty"),
        (complete[:-300], "the PNG file ends before its IEND chunk"),
        (bytes(flipped), "checksum"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"no picture at all", "the image cannot be read"),
    ):
        (tmp_path / "b.png").write_bytes(content)
        with pytest.raises(DataError, match=message) as error:
            read_image_2d(tmp_path / "b.png")
        assert "b.png" in str(error.value)
    with pytest.raises(DataError, match="No such file"):
        read_image_2d(tmp_path / "c.png")
    Image.new("CMYK", (2, 2)).save(tmp_path / "c.jpg")
    with pytest.raises(DataError, match="mode CMYK"):
        read_image_2d(tmp_path / "c.jpg")


def test_neighbors_stay_in_their_scan_and_stop_at_gaps():
    def at(scan, number):
        return SliceInfo(scan, number)

    slices = {
        "a1": at("a", 10),
        "a3": at("a", 30),
        "a2": at("a", 20),
        "a6": at("a", 60),
        "b": at("b", 20),
    }
    slices["n"] = SliceInfo()
    result = slice_neighbors(slices, 2)
    assert result["a2"] == ("a1", "a1", "a2", "a3", "a3")
    assert result["a3"] == ("a1", "a2", "a3", "a3", "a3")
    assert result["a6"] == ("a6",) * 5
    assert result["b"] == ("b",) * 5
    assert result["n"] == ("n",) * 5
    assert slice_neighbors(slices, 0)["a2"] == ("a2",)


def test_an_item_says_what_loading_needs(tmp_path):
    assert SliceInfo().item([tmp_path]) == {
        "scan": "", "slice": -1, "neighbors": [str(tmp_path)],
    }  # fmt: skip
    assert SliceInfo("s", 3, limits=(1.0, 2.0)).item([])["limits"] == [1.0, 2.0]


def test_a_comment_stays_in_the_file_and_changes_no_pixel(tmp_path):
    values = np.arange(12, dtype=np.uint8).reshape(3, 4)
    plain, message = (
        write_image_2d(tmp_path / "a.png", values),
        write_image_2d(tmp_path / "b.png", values, comment="only x"),
    )
    assert (read_comment(plain), read_comment(message)) == ("", "only x")
    assert np.array_equal(read_image_2d(message).values, values)
    with Image.open(message) as image:
        assert image.text == {"Comment": "only x"}
    (tmp_path / "c.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"c\.png: the image cannot be read"):
        read_comment(tmp_path / "c.png")


TURNED = {  # EXIF: what is shown of the stored array
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: a.T[:, ::-1],
    7: lambda a: a.T[::-1, ::-1],
    8: lambda a: a.T[::-1],
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_every_format_is_turned_as_its_exif_data_say(tmp_path, suffix, orientation):
    values = np.zeros((48, 32), np.uint8)
    values[8:16, 16:32], values[32:40, :8] = 255, 128
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(values).save(path, exif=exif)
    image, expected = read_image_2d(path), TURNED[orientation](values)
    assert read_size(path) == image.values.shape == expected.shape
    assert np.abs(image.values.astype(int) - expected).max() <= 2  # JPEG
    assert image.orientation == orientation


def test_a_transparent_color_is_refused_only_if_it_is_used(tmp_path):
    for value, refused in ((3, True), (9, False)):
        image = Image.fromarray(np.array([[1, 2, 3]], np.uint8))
        image.save(tmp_path / "a.png", transparency=value)
        if refused:
            with pytest.raises(DataError, match="transparent"):
                read_image_2d(tmp_path / "a.png")
        else:
            assert read_image_2d(tmp_path / "a.png").values.tolist() == [[1, 2, 3]]


@pytest.mark.parametrize("name", ["s0001.nii.gz", "s0001.nrrd", "s0001.dcm", "notes.txt", "slice"])
def test_a_volume_in_place_of_an_image_is_one_sentence(tmp_path, name):
    """As MONAI Label sends it to a bundle of 2D images."""
    (tmp_path / name).write_bytes(gzip.compress(bytes(400)))
    with pytest.raises(DataError, match=r"this is no 2D image \(\.png, .*takes volumes through `medseg predict` alone"):
        read_image_2d(tmp_path / name)
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="the image cannot be read"):
        read_image_2d(tmp_path / "a.png")
