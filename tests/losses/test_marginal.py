import pytest
import torch
from monai.losses import DiceCELoss as MonaiDiceCE
from monai.losses import DiceFocalLoss
from torch.nn import CrossEntropyLoss

from medseg.errors import DataError, GeometryError
from medseg.losses import DiceCELoss, MarginalLoss

KNOWN = torch.tensor([[True, True, False, False, True], [True, False, True, True, True]])


@pytest.fixture
def batch():
    torch.manual_seed(0)
    labels = torch.randint(0, 5, (2, 1, 9, 8))
    labels[0][(labels[0] == 2) | (labels[0] == 3)] = 0
    labels[1][labels[1] == 1] = 0
    return torch.randn(2, 5, 9, 8), labels


def slope(loss, logits, *others):
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, *others)
    value.backward()
    return value.detach(), leaf.grad


def test_with_softmax_it_is_dice_ce_loss(batch):
    logits, labels = batch
    for options in ({"reduction": "sum"}, {"batch": True}):
        theirs = MarginalLoss(MonaiDiceCE(to_onehot_y=True, softmax=True, **options))
        expected, ours = slope(DiceCELoss(**options), logits, labels, KNOWN)
        result, gradient = slope(theirs, logits, labels, KNOWN)
        torch.testing.assert_close(result, expected)
        torch.testing.assert_close(gradient, ours, rtol=1e-4, atol=1e-7)


def test_cross_entropy_with_merged_classes_by_hand(batch):
    logits, labels = batch
    probability = logits.softmax(dim=1)
    merged = torch.cat([probability[:1, [0, 2, 3]].sum(dim=1, keepdim=True), probability[:1, 1:]], dim=1)
    expected = -merged.gather(1, labels[:1]).log().mean()

    class Plain(torch.nn.Module):
        def forward(self, logits, labels):
            return CrossEntropyLoss()(logits, labels[:, 0])

    torch.testing.assert_close(MarginalLoss(Plain())(logits[:1], labels[:1], KNOWN[:1]), expected)


def test_with_sigmoid_unannotated_channels_have_no_gradient(batch):
    logits, _ = batch
    logits = logits[:, 1:]
    truth = (torch.rand(2, 4, 9, 8) > 0.5).float()
    loss = MarginalLoss(DiceFocalLoss(sigmoid=True, gamma=0.0, batch=True), sigmoid=True)
    value, gradient = slope(loss, logits, truth, KNOWN)
    remaining = KNOWN[:, 1:]
    assert not gradient[~remaining].any()
    assert gradient[remaining].any()
    changed = torch.where(remaining[:, :, None, None], truth, 1 - truth)
    assert loss(logits, changed, KNOWN) == value
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    probability = torch.sigmoid(logits) * remaining[:, :, None, None]
    truth = truth * remaining[:, :, None, None]
    dice = 1 - (2 * (probability * truth).sum((0, 2, 3)) + 1e-5) / (
        probability.sum((0, 2, 3)) + truth.sum((0, 2, 3)) + 1e-5
    )
    torch.testing.assert_close(value, dice.mean() + (entropy * remaining[:, :, None, None]).mean())


def test_fully_annotated_it_is_the_inner_loss(batch):
    logits, labels = batch
    inner = MonaiDiceCE(to_onehot_y=True, softmax=True)
    loss = MarginalLoss(inner)
    assert loss(logits, labels) == inner(logits, labels)
    assert loss(logits, {"label": labels, "annotated": torch.ones(2, 5), "case": ["a", "b"]}) == inner(logits, labels)


def test_wrong_shapes_and_empty_cases_are_refused(batch):
    logits, labels = batch
    loss = MarginalLoss(MonaiDiceCE(to_onehot_y=True, softmax=True))
    with pytest.raises(DataError, match="case b: none of the network's structures is annotated"):
        loss(logits, labels, [[1], []], ["a", "b"])
    with pytest.raises(GeometryError, match="labels: do not fit logits"):
        loss(logits, labels[..., :4])
