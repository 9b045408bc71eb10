"""Against torch's own interpolation, and there and back again through the inferer."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from medseg.errors import ConfigError, DataError
from medseg.inference import StreamingInferer
from medseg.transforms import LoadSlice2Dd, ResizeKeepAspectd
from medseg.transforms.resample import fitted


def random(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("plane", "size", "inner"),
    [
        ((20, 30), (40, 40), (27, 40)),
        ((30, 20), (40, 40), (40, 27)),
        ((20, 30), (21, 70), (21, 32)),
        ((16, 16), (16, 20), (16, 16)),
    ],
)
def test_a_picture_is_scaled_alike_in_both_axes_and_lies_in_the_middle(plane, size, inner):
    assert fitted(plane, size) == inner
    image, label = random(2, *plane), random(1, *plane).mul(5).to(torch.uint8)
    item = ResizeKeepAspectd(["image", "label"], size)({"image": image, "label": label, "case": "a"})
    top, left = ((all_of - part) // 2 for all_of, part in zip(size, inner, strict=True))
    for key, source, mode in (("image", image, "bilinear"), ("label", label.float(), "nearest-exact")):
        wanted = torch.zeros(len(source), *size)
        scaled = interpolate(source[None], size=inner, mode=mode)[0]
        wanted[:, top : top + inner[0], left : left + inner[1]] = scaled
        assert torch.allclose(item[key].as_tensor().float(), wanted, atol=1e-5), key
    assert (item["label"].dtype, item["case"]) == (torch.uint8, "a")


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_labels_of_any_type_stay_of_it(dtype):
    label = random(1, 12, 15).mul(120).to(dtype)
    found = ResizeKeepAspectd("label", (20, 30))({"label": label})["label"]
    wanted = interpolate(label[None].double(), size=(20, 25), mode="nearest-exact")[0]
    assert found.dtype == dtype
    assert torch.equal(found.as_tensor()[..., 2:27].double(), wanted)


def test_what_gets_smaller_is_smoothed_first_and_labels_are_not():
    board = (torch.arange(60)[:, None] + torch.arange(60)) % 2
    item = ResizeKeepAspectd(["image", "label"], (20, 20))({"image": board[None].float(), "label": 3 * board[None]})
    plain = interpolate(board[None, None].float(), size=(20, 20), mode="bilinear")
    assert plain.std() > 0.4  # every third field, black or white as it comes
    inner = item["image"][:, 2:-2, 2:-2]
    assert inner.std() < 0.1
    assert float(inner.mean()) == pytest.approx(0.5, abs=0.01)
    assert set(item["label"].unique().tolist()) == {0, 3}


@pytest.mark.parametrize("plane", [(18, 25), (50, 70)])
def test_a_volume_is_as_its_slices_are(plane):
    volume, size = random(1, *plane, 3, seed=1), (32, 40)
    fit = ResizeKeepAspectd(["image", "label"], size)
    whole = fit({"image": volume, "label": (volume * 4).to(torch.uint8)})
    assert whole["image"].shape == (1, *size, 3)
    for k in range(3):
        slice_ = volume[..., k]
        one = fit({"image": slice_, "label": (slice_ * 4).to(torch.uint8)})
        assert torch.allclose(whole["image"][..., k].as_tensor(), one["image"].as_tensor(), atol=1e-5)
        assert torch.equal(whole["label"][..., k].as_tensor(), one["label"].as_tensor())


class Bright(torch.nn.Module):
    """Class 1 where the picture is brighter than the middle."""

    def forward(self, image):
        return torch.cat([0.5 - image, image - 0.5], dim=1)


def there_and_back(tmp_path, picture, size):
    path = tmp_path / "mark.png"
    Image.fromarray(picture).save(path)
    item = LoadSlice2Dd("image", channels=1)({"image": str(path), "spacing": [0.8, 1.3]})
    item = ResizeKeepAspectd("image", size)(item)
    assert item["image"].shape == (1, *size)
    found = StreamingInferer(size, output_grid="source")(item["image"][None], Bright())
    assert found.shape == (1, 1, *picture.shape)
    return np.asarray(found)[0, 0]


@pytest.mark.parametrize("size", [(50, 70), (64, 96), (96, 96), (130, 71)])
@pytest.mark.parametrize("shape", [(50, 70), (41, 33)])
def test_a_mark_comes_back_to_its_own_pixels(tmp_path, shape, size):
    assert fitted(shape, size) >= shape
    picture = np.zeros(shape, np.uint8)
    picture[3:11, 19:24], picture[30:32, 1:3], picture[-2:, -4:] = 255, 255, 255  # off the middle, on the border
    assert np.array_equal(there_and_back(tmp_path, picture, size), picture > 0)


def test_a_mark_in_a_smaller_picture_comes_back_to_its_place(tmp_path):
    picture = np.zeros((100, 140), np.uint8)
    picture[10:34, 90:130] = 255
    found = there_and_back(tmp_path, picture, (48, 48))
    marked = np.argwhere(found)
    assert np.abs(marked.mean(axis=0) - np.argwhere(picture).mean(axis=0)).max() < 0.5
    assert np.abs(marked.min(axis=0) - [10, 90]).max() <= 2
    assert np.abs(marked.max(axis=0) - [33, 129]).max() <= 2


def test_what_cannot_be_is_refused():
    for size in ((8,), (8, 8, 8), (0, 8), 8, (8.5, 8)):
        with pytest.raises(ConfigError, match="ResizeKeepAspectd, size: it must be two whole numbers above 0"):
            ResizeKeepAspectd("image", size)
    for shape in ((8, 8), (1, 8, 8, 8, 8)):
        with pytest.raises(DataError, match=r"takes images \(C, rows, columns\) or volumes"):
            ResizeKeepAspectd("image", (8, 8))({"image": torch.zeros(shape)})
