"""Along a whole training, MONAI's loss and this one say the same. Takes minutes: run with -m long."""

import monai.losses
import numpy as np
import pytest
import torch
from monai.networks.nets import UNet

from medseg.data.phantom import PhantomSpec, make_body
from medseg.losses import DiceCELoss
from medseg.metrics.overlap import confusion_matrix, dice

ORGANS = ("liver", "spleen", "stomach", "autochthon_left", "autochthon_right")
OPTIONS = {"include_background": False, "batch": True}
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def slices():
    """Two bodies in slices, `(N, 1, 64, 48)`, to train on; the second one is what is looked at in the end, too."""
    spec = PhantomSpec(seed=5, size=(136, 96), spacing=(3.0, 3.0, 8.0), region="abdomen")
    parts = []
    for number in range(2):
        body = make_body(spec, number)
        image = np.interp(body.hu, [-1000, -200, 300, 1200], [0, 0.2, 0.8, 1]).astype(np.float32)
        label = np.zeros(body.hu.shape, np.int64)
        for value, name in enumerate(ORGANS, start=1):
            if name in body.masks:
                label[body.masks[name]] = value
        held = (label == 1).any(axis=(0, 1))  # slices of the liver
        parts.append(
            [torch.from_numpy(np.moveaxis(one[4:132:2, ::2, held], 2, 0)[:, None].copy()) for one in (image, label)]
        )
    train = [torch.cat([part[at] for part in parts]) for at in (0, 1)]
    return train, parts[1], len(ORGANS) + 1


def network(classes, seed):
    torch.manual_seed(seed)
    return UNet(2, 1, classes, (16, 32, 64, 128), (2, 2, 2), num_res_units=0)


def batches(images, labels, count, seed):
    made = torch.Generator().manual_seed(seed)
    for _ in range(count):
        chosen = torch.randint(0, len(images), (8,), generator=made)
        yield images[chosen], labels[chosen]


def test_along_a_trajectory_of_100_steps_value_and_gradient_are_monais(slices):
    """The weights go where MONAI's loss takes them; at each step both look at the same logits."""
    (images, labels), _, classes = slices
    net = network(classes, 0)
    optimizer = torch.optim.AdamW(net.parameters(), 5e-3)
    theirs, ours = monai.losses.DiceCELoss(to_onehot_y=True, softmax=True, **OPTIONS), DiceCELoss(**OPTIONS)
    values = []
    for image, label in batches(images, labels, 100, 0):
        optimizer.zero_grad()
        logits = net(image)
        logits.retain_grad()
        expected = theirs(logits, label)
        expected.backward()
        leaf = logits.detach().requires_grad_()
        result = ours(leaf, label)
        result.backward()
        optimizer.step()
        assert float(result.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
        assert float((leaf.grad - logits.grad).abs().max()) <= 1e-5 * float(logits.grad.abs().max())
        values.append(float(expected.detach()))
    assert values[-1] < 0.7 * values[0]  # it went somewhere


def final_dice(slices, criterion, seed, precision=None, steps=300):
    (images, labels), (seen, truth), classes = slices
    net = network(classes, seed)
    optimizer = torch.optim.AdamW(net.parameters(), 5e-3)
    for image, label in batches(images, labels, steps, seed):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = net(image)
        criterion(logits, label).backward()
        optimizer.step()
    with torch.no_grad():
        result = net.eval()(seen).argmax(dim=1, keepdim=True)
    return float(np.nanmean(dice(confusion_matrix(result, truth, classes))))


def test_trained_freely_dice_is_monais_within_the_spread_of_seeds(slices):
    """And in bfloat16, too, as a CPU that has it trains."""
    theirs = monai.losses.DiceCELoss(to_onehot_y=True, softmax=True, **OPTIONS)
    scores = {
        "monai": [final_dice(slices, theirs, seed) for seed in range(3)],
        "ours": [final_dice(slices, DiceCELoss(**OPTIONS), seed) for seed in range(3)],
        "bf16": [final_dice(slices, DiceCELoss(**OPTIONS), seed, "bf16") for seed in range(3)],
    }
    spread = max(scores["monai"]) - min(scores["monai"])
    assert np.mean(scores["monai"]) > 0.3, scores
    for name in ("ours", "bf16"):
        assert abs(np.mean(scores[name]) - np.mean(scores["monai"])) <= max(spread, 0.01), scores
