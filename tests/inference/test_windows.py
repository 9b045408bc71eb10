"""Compare with the windows of MONAI."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers.utils import _get_scan_interval

from medseg.inference.windows import WindowPlan, crop


@settings(deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    roi=st.tuples(*[st.integers(3, 30)] * 3),
    overlap=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 0.9]),
)
def test_windows_lie_where_monai_has_them_and_come_front_to_back(shape, roi, overlap):
    padded = tuple(max(size, length) for size, length in zip(shape, roi, strict=True))
    interval = _get_scan_interval(padded, roi, 3, (overlap,) * 3)
    before = [max(length - size, 0) // 2 for size, length in zip(shape, roi, strict=True)]
    patches = dense_patch_slices(padded, roi, interval)
    monai = {tuple(s.start - b for s, b in zip(patch, before, strict=True)) for patch in patches}
    plan = WindowPlan.of(shape, roi, (overlap,) * 3)
    ours = list(plan)
    assert set(ours) == monai
    assert len(ours) == len(plan) == len(set(ours))
    assert [start[0] for start in ours] == sorted(start[0] for start in ours)


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
def test_weights_are_monais(mode):
    volume = WindowPlan.of((20, 20, 20), (5, 6, 7), (0.5,) * 3).importance(mode, 0.125, torch.device("cpu"))
    assert torch.equal(volume, compute_importance_map((5, 6, 7), mode=mode, sigma_scale=0.125))
    layer = WindowPlan.of((20, 20, 20), (1, 6, 7), (0, 0.5, 0.5)).importance(mode, 0.125, torch.device("cpu"))
    assert torch.equal(layer[0], compute_importance_map((6, 7), mode=mode, sigma_scale=0.125))


def test_a_plan_knows_whether_one_window_covers_a_layer():
    assert WindowPlan.of((9, 6, 7), (1, 6, 7), (0, 0.5, 0.5)).single
    assert WindowPlan.of((4, 6, 7), (5, 6, 7), (0.5,) * 3).single
    assert not WindowPlan.of((9, 6, 7), (5, 6, 7), (0.5,) * 3).single
    assert not WindowPlan.of((9, 7, 7), (1, 6, 7), (0, 0.5, 0.5)).single


def test_a_window_is_the_crop_of_the_padded_volume():
    volume = torch.rand(2, 5, 4, 9)
    padded = torch.nn.functional.pad(volume, (0, 0, 2, 2, 1, 1), value=-3.0)
    for start in WindowPlan.of((5, 4, 9), (7, 8, 4), (0.5,) * 3):
        k, i, j = (at + before for at, before in zip(start, (1, 2, 0), strict=True))
        assert torch.equal(crop(volume, start, (7, 8, 4), -3.0), padded[:, k : k + 7, i : i + 8, j : j + 4])


@given(shape=st.tuples(*[st.integers(3, 40)] * 3), roi=st.tuples(*[st.integers(2, 16)] * 3), data=st.data())
def test_a_narrowed_plan_has_every_window_that_touches_the_box(shape, roi, data):
    plan = WindowPlan.of(shape, roi, [0.5] * 3)
    box = [sorted(data.draw(st.lists(st.integers(0, size), min_size=2, max_size=2, unique=True))) for size in shape]
    narrowed = set(plan.narrowed(box))
    for start in plan:
        touches = all(
            at < end and at + length > first for at, length, (first, end) in zip(start, roi, box, strict=True)
        )
        assert (start in narrowed) == touches
