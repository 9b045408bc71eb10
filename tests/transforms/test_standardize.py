import pytest
import torch

from medseg.errors import ConfigError, DataError
from medseg.transforms import Standardize, Standardized

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def random(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def by_hand(image):
    """Pixel by pixel, channel by channel: what torchvision's Normalize is defined as."""
    return torch.stack([(image[c] - MEAN[c]) / STD[c] for c in range(3)])


def test_an_image_is_standardized_channel_by_channel():
    image = random(3, 4, 5)
    before = image.clone()
    found = Standardize(MEAN, STD)(image)
    assert torch.allclose(found, by_hand(image), atol=1e-6)
    assert torch.equal(image, before)
    volume = random(3, 4, 5, 2)
    assert torch.allclose(Standardize(MEAN, STD)(volume)[..., 1], by_hand(volume[..., 1]), atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_batch_is_what_its_images_are_and_grey_becomes_three(channels):
    images, standardize = random(2, channels, 4, 5), Standardize(MEAN, STD)
    found = standardize.batch(images)
    assert found.shape == (2, 3, 4, 5)
    for image, one in zip(images, found, strict=True):
        assert torch.allclose(one, by_hand(image.expand(3, 4, 5)), atol=1e-6)
        assert torch.equal(one, standardize(image))


def test_a_batch_of_three_grey_images_is_no_image_of_three_channels():
    images = random(3, 1, 4, 5)
    found = Standardize(MEAN, STD).batch(images)
    assert torch.allclose(found[2], by_hand(images[2].expand(3, 4, 5)), atol=1e-6)


def test_one_mean_is_for_all_channels():
    images = random(2, 5, 4, 4)
    assert torch.allclose(Standardize([0.449], [0.226]).batch(images), (images - 0.449) / 0.226, atol=1e-6)


def test_items_come_out_as_float32_and_the_rest_stays():
    item = Standardized("image", [0.5], [0.25])({"image": torch.ones(1, 2, 2, dtype=torch.uint8), "case": "a"})
    assert item["image"].dtype == torch.float32
    assert item["image"].unique().tolist() == [2.0]
    assert item["case"] == "a"


@pytest.mark.parametrize(("mean", "std"), [([], []), ([0.5], [0.5, 0.5]), ([0.5], [0.0]), ([0.5, 0.5], [1.0, -1.0])])
def test_means_without_a_deviation_are_refused(mean, std):
    with pytest.raises(ConfigError, match="Standardize: it needs a mean and a standard deviation above 0"):
        Standardize(mean, std)


def test_other_channels_are_refused():
    with pytest.raises(DataError, match=r"it must have 1 channel or 3, .*got 2"):
        Standardize(MEAN, STD)(torch.zeros(2, 4, 4))
