import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from medseg.data import SlicePhantomSpec, discover, open_dataset, training_items, write_slice_phantom
from medseg.errors import ConfigError, DataError
from medseg.image_io_2d import write_image_2d
from medseg.transforms import LoadSlice2Dd, MultiHotd


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def runs(text, shape):
    flat = np.zeros(shape[0] * shape[1], bool)
    numbers = [int(one) for one in text.split()]
    for start, length in zip(numbers[::2], numbers[1::2], strict=True):
        for at in range(start - 1, start - 1 + length):
            flat[at] = True
    return flat.reshape(shape)


def independent(root, layout, structures):
    """By id the image and the masks of a phantom, read with PIL and numpy alone."""
    if layout == "kaggle":
        images = {}
        for path in root.rglob("slice_*.png"):
            images[f"{path.parent.parent.name}_slice_{path.name.split('_')[1]}"] = path
    else:
        images = {path.stem: path for path in root.rglob("images/*.png")}
    table = {}
    if layout == "kaggle":
        with (root / "train.csv").open() as file:
            table = {(row["id"], row["class"]): row["segmentation"] for row in csv.DictReader(file)}
    found = {}
    for id, path in images.items():
        image = pixels(path)
        if layout == "kaggle":
            masks = [runs(table[id, name], image.shape) for name in structures]
        elif layout == "classes":
            masks = [pixels(root / "masks" / name / f"{id}.png") == 255 for name in structures]
        else:
            mask = pixels(path.parent.parent / "masks" / path.name)
            said = json.loads((root / "classes.json").read_text())
            codes = [np.array(said[name]) if mask.ndim == 3 else list(said).index(name) for name in structures]
            masks = [(mask == code).all(-1) if mask.ndim == 3 else mask == code for code in codes]
        found[id] = (image, np.stack(masks))
    return found


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("layout", ["split", "folder", "classes", "kaggle"])
def test_every_layout_gives_what_pil_and_numpy_give(tmp_path, layout, bits):
    spec = SlicePhantomSpec(layout=layout, bits=bits, train=1, val=1, slices=4, size=(20, 28))
    root = write_slice_phantom(tmp_path / "set", spec)
    labels = discover(root).choose()
    expected = independent(root, layout, labels.structures)
    opened = open_dataset(root, labels, tmp_path / "cache", overlaps="keep", slices=True)
    load, spread = LoadSlice2Dd(["image", "label"]), MultiHotd("label", len(labels) - 1)
    seen = 0
    for side in ("train", "val"):
        for item in opened.items(side, labels):
            image, masks = expected[item["case"]]
            scan = [other for id, (other, _) in expected.items() if id.startswith(item["scan"])]
            low, high = (min(map(np.min, scan)), max(map(np.max, scan))) if bits == 16 else (0, 255)
            loaded = spread(load(item))
            assert loaded["image"].shape == (3, 20, 28)
            assert loaded["image"].dtype == torch.float32
            grey = (image - float(low)) / (float(high) - float(low))
            assert np.allclose(loaded["image"].numpy(), grey, atol=1e-6)
            assert np.array_equal(loaded["label"].numpy(), masks)
            seen += 1
    assert seen == 8
    painted = open_dataset(root, labels, tmp_path / "cache", slices=True)
    order = labels.overlap_priority()
    for item in training_items(painted, labels):
        label = load(item)["label"]
        want = np.zeros((20, 28), int)
        for name in order:
            want[expected[item["case"]][1][labels.index(name) - 1]] = labels.index(name)
        assert label.dtype == torch.uint8
        assert np.array_equal(label.numpy()[0], want)


def test_the_real_slices_load_as_pil_reads_them(tmp_path, real):
    root = real / "png_slices"
    labels = discover(root).choose()
    opened = open_dataset(root, labels, tmp_path / "cache", slices=True)
    colours = np.array([[0, 0, 0], [0, 255, 255], [255, 255, 0], [255, 0, 255]])
    assert labels.structures == ("pancreas", "kidney", "liver")
    load = LoadSlice2Dd(["image", "label"], channels=1)
    for item in opened.items("val")[::6]:
        loaded = load(item)
        assert np.allclose(loaded["image"].numpy()[0], pixels(item["image"]) / 255, atol=1e-6)
        mask = pixels(item["image"].replace("images", "masks"))
        assert np.array_equal(colours[loaded["label"].numpy()[0]], mask)


def test_an_asymmetric_picture_stays_as_it_is_on_the_screen_and_comes_back(tmp_path):
    picture = np.zeros((5, 9), np.uint8)
    picture[0, 8], picture[4, 0] = 200, 90  # upper right, lower left
    Image.fromarray(picture).save(tmp_path / "a.png")
    loaded = LoadSlice2Dd("image", channels=1)({"image": str(tmp_path / "a.png"), "spacing": [2.0, 3.0]})["image"]
    assert loaded.shape == (1, 5, 9)
    assert loaded[0, 0, 8] == pytest.approx(200 / 255)
    assert torch.equal(torch.diag(loaded.affine), torch.tensor([2.0, 3.0, 1.0, 1.0], dtype=torch.float64))
    assert loaded.meta["filename_or_obj"].endswith("a.png")
    write_image_2d(tmp_path / "b.png", (loaded[0].numpy() * 255).round().astype(np.uint8))
    with Image.open(tmp_path / "b.png") as image:
        assert (image.size, image.getpixel((8, 0)), image.getpixel((0, 4))) == ((9, 5), 200, 90)


def test_neighbours_are_channels_lowest_first_and_repeated_at_the_ends(tmp_path):
    spec = SlicePhantomSpec(layout="kaggle", bits=16, train=1, val=1, slices=3, size=(16, 18))
    root = write_slice_phantom(tmp_path / "set", spec)
    labels = discover(root).choose()
    items = training_items(open_dataset(root, labels, tmp_path / "cache", slices=True), labels, context=1)
    alone = [LoadSlice2Dd("image", channels=1)(item)["image"] for item in items]
    stacked = [LoadSlice2Dd("image", context=1)(item)["image"] for item in items]
    for at, around in enumerate(([0, 0, 1], [0, 1, 2], [1, 2, 2])):
        assert torch.equal(stacked[at], torch.cat([alone[one] for one in around]))
    assert [item["slice"] for item in items] == [1, 2, 3]
    bare = {"image": items[1]["image"]}
    own = LoadSlice2Dd("image", channels=1)(bare)["image"]
    assert torch.equal(LoadSlice2Dd("image", context=2)(bare)["image"], own.repeat(5, 1, 1))
    with pytest.raises(ConfigError, match="its item must name 5 slices [(]got 3[)]"):
        LoadSlice2Dd("image", context=2)(items[0])


def test_what_is_left_of_an_item_can_be_batched(tmp_path):
    root = write_slice_phantom(tmp_path / "set", SlicePhantomSpec(train=1, val=1, slices=2, size=(16, 18)))
    labels = discover(root).choose()
    items = training_items(open_dataset(root, labels, tmp_path / "cache", slices=True), labels)
    load = LoadSlice2Dd(["image", "label"])
    batch = torch.utils.data.default_collate([{k: v for k, v in load(i).items() if k != "label"} for i in items])
    assert sorted(batch) == ["annotated", "case", "image", "patient", "scan", "slice"]


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="channels must be 1 or 3"):
        LoadSlice2Dd("image", channels=4)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    Image.new("L", (5, 4)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"a\.png: a label must have one channel [(]got colors[)]"):
        LoadSlice2Dd("label")({"label": tmp_path / "a.png"})
    names = [str(tmp_path / name) for name in ("a.png", "a.png", "b.png")]
    with pytest.raises(DataError, match=r"b\.png: it must have the size of its neighbor .*a\.png"):
        LoadSlice2Dd("image", context=1)({"image": names[0], "neighbors": names})
