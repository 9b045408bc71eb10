"""Against sums over the whole volume."""

import pytest
import torch

from medseg.inference.accumulator import WindowAccumulator
from medseg.inference.windows import Plan


@pytest.mark.parametrize(("shape", "roi"), [((5, 9, 8), (3, 4, 5)), ((4, 9, 8), (1, 4, 5)), ((2, 3, 9), (4, 6, 5))])
def test_layers_are_the_weighted_sums_of_all_windows(shape, roi):
    plan = Plan.of(shape, roi, [0.0 if size == 1 else 0.5 for size in roi])
    importance = plan.importance("gaussian", 0.125, torch.device("cpu"))
    slab, whole, counts = WindowAccumulator(plan, importance), torch.zeros(*shape, 3), torch.zeros(shape)
    found, windows = {}, list(plan)
    for number, start in enumerate(windows):
        tile = torch.rand(*roi, 3)
        slab.add(start, tile)
        for k in range(roi[0]):
            for i in range(roi[1]):
                for j in range(roi[2]):
                    at = (start[0] + k, start[1] + i, start[2] + j)
                    if all(0 <= one < size for one, size in zip(at, shape, strict=True)):
                        whole[at] += tile[k, i, j] * importance[k, i, j]
                        counts[at] += importance[k, i, j]
        until = windows[number + 1][0] if number + 1 < len(windows) else shape[0]
        for k, sums, weights in slab.finished(until):
            found[k] = sums / weights[..., None]
    assert sorted(found) == list(range(shape[0]))
    assert torch.allclose(torch.stack([found[k] for k in range(shape[0])]), whole / counts[..., None], atol=1e-5)


def test_one_window_a_layer_passes_through():
    plan = Plan.of((2, 3, 4), (1, 5, 4), (0, 0, 0))
    slab = WindowAccumulator(plan, plan.importance("gaussian", 0.125, torch.device("cpu")))
    tile = torch.rand(1, 5, 4, 2)
    slab.add(next(iter(plan)), tile)
    ((k, sums, weights),) = slab.finished(1)
    assert (k, weights) == (0, None)
    assert torch.equal(sums, tile[0, 1:4])


def test_only_live_layers_are_held():
    plan = Plan.of((50, 4, 4), (6, 4, 4), (0.5, 0, 0))
    slab = WindowAccumulator(plan, plan.importance("constant", 0.125, torch.device("cpu")))
    windows, most = list(plan), 0
    for number, start in enumerate(windows):
        slab.add(start, torch.ones(6, 4, 4, 1))
        list(slab.finished(windows[number + 1][0] if number + 1 < len(windows) else 50))
        most = max(most, len(slab._live))
    assert most < 6


@pytest.mark.parametrize("roi", [(1, 3, 4), (1, 5, 6)])
def test_whoever_holds_the_last_layer_of_a_batch_holds_no_other_and_keeps_it(roi):
    plan = Plan.of((6, 3, 4), roi, (0, 0, 0))
    slab, held, windows = (
        WindowAccumulator(plan, plan.importance("constant", 0.125, torch.device("cpu"))),
        None,
        list(plan),
    )
    first = 0
    for size in (3, 1, 1, 1):
        for start, tile in zip(windows[first : first + size], torch.rand(size, *roi, 2), strict=True):
            slab.add(start, tile)
        first += size
        before = None if held is None else held.clone()
        *_, (_, last, _) = slab.finished(first)
        assert before is None or torch.equal(held, before)
        assert last.untyped_storage().nbytes() == last.nbytes
        held = last
