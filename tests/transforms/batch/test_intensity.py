"""Each function against MONAI's dictionary transform with its range closed to one value, image by image."""

import numpy as np
import pytest
import torch
from monai.transforms import (
    RandAdjustContrastd,
    RandGaussianNoise,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    RandShiftIntensityd,
    RandSimulateLowResolutiond,
)

from medseg.transforms.batch import intensity

SHAPES = [(1, 33, 20), (5, 16, 24)]


def images(shape, count=3):
    """Intensities from below 0 to above 1, unlike in each image."""
    rng = torch.Generator().manual_seed(7)
    span = torch.arange(1, count + 1).reshape(-1, 1, 1, 1)
    return torch.rand(count, *shape, generator=rng) * span - 0.3


def monai(transform, batch, **settings):
    """What MONAI makes of each image, with the settings of that image."""
    done = []
    for number, image in enumerate(batch):
        own = {key: values[number] for key, values in settings.items()}
        done.append(transform(**own)({"image": image})["image"].as_tensor())
    return torch.stack(done)


def same(one, other, atol=2e-6):
    torch.testing.assert_close(one, other, atol=atol, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_gamma(shape):
    batch, exponents = images(shape), [0.6, 1.0, 1.9]
    wanted = monai(lambda g: RandAdjustContrastd("image", prob=1.0, gamma=(g, g)), batch, g=exponents)
    same(intensity.gamma(batch, exponents), wanted)


def test_gamma_of_an_even_image_is_the_image():
    even = torch.full((2, 1, 4, 4), 0.3)
    assert torch.equal(intensity.gamma(even, [0.5, 2.0]), even)


@pytest.mark.parametrize("shape", SHAPES)
def test_scale_shift_and_contrast(shape):
    batch, values = images(shape), [-0.2, 0.0, 0.35]
    wanted = monai(lambda f: RandScaleIntensityd("image", factors=(f, f), prob=1.0), batch, f=values)
    same(intensity.scale(batch, values), wanted)
    wanted = monai(lambda f: RandShiftIntensityd("image", offsets=(f, f), prob=1.0), batch, f=values)
    same(intensity.shift(batch, values), wanted)
    wanted = monai(lambda f: RandScaleIntensityFixedMeand("image", factors=(f, f), prob=1.0), batch, f=values)
    same(intensity.contrast(batch, values), wanted)


@pytest.mark.parametrize("shape", SHAPES)
def test_smooth(shape):
    """Sigmas from one that MONAI cuts off after one pixel to one after ten, together in a batch."""
    batch, rows, columns = images(shape), [0.2, 0.8, 2.4], [1.1, 0.3, 0.75]
    wanted = monai(
        lambda i, j: RandGaussianSmoothd("image", sigma_x=(i, i), sigma_y=(j, j), prob=1.0), batch, i=rows, j=columns
    )
    same(intensity.smooth(batch, rows, columns), wanted)


@pytest.mark.parametrize("shape", SHAPES)
def test_low_resolution(shape):
    batch, zooms = images(shape), [0.26, 0.5, 1.0]
    wanted = monai(
        lambda z: RandSimulateLowResolutiond("image", prob=1.0, upsample_mode="bilinear", zoom_range=(z, z)),
        batch,
        z=zooms,
    )
    same(intensity.low_resolution(batch, zooms), wanted)


def test_a_zoom_that_leaves_nothing_leaves_one_pixel():
    assert torch.isfinite(intensity.low_resolution(images((1, 3, 3)), [0.01, 0.01, 0.01])).all()


def test_noise_is_normal_and_scaled_to_each_image():
    batch = torch.zeros(3, 2, 128, 128)
    noisy = intensity.noise(batch, [0.1, 0.0, 2.0], [1, 2, 3])
    assert not noisy[1].any()
    for number, deviation in ((0, 0.1), (2, 2.0)):
        field = noisy[number] / deviation
        assert abs(float(field.mean())) < 5 / np.sqrt(field.numel())
        assert abs(float(field.std()) - 1) < 5 / np.sqrt(2 * field.numel())
        assert abs(float((field.abs() < 1).float().mean()) - 0.6827) < 0.02


def test_noise_added_is_what_monai_adds():
    batch = images((2, 16, 16), 1)
    noisy = intensity.noise(batch, [0.3], [5])
    transform = RandGaussianNoise(prob=1.0)
    transform.randomize(batch[0])
    transform.noise = intensity.noise(torch.zeros_like(batch), [0.3], [5])[0].numpy()
    same(noisy[0], transform(batch[0], randomize=False).as_tensor())


def test_noise_depends_on_its_seed_alone():
    batch = images((1, 16, 16))
    whole = intensity.noise(batch, [0.1, 0.2, 0.3], [11, 12, 11])
    part = intensity.noise(batch[1:], [0.2, 0.3], [12, 11])
    assert torch.equal(whole[1:], part)
    field = intensity.noise(torch.zeros_like(batch), [1.0, 1.0, 1.0], [11, 12, 11])
    assert torch.equal(field[0], field[2])
    assert not torch.equal(field[0], field[1])


def test_the_chance_of_the_process_is_left_alone():
    before = torch.get_rng_state()
    intensity.noise(images((1, 8, 8)), [1.0, 1.0, 1.0], [1, 2, 3])
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "deed",
    [
        lambda x: intensity.gamma(x, [2.0] * 3),
        lambda x: intensity.contrast(x, [0.5] * 3),
        lambda x: intensity.noise(x, [0.5] * 3, [1, 2, 3]),
        lambda x: intensity.smooth(x, [1.0] * 3, [1.0] * 3),
        lambda x: intensity.low_resolution(x, [0.5] * 3),
    ],
)
def test_the_images_given_stay_as_they_are(deed):
    batch = images((2, 9, 9))
    before = batch.clone()
    done = deed(batch)
    assert torch.equal(batch, before)
    assert done.dtype == batch.dtype
    assert not torch.equal(done, before)
