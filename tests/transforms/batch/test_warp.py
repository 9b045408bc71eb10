"""Against MONAI's RandAffined and RandFlipd with their ranges closed to one value, and against SciPy."""

import numpy as np
import pytest
import torch
from monai.transforms import Compose, RandAffined, RandFlipd
from scipy import ndimage

from medseg.transforms.batch import warp as module
from medseg.transforms.batch.draws import Draws
from medseg.transforms.batch.warp import matrices, warp

NAN = float("nan")


@pytest.fixture(params=["compiled", "torch"], autouse=True)
def way(request, monkeypatch):
    """Every test with the compiled kernel and without it."""
    if request.param == "torch":
        monkeypatch.setattr(module, "_kernels", lambda: None)
    else:
        pytest.importorskip("numba", reason="the extra 'fast' is not installed")
        assert module.compiled(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    return request.param


def draws(**fields):
    """Draws with these fields; the others were not drawn."""
    count = len(next(iter(fields.values())))
    return Draws(**{name: np.array(fields.get(name, [NAN] * count), dtype=float) for name in Draws._fields})


def sample(height=48, width=37, channels=2):
    rng = torch.Generator().manual_seed(3)
    image = torch.rand(channels, height, width, generator=rng)
    label = torch.randint(0, 118, (1, height, width), generator=rng, dtype=torch.int32)
    return image, label


CASES = [
    {"angle": 0.4, "shift_i": 0.0, "shift_j": 0.0, "scale_i": 1.0, "scale_j": 1.0},
    {"angle": 0.0, "shift_i": 5.3, "shift_j": -3.7, "scale_i": 1.0, "scale_j": 1.0},
    {"angle": 0.0, "shift_i": 0.0, "shift_j": 0.0, "scale_i": 0.7, "scale_j": 1.3},
    {"angle": -0.7, "shift_i": -4.1, "shift_j": 9.2, "scale_i": 1.2, "scale_j": 0.85},
    {"mirror_i": 1.0},
    {"mirror_j": 1.0},
    {"mirror_i": 1.0, "angle": 0.3, "shift_i": 2.2, "shift_j": 1.4, "scale_i": 1.1, "scale_j": 0.9},
    {"angle": 0.1, "shift_i": 500.0, "shift_j": 0.0, "scale_i": 1.0, "scale_j": 1.0},
]


def monai(image, label, case):
    steps = [
        RandFlipd(["image", "label"], prob=1.0, spatial_axis=axis)
        for axis, name in enumerate(("mirror_i", "mirror_j"))
        if case.get(name)
    ]
    if "angle" in case:
        both = ("_i", "_j")
        steps.append(
            RandAffined(
                ["image", "label"],
                prob=1.0,
                rotate_range=[(case["angle"],) * 2],
                translate_range=[(case["shift" + axis],) * 2 for axis in both],
                scale_range=[(case["scale" + axis] - 1,) * 2 for axis in both],
                mode=["bilinear", "nearest"],
                padding_mode="zeros",
            )
        )
    done = Compose(steps)({"image": image, "label": label})
    return done["image"].as_tensor(), done["label"].as_tensor()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [(48, 37), (32, 32)])
def test_each_is_monais(case, size):
    """Images to 2e-4 (the noise image changes by up to 1 from pixel to pixel); labels but for ties of a half."""
    image, label = sample(*size)
    found, labelled = warp(image[None], label[None], matrices(draws(**{key: [value] for key, value in case.items()})))
    wanted, truth = monai(image, label, case)
    torch.testing.assert_close(found[0], wanted, atol=2e-4, rtol=0)
    assert labelled.dtype == label.dtype
    assert (labelled[0] != truth).float().mean() < 2e-3
    if case.get("shift_i") == 500.0:
        assert not found.any()
        assert not labelled.any()


def test_a_batch_is_its_samples():
    together = {name: [case.get(name, NAN) for case in CASES] for name in Draws._fields[:7]}
    image, label = sample()
    count = len(CASES)
    where = matrices(draws(**together))
    found, labelled = warp(image.expand(count, -1, -1, -1), label.expand(count, -1, -1, -1), where)
    for number in range(count):
        alone = warp(image[None], label[None], where[number : number + 1])
        torch.testing.assert_close(found[number], alone[0][0], atol=1e-6, rtol=0)
        assert torch.equal(labelled[number], alone[1][0])


def test_the_image_is_scipys():
    image, label = sample(channels=1)
    where = matrices(draws(angle=[0.35], shift_i=[3.0], shift_j=[-2.0], scale_i=[1.1], scale_j=[0.8]))
    middle = np.array([(48 - 1) / 2, (37 - 1) / 2])
    offset = middle + where[0, :, 2] - where[0, :, :2] @ middle
    wanted = ndimage.affine_transform(
        image[0].numpy(), where[0, :, :2], offset, order=1, mode="grid-constant", cval=0.0
    )
    found, _ = warp(image[None], label[None], where)
    np.testing.assert_allclose(found[0, 0].numpy(), wanted, atol=2e-4)


def test_what_was_not_drawn_stays():
    image, label = sample()
    where = matrices(draws(angle=[NAN]))
    assert np.array_equal(where[0], [[1, 0, 0], [0, 1, 0]])
    found, labelled = warp(image[None], label[None], where)
    torch.testing.assert_close(found[0], image, atol=1e-4, rtol=0)
    assert torch.equal(labelled[0], label)


def test_a_mark_in_the_label_follows_the_mark_in_the_image():
    image = torch.zeros(1, 1, 41, 41)
    image[0, 0, 8:13, 28:33] = 1.0
    label = (image > 0).to(torch.uint8) * 7
    where = matrices(draws(angle=[0.5], shift_i=[6.0], shift_j=[-3.0], scale_i=[1.15], scale_j=[0.9]))
    found, labelled = warp(image, label, where)
    assert labelled.dtype == torch.uint8
    assert int((labelled == 7).sum()) > 10
    assert set(labelled.unique().tolist()) == {0, 7}
    assert (found[labelled == 7] > 0.2).all()
    assert (found[labelled == 0] < 0.8).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64, torch.float32])
def test_labels_keep_type_and_values(dtype):
    label = torch.arange(0, 250, dtype=torch.float32).repeat(2, 1, 2)[:, :, :].reshape(2, 1, 20, 25).to(dtype)
    found = warp(torch.zeros(2, 1, 20, 25), label, matrices(draws(mirror_j=[1.0, 1.0])))[1]
    assert found.dtype == dtype
    assert torch.equal(found, label.flip(3))


def test_the_samples_that_were_not_chosen_stay():
    images, labels = (torch.stack([one] * 3) for one in sample())
    where = matrices(draws(mirror_i=[1.0] * 3))
    found, labelled = warp(images, labels, where, np.array([0, 2]))
    assert torch.equal(found[1], images[1])
    assert torch.equal(labelled[1], labels[1])
    assert torch.equal(labelled[[0, 2]], labels[[0, 2]].flip(2))
    torch.testing.assert_close(found[[0, 2]], images[[0, 2]].flip(2), atol=1e-4, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_type_and_every_label(dtype):
    images = torch.rand(1, 1, 60, 50).to(dtype)
    labels = torch.arange(3000, dtype=torch.int32).reshape(1, 1, 60, 50)  # more than half precision can tell apart
    found, labelled = warp(images, labels, matrices(draws(mirror_i=[1.0])))
    assert found.dtype == dtype
    torch.testing.assert_close(found, images.flip(2), atol=1e-2, rtol=0)
    assert torch.equal(labelled, labels.flip(2))
    half = warp(images.float(), images, matrices(draws(mirror_j=[1.0])))[1]
    assert torch.equal(half, images.flip(3))
