import numpy as np
import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    RandShiftIntensityd,
    RandSimulateLowResolutiond,
)

from medseg import LabelMap
from medseg.errors import ConfigError, DataError, LabelError
from medseg.transforms import Standardize
from medseg.transforms.batch import AugmentBatch, Draws, RandAugmentd, augment_batch

NAN = float("nan")
BOTH = ["image", "label"]
LABELS = LabelMap(["liver", "kidney_left", "kidney_right", "rib_left_1", "rib_right_1"])
TWINS = np.array([0, 1, 3, 2, 5, 4])


def draws(count, **fields):
    return Draws(**{name: np.array(fields.get(name, [NAN] * count), dtype=float) for name in Draws._fields})


def batch(count=4, channels=1, size=(40, 36)):
    rng = torch.Generator().manual_seed(2)
    images = torch.rand(count, channels, *size, generator=rng)
    return images, torch.randint(0, 6, (count, 1, *size), generator=rng, dtype=torch.int32)


def closed(value):
    return [(value, value)]


def monai(settings):
    """MONAI's chain in the order of RandAugmentd, each with the one value it was given and left out for NaN."""
    one = {name: value for name, value in settings.items() if not np.isnan(value)}
    steps = [RandFlipd(BOTH, prob=1.0, spatial_axis=axis) for axis in (0, 1) if f"mirror_{'ij'[axis]}" in one]
    if "angle" in one:
        steps.append(
            RandAffined(
                BOTH,
                prob=1.0,
                rotate_range=closed(one["angle"]),
                translate_range=closed(one["shift_i"]) + closed(one["shift_j"]),
                scale_range=closed(one["scale_i"] - 1) + closed(one["scale_j"] - 1),
                mode=["bilinear", "nearest"],
                padding_mode="zeros",
            )
        )
    if "gamma" in one:
        steps.append(RandAdjustContrastd("image", prob=1.0, gamma=closed(one["gamma"])[0]))
    if "factor" in one:
        steps.append(RandScaleIntensityd("image", prob=1.0, factors=closed(one["factor"])[0]))
    if "offset" in one:
        steps.append(RandShiftIntensityd("image", prob=1.0, offsets=closed(one["offset"])[0]))
    if "contrast" in one:
        steps.append(RandScaleIntensityFixedMeand("image", prob=1.0, factors=closed(one["contrast"])[0]))
    if "sigma_i" in one:
        sigmas = {"sigma_x": closed(one["sigma_i"])[0], "sigma_y": closed(one["sigma_j"])[0]}
        steps.append(RandGaussianSmoothd("image", prob=1.0, **sigmas))
    if "zoom" in one:
        zoom = closed(one["zoom"])[0]
        steps.append(RandSimulateLowResolutiond("image", prob=1.0, upsample_mode="bilinear", zoom_range=zoom))
    return Compose(steps)


PROBABLE = {
    "mirror": {"prob": 0.3, "axes": [1]},
    "affine": {"prob": 0.6, "rotate_range": 0.4, "translate_range": 5, "scale_range": 0.2},
    "gamma": {"prob": 0.5, "gamma": [0.7, 1.5]},
    "scale_intensity": {"prob": 0.5, "factors": 0.2},
    "shift_intensity": {"prob": 0.5, "offsets": 0.1},
    "contrast": {"prob": 0.5, "factors": 0.25},
    "smooth": {"prob": 0.4, "sigma": [0.3, 1.2]},
    "low_resolution": {"prob": 0.4, "zoom_range": [0.5, 1.0]},
}


@pytest.mark.parametrize("channels", [1, 3])
def test_the_whole_chain_is_monais_sample_by_sample(channels):
    images, labels = batch(16, channels)
    transform = RandAugmentd(**PROBABLE).set_random_state(4)
    drawn = Draws.of(
        torch.stack([transform({"image": i, "label": t})["augment"] for i, t in zip(images, labels, strict=True)])
    )
    found, labelled = augment_batch(images, labels, drawn)
    for number in range(16):
        wanted = monai({name: values[number] for name, values in drawn._asdict().items()})(
            {"image": images[number], "label": labels[number]}
        )
        # an image of noise, changed by up to 1 from pixel to pixel, in places 1e-4 pixels off
        torch.testing.assert_close(found[number], torch.as_tensor(wanted["image"]), atol=5e-4, rtol=0)
        assert (labelled[number] != torch.as_tensor(wanted["label"])).float().mean() < 3e-3


def test_nothing_drawn_is_nothing_done():
    images, labels = batch()
    found, labelled = augment_batch(images, labels, draws(4))
    assert torch.equal(found, images)
    assert torch.equal(labelled, labels)
    found += 1
    assert not torch.equal(found, images)  # a copy, so that nothing done later reaches the loader's batch


@pytest.mark.parametrize("field", ["mirror_j", "gamma", "factor", "offset", "contrast", "sigma_i", "zoom", "std"])
def test_only_the_samples_for_which_it_was_drawn_change(field):
    images, labels = batch()
    before = images.clone(), labels.clone()
    values = {field: [NAN, 0.5, NAN, 0.7]}
    values |= {"sigma_j": values[field]} if field == "sigma_i" else {"noise_seed": [NAN, 1, NAN, 2]}
    found, labelled = augment_batch(images, labels, draws(4, **values))
    for number, changed in enumerate((False, True, False, True)):
        assert torch.equal(found[number], images[number]) != changed
        assert torch.equal(labelled[number], labels[number]) != (changed and field == "mirror_j")
    assert torch.equal(images, before[0])
    assert torch.equal(labels, before[1])


def test_a_sample_does_not_depend_on_its_batch():
    images, labels = batch(6)
    transform = RandAugmentd(**PROBABLE, noise={"prob": 0.7, "std": 0.1}).set_random_state(1)
    rows = torch.stack([transform({"image": images[0], "label": labels[0]})["augment"] for _ in range(6)])
    whole = augment_batch(images, labels, Draws.of(rows))
    order = torch.tensor([4, 1, 5])
    part = augment_batch(images[order], labels[order], Draws.of(rows[order]))
    torch.testing.assert_close(part[0], whole[0][order], atol=1e-6, rtol=0)
    assert torch.equal(part[1], whole[1][order])


def test_left_and_right_mirrored_swaps_the_pairs():
    images, labels = batch(3)
    found, labelled = augment_batch(images, labels, draws(3, mirror_i=[1, NAN, NAN], mirror_j=[NAN, 1, NAN]), TWINS)
    torch.testing.assert_close(found[0], images[0].flip(1), atol=1e-4, rtol=0)
    swapped = labels[0].flip(1)
    for one, other in enumerate(TWINS):
        assert torch.equal(labelled[0] == other, swapped == one)
    assert torch.equal(labelled[1], labels[1].flip(2))
    assert torch.equal(labelled[2], labels[2])


def test_left_and_right_mirrored_swaps_channels_of_overlapping_structures():
    images, _ = batch(2)
    labels = (torch.rand(2, 5, 40, 36) > 0.5).to(torch.int32)
    _, labelled = augment_batch(images, labels, draws(2, mirror_i=[1, NAN]), TWINS)
    assert torch.equal(labelled[0], labels[0].flip(1)[[0, 2, 1, 4, 3]])
    assert torch.equal(labelled[1], labels[1])
    with pytest.raises(LabelError, match="labels must have 1 or 5 channels [(]got 3"):
        augment_batch(images, labels[:, :3], draws(2, mirror_i=[1, NAN]), TWINS)


def test_as_prepare_batch_of_monais_trainer():
    images, labels = batch()
    mirror, shift = {"prob": 1.0, "axes": [0]}, {"prob": 1.0, "offsets": [2, 2]}
    augment = RandAugmentd(mirror=mirror, shift_intensity=shift, labels=LABELS)
    rows = torch.stack([augment({"image": i, "label": t})["augment"] for i, t in zip(images, labels, strict=True)])
    seen = []

    def loss(logits, target):
        seen.append((logits.detach(), target))
        return logits.mean()

    network = torch.nn.Conv2d(1, 1, 1)
    torch.nn.init.ones_(network.weight)
    torch.nn.init.zeros_(network.bias)
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=[{"image": images, "label": labels, "augment": rows}],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.0),
        loss_function=loss,
        prepare_batch=AugmentBatch(augment),
        decollate=False,
    ).run()
    ((logits, target),) = seen
    torch.testing.assert_close(logits, images.flip(2) + 2, atol=1e-4, rtol=0)
    assert torch.equal(target, torch.from_numpy(TWINS)[labels.flip(2)].to(labels.dtype))


def test_without_augmentation_batches_stay_as_they_are():
    images, labels = batch()
    found, labelled = AugmentBatch(None)({"image": images, "label": labels}, torch.device("cpu"))
    assert found is images
    assert labelled is labels


def test_the_label_gets_its_type_at_last():
    images, labels = batch()
    rows = torch.full((4, len(Draws._fields)), NAN)
    given = {"image": images, "label": labels.to(torch.uint8), "augment": rows}
    for augment in (None, RandAugmentd()):
        found = AugmentBatch(augment, label_dtype=torch.int64)(given, torch.device("cpu"))[1]
        assert torch.equal(found, labels.long())
        assert AugmentBatch(augment, label_dtype=None)(given, torch.device("cpu"))[1].dtype == torch.uint8


def test_what_else_prepare_batch_gives_stays():
    images, labels = batch()
    prepare = AugmentBatch(RandAugmentd(), lambda data, *_: (data["image"], data["label"], (), {"more": 1}))
    rows = torch.full((4, len(Draws._fields)), NAN)
    assert prepare({"image": images, "label": labels, "augment": rows})[2:] == ((), {"more": 1})


def test_batches_without_draws_are_refused():
    images, labels = batch()
    with pytest.raises(ConfigError, match=r"the batch has no 'augment'.*Put the same RandAugmentd last"):
        AugmentBatch(RandAugmentd())({"image": images, "label": labels}, torch.device("cpu"))
    with pytest.raises(ConfigError, match="augment must be a RandAugmentd or None [(]got dict"):
        AugmentBatch({"noise": 1})


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (torch.rand(2, 1, 8, 8), torch.zeros(2, 1, 8, 9), "images, labels and draws do not fit"),
        (torch.rand(2, 1, 8, 8), torch.zeros(3, 1, 8, 8), "images, labels and draws do not fit"),
        (torch.rand(3, 1, 8, 8), torch.zeros(3, 1, 8, 8), "draws for 2"),
        (torch.rand(2, 1, 8, 8, 8), torch.zeros(2, 1, 8, 8, 8), "images must be"),
        (torch.rand(2, 1, 8, 8), torch.zeros(2, 8, 8), "images must be"),
        (torch.rand(2, 1, 8, 8), None, "images must be .* and None"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.int16), torch.zeros(2, 1, 8, 8), "of floating point .*torch.int16"),
    ],
)
def test_batches_that_cannot_be_are_refused(images, labels, says):
    with pytest.raises(DataError, match=says):
        augment_batch(images, labels, draws(2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_it_is_what_it_is_on_a_cpu():
    images, labels = batch(16)
    transform = RandAugmentd(**PROBABLE).set_random_state(4)
    rows = [transform({"image": images[0], "label": labels[0]})["augment"] for _ in range(16)]
    drawn = Draws.of(torch.stack(rows))
    here, there = augment_batch(images, labels, drawn), augment_batch(images.cuda(), labels.cuda(), drawn)
    torch.testing.assert_close(there[0].cpu(), here[0], atol=5e-4, rtol=0)
    assert (there[1].cpu() != here[1]).float().mean() < 3e-3


def test_what_comes_then_is_done_to_augmented_images_alone():
    images, labels = batch(count=3)
    drawn = draws(3, mirror_i=[1, NAN, NAN], factor=[NAN, 0.2, NAN])
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    item = {"image": images, "label": labels, "augment": np.array(drawn).T}
    found, same = AugmentBatch(RandAugmentd(), then=Standardize(mean, std).batch)(item)
    augmented, wanted = augment_batch(images, labels, drawn)
    assert found.shape == (3, 3, 40, 36)
    for channel in range(3):
        assert torch.allclose(found[:, channel], (augmented[:, 0] - mean[channel]) / std[channel], atol=1e-5)
    assert torch.equal(same, wanted)
    assert not torch.equal(augmented, images)
