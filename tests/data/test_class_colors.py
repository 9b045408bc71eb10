import io
import json

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from medseg.data.class_colors import decode_binary, decode_mask, infer_class_colors, read_class_colors
from medseg.errors import LabelError
from medseg.image_io_2d import ClassColors, Image2D, read_image_2d

COLORS = ClassColors(("background", "liver", "kidney"), ((0, 0, 0), (255, 0, 255), (255, 255, 0)), True)
PLAIN = ClassColors(("background", "liver", "kidney"), ((0,), (1,), (2,)))
LABEL = np.array([[0, 1, 2, 2], [0, 0, 1, 1]], np.uint8).repeat(3, 0).repeat(3, 1)


def colored():
    return np.array(COLORS.codes, np.uint8)[LABEL]


def test_indices_colors_and_palettes_decode_alike(tmp_path):
    Image.fromarray(LABEL).save(tmp_path / "index.png")
    Image.fromarray(colored()).save(tmp_path / "rgb.png")
    image = Image.fromarray(LABEL[::-1])
    image.putpalette([0, 0, 0, 255, 255, 0, 255, 0, 255])  # colors against the order of the classes
    image.save(tmp_path / "palette.png")
    assert np.array_equal(decode_mask(read_image_2d(tmp_path / "index.png"), PLAIN).label, LABEL)
    assert np.array_equal(decode_mask(read_image_2d(tmp_path / "index.png"), COLORS).label, LABEL)
    assert np.array_equal(decode_mask(read_image_2d(tmp_path / "rgb.png"), COLORS).label, LABEL)
    assert np.array_equal(decode_mask(read_image_2d(tmp_path / "palette.png"), PLAIN).label, LABEL[::-1])
    by_color = decode_mask(read_image_2d(tmp_path / "palette.png"), COLORS).label
    assert np.array_equal(by_color, np.array([0, 2, 1])[LABEL[::-1]])


def test_smoothed_pixels_go_to_the_class_of_the_nearest_pure_one_and_are_counted():
    rgb = colored()
    rgb[1, 3], rgb[4, 4] = (250, 1, 250), (200, 190, 10)  # the second is nearest to yellow, and all around is black
    result = decode_mask(Image2D(rgb, 255), COLORS)
    assert np.array_equal(result.label, LABEL)
    assert result.smoothed == {"background": 1, "liver": 1}


# As UW-Madison's: halfway from yellow to black is nearest to the green of a third class. VOC's colors are halves.
UW = ClassColors(
    ("background", "large_bowel", "small_bowel", "stomach"), ((0, 0, 0), (255, 255, 0), (0, 128, 0), (255, 0, 0)), True
)
VOC = ClassColors(("background", "a", "b", "c"), ((0, 0, 0), (128, 0, 0), (64, 0, 0), (0, 128, 0)), True)
FILTERS = [Image.Resampling[name] for name in ("BOX", "BILINEAR", "HAMMING", "BICUBIC", "LANCZOS")]


def shapes(size=(96, 120)):
    """Rings and disks of three classes, some of which touch."""
    i, j = np.indices(size)
    label = np.zeros(size, np.uint8)
    label[np.hypot(i - 40, j - 40) < 30] = 1
    label[np.hypot(i - 40, j - 40) < 17] = 0
    label[np.hypot(i - 45, j - 84) < 16] = 3
    label[np.hypot(i - 70, j - 66) < 15] = 2
    return label


@pytest.mark.parametrize("colors", [UW, VOC], ids=["uw", "voc"])
@pytest.mark.parametrize("size", [(67, 84), (150, 191), (288, 360)])
@pytest.mark.parametrize("method", FILTERS, ids=lambda method: method.name)
def test_each_edge_pixel_of_a_smoothed_mask_has_the_class_of_the_nearest_pure_pixel(method, size, colors):
    picture = Image.fromarray(np.array(colors.codes, np.uint8)[shapes()]).resize(size[::-1], method)
    pixels = np.asarray(picture)
    result = decode_mask(Image2D(pixels, 255), colors)
    pure = (pixels[..., None, :] == np.array(colors.codes)).all(-1)
    if colors is VOC:  # its thin lines are halves of a, not b
        core = ndimage.binary_opening(pure[..., 2], np.ones((2, 2)))
        pure[..., 2] = core
    distances = np.stack([ndimage.distance_transform_edt(~pure[..., index]) for index in range(4)], -1)
    edge = ~pure.any(-1)
    ours = np.take_along_axis(distances, result.label[..., None].astype(np.int64), -1)[..., 0]
    others = np.abs(ours - distances.min(-1))[edge] > 1e-9
    truth = np.asarray(Image.fromarray(shapes()).resize(size[::-1], Image.Resampling.NEAREST))
    if method in (Image.Resampling.BOX, Image.Resampling.BILINEAR):
        assert not others.any()
    else:  # these swing beyond an edge: an area of (0, 131, 0) is as sure as one of (0, 128, 0)
        assert others.mean() < 0.2
        assert (result.label != truth).sum() <= (distances.argmin(-1) != truth).sum()
    assert sum(result.smoothed.values()) == edge.sum()
    for index in range(4):
        both = ((result.label == index) & (truth == index)).sum()
        assert 2 * both >= 0.96 * ((result.label == index).sum() + (truth == index).sum())


def test_a_rim_is_never_a_class_that_touches_nothing():
    label = shapes()
    label[label == 2] = 0  # no small bowel at all
    picture = Image.fromarray(np.array(UW.codes, np.uint8)[label])
    pixels = np.asarray(picture.resize((240, 192), Image.Resampling.BICUBIC))
    result = decode_mask(Image2D(pixels, 255), UW)
    assert set(np.unique(result.label)) == {0, 1, 3}
    nearest = np.linalg.norm(pixels[:, :, None].astype(float) - np.array(UW.codes), axis=-1).argmin(-1)
    assert (nearest == 2).sum() > 90  # what the color alone would say


@pytest.mark.parametrize("off", [(254, 1, 0), (250, 4, 3), (243, 12, 6)])
def test_a_whole_structure_in_almost_its_color_is_that_structure(off):
    label = shapes()
    pixels = np.array(UW.codes, np.uint8)[label]
    pixels[label == 3] = off
    pixels[45, 84] = (255, 0, 0)  # one pure pixel in it changes nothing
    assert np.array_equal(decode_mask(Image2D(pixels, 255), UW).label, label)
    pixels[45, 84] = off
    assert np.array_equal(decode_mask(Image2D(pixels, 255), UW).label, label)


def test_jpeg_noise_keeps_the_structures():
    label = shapes()
    file = io.BytesIO()
    Image.fromarray(np.array(UW.codes, np.uint8)[label]).save(file, "JPEG", quality=90, subsampling=0)
    result = decode_mask(Image2D(np.asarray(Image.open(file)), 255), UW)
    assert (result.label == label).mean() > 0.98


def test_a_picture_is_no_mask():
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for pixels in (noise, np.where(np.indices((40, 40))[0][..., None] < 8, 0, noise).astype(np.uint8)):
        with pytest.raises(LabelError, match="pixels have colors that no class has"):
            decode_mask(Image2D(pixels, 255), UW)


def test_an_area_of_an_unknown_color_is_refused():
    rgb = colored()
    rgb[:3, :3] = (0, 200, 0)
    with pytest.raises(LabelError, match=r"m\.png: 9 pixels have colors that no class has \(\[0, 200, 0\] in 9"):
        decode_mask(Image2D(rgb, 255), COLORS, "m.png")


def test_values_that_no_class_has_are_refused():
    label = LABEL.copy()
    label[0, :2] = 7
    with pytest.raises(
        LabelError, match=r"2 pixels have values that no class has \(7 in 2 pixels; the classes have 0, 1, 2\)"
    ):
        decode_mask(Image2D(label, 255), PLAIN)


def test_white_is_the_only_class_and_grey_colors_are_colors():
    white = Image2D(np.array([[0, 255]], np.uint8), 255)
    assert decode_mask(white, ClassColors(("background", "polyp"), ((0,), (1,)))).label.tolist() == [[0, 1]]
    greys = ClassColors(("background", "a", "b"), ((0, 0, 0), (128, 128, 128), (255, 255, 255)), True)
    assert decode_mask(Image2D(np.array([[0, 128, 255]], np.uint8), 255), greys).label.tolist() == [[0, 1, 2]]
    with pytest.raises(LabelError, match="colors that no class has"):  # indices in a set of grey colors
        decode_mask(Image2D(np.array([[0, 1, 2]], np.uint8), 255), greys)
    assert decode_mask(Image2D(np.array([[0, 1]], np.uint8), 1), greys).label.tolist() == [[0, 2]]


def test_colors_without_names_are_refused():
    with pytest.raises(LabelError, match=r"gives values, no colors"):
        decode_mask(Image2D(colored(), 255), PLAIN)


def test_classes_json_names_colors_or_values(tmp_path):
    def written(content):
        (tmp_path / "classes.json").write_text(json.dumps(content))
        return read_class_colors(tmp_path)

    assert read_class_colors(tmp_path) is None
    result = written({"liver": [9, 0, 0], "Background": [1, 1, 1]})
    assert result == ClassColors(("background", "liver"), ((1, 1, 1), (9, 0, 0)), True)
    assert written({"polyp": 255}) == ClassColors(("background", "polyp"), ((0,), (255,)))
    for content, message in (
        ({"a": [1, 2]}, "three numbers"),
        ({"a": [1, 2, 300]}, "three numbers"),
        ({"a": [1, 2, 3], "b": 4}, "three numbers"),
        ({"a": [1, 2, 3], "b": [1, 2, 3]}, r"a and b have the same color, \[1, 2, 3\]"),
        ({"a": [0, 0, 0]}, "a and the background have the same color"),
        ([], "give each class its color"),
    ):
        with pytest.raises(LabelError, match=message):
            written(content)
    (tmp_path / "classes.json").unlink()
    (tmp_path / "label_map.json").write_text('{"0": "background", "1": "liver"}')
    assert read_class_colors(tmp_path) == ClassColors(("background", "liver"), ((0,), (1,)))


def test_masks_without_names_get_generic_names(tmp_path):
    def masks(*arrays):
        for number, array in enumerate(arrays):
            Image.fromarray(np.array([array], np.uint8)).save(tmp_path / f"{number}.png")
        return [tmp_path / f"{number}.png" for number in range(len(arrays))]

    assert infer_class_colors(masks([0, 1], [0, 3])).names == ("background", "class_1", "class_2", "class_3")
    assert infer_class_colors(masks([0, 0], [0, 255])).codes == ((0,), (255,))
    with pytest.raises(LabelError, match="class indices, or 0 and 255"):
        infer_class_colors(masks([0, 100, 255]))
    Image.fromarray(colored()).save(tmp_path / "rgb.png")
    with pytest.raises(
        LabelError, match=r"rgb\.png: the mask is colored, and no classes\.json names its colors .*\[255, 0, 255\]"
    ):
        infer_class_colors([tmp_path / "rgb.png"])


def test_masks_of_one_structure():
    def of(*values):
        return decode_binary(Image2D(np.array([values], np.uint8), 255), "m.png")

    assert of(0, 255, 255)[0].tolist() == [[False, True, True]]
    assert of(0, 1, 1)[0].tolist() == [[False, True, True]]
    assert of(255, 255, 255, 255, 200) == (pytest.approx(np.ones((1, 5), bool)), 1)
    with pytest.raises(LabelError, match=r"2 pixels are neither black nor white; .* \(2 in 1 pixel, 3 in 1\)"):
        of(0, 2, 3)


def test_a_downsampled_smooth_mask_is_read(real):
    palette = read_class_colors(real / "png_slices")
    for path in sorted((real / "png_slices" / "train" / "masks").iterdir())[:4]:
        with Image.open(path) as image:
            complete = np.asarray(image)
            small = np.asarray(image.resize((256, 256), Image.Resampling.BOX))
        result = decode_mask(Image2D(small, 255), palette, path)
        exact = decode_mask(Image2D(complete, 255), palette, path)
        assert not exact.smoothed
        assert 0 < sum(result.smoothed.values()) < 0.05 * 256 * 256
        sure = (small[..., None, :] == np.array(palette.codes)).all(-1).any(-1)
        assert np.array_equal(result.label[sure], exact.label[::2, ::2][sure])
        assert (result.label == exact.label[::2, ::2]).mean() > 0.98


def test_masks_in_jpeg_are_refused_with_the_cause(tmp_path):
    big = LABEL.repeat(3, 0).repeat(3, 1)
    for name, values in (("index", big), ("grey", big * 100), ("color", np.array(COLORS.codes, np.uint8)[big])):
        Image.fromarray(values).save(tmp_path / f"{name}.jpg", quality=60)
    cases = [
        lambda: decode_mask(read_image_2d(tmp_path / "grey.jpg"), PLAIN),
        lambda: decode_mask(read_image_2d(tmp_path / "color.jpg"), PLAIN),
        lambda: decode_binary(read_image_2d(tmp_path / "grey.jpg"), "m"),
        lambda: infer_class_colors([tmp_path / "grey.jpg"]),
    ]
    for case in cases:
        with pytest.raises(LabelError, match=r"JPEG changes the values of pixels: export the masks again as PNG\.$"):
            case()


def test_masks_that_are_all_black_are_refused(tmp_path):
    for number in range(3):
        Image.new("L", (5, 4)).save(tmp_path / f"{number}.png")
    with pytest.raises(LabelError, match="every mask is black, so there is nothing to learn"):
        infer_class_colors(sorted(tmp_path.iterdir()))


@pytest.mark.parametrize("method", FILTERS[1:], ids=lambda method: method.name)
@pytest.mark.parametrize("size", [(67, 84), (150, 191), (250, 300)])
def test_smoothed_indices_are_counted_as_rims(method, size):
    picture = Image.fromarray(shapes()).resize(size[::-1], method)
    plain = ClassColors.indexed(("background", "a", "b", "c"))
    rims = decode_mask(Image2D(np.asarray(picture), 255), plain).rims
    assert set(rims) <= {"a", "b"}
    assert rims  # the rim of c, whose index is 3, is of a and b
    sharp = Image.fromarray(shapes()).resize(size[::-1], Image.Resampling.NEAREST)
    assert not decode_mask(Image2D(np.asarray(sharp), 255), plain).rims


def test_layers_and_thin_structures_are_no_rims():
    label = np.zeros((40, 40), np.uint8)
    label[10:30, 10:30], label[12:28, 12:28] = 1, 2  # a wall of two pixels, as of a heart
    label[5, 5:35] = 3  # a vessel
    plain = ClassColors.indexed(("background", "wall", "blood", "vessel"))
    assert not decode_mask(Image2D(label, 255), plain).rims
