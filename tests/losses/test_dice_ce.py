"""Compare with MONAI's loss, and with a merged MONAI loss for cases that are annotated in part."""

import itertools

import monai.losses
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg.errors import ConfigError, DataError, GeometryError, LabelError, MedsegError
from medseg.losses import DiceCELoss, voxel_sums

SHAPES = [(2, 7, 13, 11), (3, 2, 40, 29), (2, 5, 9, 8, 7), (1, 118, 24, 25)]
WEIGHT = torch.linspace(0.2, 2.0, 118)
OPTIONS = [
    {},
    {"include_background": False, "batch": True},
    {"squared_pred": True, "smooth_nr": 0.0, "smooth_dr": 1e-3},
    {"jaccard": True, "batch": True, "lambda_ce": 0.5},
    {"jaccard": True, "squared_pred": True, "label_smoothing": 0.1},
    {"weight": WEIGHT, "include_background": False, "label_smoothing": 0.2},
    {"weight": WEIGHT, "reduction": "sum", "lambda_dice": 0.0},
    {"lambda_ce": 0.0, "reduction": "sum"},
]


@pytest.fixture(params=["compiled", "torch"])
def way(request, monkeypatch):
    """Run with the compiled loops and with torch."""
    if request.param == "torch":
        monkeypatch.setattr(voxel_sums, "_loops", lambda: None)
    elif voxel_sums._loops() is None:
        pytest.skip("numba is not installed")
    return request.param


def example(shape, last=False, seed=0):
    made = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(shape, generator=made)
    if last:
        logits = logits.to(memory_format=torch.channels_last if len(shape) == 4 else torch.channels_last_3d)
    labels = torch.randint(0, shape[1], (shape[0], 1, *shape[2:]), generator=made)
    return logits.requires_grad_(), labels


def with_gradient(loss, logits, *others):
    logits = logits.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    value = loss(logits, *others)
    value.backward()
    return value.detach(), logits.grad


def sized(options, classes):
    return {key: value[:classes] if key == "weight" else value for key, value in options.items()}


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "plain")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_gradient_are_monais(way, shape, options):
    options = sized(options, shape[1])
    for last in (False, True):
        logits, labels = example(shape, last)
        reference = monai.losses.DiceCELoss(to_onehot_y=True, softmax=True, **options)
        expected, slope = with_gradient(reference, logits, labels)
        result, ours = with_gradient(DiceCELoss(**options), logits, labels)
        assert float(result) == pytest.approx(float(expected), rel=1e-6, abs=1e-6)
        assert float((ours - slope).abs().max()) <= 1e-5 * float(slope.abs().max())
        assert ours.stride() == logits.stride()
        assert result.dtype == torch.float32


def test_the_gradient_is_that_of_finite_differences():
    logits, labels = example((2, 3, 3, 2))
    annotated_mask = torch.tensor([[True, True, False], [True, True, True]])
    for options in ({}, {"squared_pred": True, "jaccard": True}, {"label_smoothing": 0.3, "batch": True}):
        loss = DiceCELoss(**options)
        assert torch.autograd.gradcheck(
            lambda z, loss=loss: loss(z, labels, annotated_mask).double(), logits.detach().double().requires_grad_(),
            atol=1e-3, eps=1e-3,  # the loss itself is a float32
        )  # fmt: skip


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(way, kind):
    for last in (False, True):
        logits, labels = example((2, 9, 16, 15), last)
        low = logits.detach().to(kind)
        result, slope = with_gradient(DiceCELoss(), low, labels)
        expected, exact = with_gradient(DiceCELoss(), low.float(), labels)
        assert result == expected
        assert slope.dtype == kind
        torch.testing.assert_close(slope, exact.to(kind), rtol=torch.finfo(kind).eps, atol=1e-7)


def test_autocast_and_a_scaled_loss_work():
    logits, labels = example((2, 4, 8, 8))
    expected, slope = with_gradient(DiceCELoss(), logits, labels)
    with torch.autocast("cpu", torch.bfloat16):
        result, scaled = with_gradient(lambda *one: 1024 * DiceCELoss()(*one), logits, labels)
    assert float(result) == pytest.approx(1024 * float(expected))
    torch.testing.assert_close(scaled, 1024 * slope)


def test_extreme_logits_stay_exact(way):
    logits = torch.tensor([[[[300.0, -200.0]], [[0.0, 100.0]], [[-500.0, -torch.inf]]]]).requires_grad_()
    labels = torch.tensor([[[[1, 0]]]])
    reference = monai.losses.DiceCELoss(to_onehot_y=True, softmax=True)
    for one, other in zip(
        with_gradient(DiceCELoss(), logits, labels), with_gradient(reference, logits, labels), strict=True
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "turn", [lambda one: one[:, :, ::2], lambda one: one.transpose(2, 3), lambda one: one[:1].expand(2, -1, -1, -1)]
)
def test_other_memory_layouts_are_copied(way, turn):
    logits, labels = example((2, 5, 12, 14))
    strided, labels = turn(logits.detach()).requires_grad_(), turn(labels)
    expected = with_gradient(DiceCELoss(), strided.detach().contiguous(), labels)
    result = DiceCELoss()(strided, labels)
    (slope,) = torch.autograd.grad(result, strided)
    assert result == expected[0]
    assert torch.equal(slope, expected[1])


def test_one_spatial_axis(way):
    logits, labels = example((2, 5, 40))
    expected, slope = with_gradient(monai.losses.DiceCELoss(to_onehot_y=True, softmax=True), logits, labels)
    result, ours = with_gradient(DiceCELoss(), logits, labels)
    assert float(result) == pytest.approx(float(expected), rel=1e-6)
    torch.testing.assert_close(ours, slope, rtol=1e-5, atol=1e-7)


def test_the_sum_does_not_depend_on_the_number_of_threads(way):
    logits, labels = example((2, 3, 150, 140))
    expected = with_gradient(monai.losses.DiceCELoss(to_onehot_y=True, softmax=True), logits, labels)
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            result = with_gradient(DiceCELoss(), logits, labels)
            assert float(result[0]) == pytest.approx(float(expected[0]), rel=1e-6)
            torch.testing.assert_close(result[1], expected[1], rtol=1e-5, atol=1e-9)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("ignored", [255, -1, 2])
def test_ignored_voxels_take_no_part(way, ignored):
    """As if the voxels were not there."""
    logits, labels = example((1, 4, 6, 10))
    labels[0, 0, :, 7:] = ignored
    labels[0, 0, :, :7][labels[0, 0, :, :7] == ignored] = 0
    options = {"label_smoothing": 0.1, "batch": True}
    result, slope = with_gradient(DiceCELoss(ignore_index=ignored, **options), logits, labels)
    expected, remaining = with_gradient(DiceCELoss(**options), logits[..., :7], labels[..., :7])
    assert float(result) == pytest.approx(float(expected), rel=1e-6)
    torch.testing.assert_close(slope[..., :7], remaining)
    assert not slope[..., 7:].any()


def test_a_batch_that_is_ignored_has_no_gradient():
    logits, _ = example((1, 4, 6, 10))
    result, slope = with_gradient(DiceCELoss(ignore_index=9), logits, torch.full((1, 1, 6, 10), 9))
    assert result.isfinite()
    assert not slope.any()


def test_focal_loss_is_monais_with_softmax(way):
    """MONAI takes its mean over classes, too."""
    logits, labels = example((2, 6, 20, 30))

    def reference(logits, labels):
        focal = monai.losses.FocalLoss(gamma=2.0, to_onehot_y=True, use_softmax=True)
        return 6 * focal(logits, labels)

    expected, slope = with_gradient(reference, logits, labels)
    result, ours = with_gradient(DiceCELoss(lambda_dice=0.0, focal_gamma=2.0), logits, labels)
    assert float(result) == pytest.approx(float(expected), rel=1e-6)
    torch.testing.assert_close(ours, slope, rtol=1e-4, atol=1e-8)


# Cases that are annotated in part


def merged_by_hand(logits, labels, annotated_mask, **options):
    """MONAI's loss on the classes that are annotated, the others' probability added to the background's."""
    total = 0.0
    for one, label, row in zip(logits, labels, annotated_mask, strict=True):
        rest = torch.cat([one[:1], one[~row]]).logsumexp(dim=0, keepdim=True)
        remaining = torch.cat([rest, one[1:][row[1:]]])[None]
        numbers = torch.zeros(len(row), dtype=torch.long)
        numbers[row] = torch.arange(int(row.sum()))
        total = total + monai.losses.DiceCELoss(to_onehot_y=True, softmax=True, **options)(
            remaining, numbers[label][None]
        )
    return total


@pytest.mark.parametrize("options", [{}, {"squared_pred": True}, {"label_smoothing": 0.2}, {"jaccard": True}])
def test_structures_that_are_not_annotated_are_part_of_the_background(way, options):
    annotated_mask = torch.tensor([[1, 1, 0, 1, 0, 1], [1, 0, 0, 0, 1, 0], [1, 1, 1, 1, 1, 1]]).bool()
    for last, background in itertools.product((False, True), (True, False)):
        options = {**options, "include_background": background}
        logits, labels = example((3, 6, 9, 10), last)
        labels = torch.where(annotated_mask[torch.arange(3)[:, None], labels.flatten(1)], labels.flatten(1), 0).view_as(
            labels
        )

        def by_hand(logits, labels, options=options, background=background):
            one = merged_by_hand(logits, labels, annotated_mask, lambda_dice=0.0, **options) / 3
            dices = [
                merged_by_hand(
                    logits[b : b + 1], labels[b : b + 1], annotated_mask[b : b + 1], lambda_ce=0.0, **options
                )
                * (int(annotated_mask[b].sum()) - (not background))
                for b in range(3)
            ]
            return one + sum(dices) / (int(annotated_mask.sum()) - 3 * (not background))

        expected, slope = with_gradient(by_hand, logits, labels)
        result, ours = with_gradient(DiceCELoss(**options), logits, labels, annotated_mask)
        assert float(result) == pytest.approx(float(expected), rel=1e-6)
        torch.testing.assert_close(ours, slope, rtol=1e-4, atol=1e-8)


def test_the_loss_of_a_batch_by_hand():
    """Two cases of two voxels, three classes; class 2 is not annotated in the second case."""
    probability = torch.tensor([[[0.5, 0.2], [0.3, 0.1], [0.2, 0.7]], [[0.6, 0.1], [0.1, 0.6], [0.3, 0.3]]])
    labels = torch.tensor([[[0, 2]], [[0, 1]]])
    annotated_mask = torch.tensor([[True, True, True], [True, True, False]])
    tiny = {"smooth_nr": 0.0, "smooth_dr": 1e-12}
    result = DiceCELoss(lambda_ce=0.0, batch=True, **tiny)(probability.log(), labels, annotated_mask)
    background = 2 * (0.5 + 0.9) / (0.5 + 0.2 + 0.9 + 0.4 + 2)
    first, second = 2 * 0.6 / (0.3 + 0.1 + 0.1 + 0.6 + 1), 2 * 0.7 / (0.2 + 0.7 + 1)
    assert float(result) == pytest.approx(1 - (background + first + second) / 3, abs=1e-6)
    result = DiceCELoss(lambda_dice=0.0)(probability.log(), labels, annotated_mask)
    assert float(result) == pytest.approx(-np.log([0.5, 0.7, 0.9, 0.6]).mean(), abs=1e-6)
    result = DiceCELoss(lambda_ce=0.0, include_background=False, **tiny)(probability.log(), labels, annotated_mask)
    dices = [0.0, 2 * 0.7 / 1.9, 2 * 0.6 / (0.7 + 1)]
    assert float(result) == pytest.approx(1 - sum(dices) / 3, abs=1e-6)


def test_the_background_is_not_pulled_towards_any_of_its_parts(way):
    """Where the truth is background, only the sum counts: each part is pushed in proportion to what it is."""
    logits, labels = example((1, 4, 5, 5))
    annotated_mask = torch.tensor([[True, True, False, False]])
    _, slope = with_gradient(DiceCELoss(), logits, torch.zeros_like(labels), annotated_mask)
    probability = logits.detach().softmax(dim=1)
    ratio = slope / probability
    torch.testing.assert_close(ratio[:, 2], ratio[:, 0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(ratio[:, 3], ratio[:, 0], rtol=1e-4, atol=1e-6)


def test_a_voxel_of_a_structure_that_is_not_annotated_counts_as_background():
    logits, labels = example((1, 4, 5, 5))
    annotated_mask = [[1, 2]]
    assert DiceCELoss()(logits, labels, annotated_mask) == DiceCELoss()(
        logits, torch.where(labels == 3, 0, labels), annotated_mask
    )


def test_lists_tensors_and_the_trainers_mapping_mean_the_same():
    logits, labels = example((2, 4, 5, 5))
    annotated_mask = torch.tensor([[True, True, False, True], [False, False, True, False]])
    loss = DiceCELoss()
    expected = loss(logits, labels, annotated_mask)
    assert expected != loss(logits, labels)
    assert expected == loss(logits, labels, [[1, 3], [2]])
    assert expected == loss(logits, {"label": labels, "annotated": annotated_mask, "case": ["a", "b"]})
    assert loss(logits, labels, [[1, 2, 3]] * 2) == loss(logits, {"label": labels}) == loss(logits, labels)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.int32, torch.bool])
def test_labels_of_any_integer_type_and_with_metadata(kind):
    logits, labels = example((2, 2, 5, 5))
    expected = DiceCELoss()(logits, labels)
    assert DiceCELoss()(MetaTensor(logits.detach()), MetaTensor(labels.to(kind))) == expected


def test_no_gradient_is_computed_unless_required():
    logits, labels = example((2, 3, 5, 5))
    with torch.no_grad():
        assert not DiceCELoss()(logits, labels).requires_grad


# Bad input


def test_labels_out_of_range_are_refused_with_value_and_case():
    logits, labels = example((2, 4, 5, 5))
    labels[1, 0, 0, :3] = 130
    with pytest.raises(LabelError, match=r"case s0007: labels must lie between 0 and 3 [(]got 130 in 3 voxels"):
        DiceCELoss()(logits, labels, cases=["s0001", "s0007"])
    labels[1, 0, 0, :3] = -1
    with pytest.raises(LabelError, match=r"case 1 of the batch: .*got -1 in 3 voxels"):
        DiceCELoss(ignore_index=255)(logits, labels)


def test_labels_that_are_floats_are_refused():
    logits, labels = example((2, 4, 5, 5))
    with pytest.raises(LabelError, match=r"class indices of an integer type [(]got torch.float32"):
        DiceCELoss()(logits, labels.float())


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_logits_that_are_not_finite_give_nan(way, wrong):
    for last in (False, True):
        for option in ({}, {"lambda_ce": 0.0}, {"lambda_dice": 0.0}):
            logits, labels = example((2, 4, 5, 5), last)
            with torch.no_grad():
                logits[1, 2, 3, 3] = wrong
            loss = DiceCELoss(**option)(logits, {"label": labels, "case": ["a", "b"]})
            loss.backward()
            assert loss.isnan()
            assert not logits.grad.isfinite().all()


def test_shapes_that_do_not_fit_are_refused():
    logits, labels = example((2, 4, 5, 5))
    for wrong in (labels[:, 0], labels[..., :4], labels[:1], labels.expand(-1, 4, -1, -1)):
        with pytest.raises(GeometryError, match=r"must have the shape \(2, 1, 5, 5\) for these logits"):
            DiceCELoss()(logits, wrong)
    with pytest.raises(GeometryError, match="a background and at least one structure"):
        DiceCELoss()(logits[:, :1], labels)


def test_wrong_annotated_lists_are_refused():
    logits, labels = example((2, 4, 5, 5))
    with pytest.raises(DataError, match=r"case b: none of the network's structures is annotated.*Exclude the case"):
        DiceCELoss()(logits, labels, [[1], []], ["a", "b"])
    with pytest.raises(DataError, match="case 0 of the batch: none of the network's structures is annotated"):
        DiceCELoss()(logits, labels, torch.tensor([[True, False, False, False]] * 2))
    with pytest.raises(LabelError, match="annotated classes must lie between 0 and 3"):
        DiceCELoss()(logits, labels, [[1], [4]])
    with pytest.raises(GeometryError, match="for each of 2 cases"):
        DiceCELoss()(logits, labels, [[1]])
    with pytest.raises(GeometryError, match=r"\(2, 4\)"):
        DiceCELoss()(logits, labels, torch.ones(2, 3, dtype=torch.bool))


def test_a_second_derivative_is_refused(way):
    logits, labels = example((2, 4, 5, 5))
    (slope,) = torch.autograd.grad(DiceCELoss()(logits, labels), logits, create_graph=True)
    with pytest.raises(MedsegError, match=r"has no second derivative.*monai.losses.DiceCELoss"):
        slope.square().sum().backward()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reduction": "none"}, "mean or sum"),
        ({"label_smoothing": 1.5}, "from 0 to 1"),
        ({"lambda_dice": -1}, "0 or more"),
        ({"focal_gamma": 0.5}, "0, or 1 or more"),
        ({"lambda_ce": -1}, "0 or more"),
        ({"lambda_dice": 0, "lambda_ce": 0}, "above 0 where lambda_ce is 0"),
        ({"smooth_dr": 0}, "above 0"),
        ({"weight": [1.0, -1.0]}, "0 or more for each class"),
        ({"weight": 1.0}, "for each class"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        DiceCELoss(**options)


def test_weights_for_another_number_of_classes_are_refused():
    logits, labels = example((2, 4, 5, 5))
    with pytest.raises(ConfigError, match="each of 4 classes [(]got 3"):
        DiceCELoss(weight=[1, 1, 1])(logits, labels)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "plain")
def test_a_gpu_gives_what_the_cpu_gives(options):
    logits, labels = example((2, 118, 24, 25))
    annotated_mask = torch.rand(2, 118) > 0.3
    for annotated in (None, annotated_mask):
        expected, slope = with_gradient(DiceCELoss(**options), logits, labels, annotated)
        result, ours = with_gradient(DiceCELoss(**options).cuda(), logits.cuda(), labels.cuda(), annotated)
        assert float(result) == pytest.approx(float(expected), rel=1e-6)
        torch.testing.assert_close(ours.cpu(), slope, rtol=1e-4, atol=1e-8)
