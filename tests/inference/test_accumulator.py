"""Compare the accumulator with sums over the full volume."""

import pytest
import torch

from medseg.inference.accumulator import WindowAccumulator, empty_mapped
from medseg.inference.windows import WindowPlan


@pytest.mark.parametrize(("shape", "roi"), [((5, 9, 8), (3, 4, 5)), ((4, 9, 8), (1, 4, 5)), ((2, 3, 9), (4, 6, 5))])
def test_layers_are_the_weighted_sums_of_all_windows(shape, roi):
    plan = WindowPlan.of(shape, roi, [0.0 if size == 1 else 0.5 for size in roi])
    importance = plan.importance("gaussian", 0.125, torch.device("cpu"))
    accumulator = WindowAccumulator(plan, importance)
    expected, counts = torch.zeros(*shape, 3), torch.zeros(shape)
    layers, windows = {}, list(plan)
    for number, start in enumerate(windows):
        tile = torch.rand(*roi, 3)
        accumulator.add(start, tile)
        for k in range(roi[0]):
            for i in range(roi[1]):
                for j in range(roi[2]):
                    voxel = (start[0] + k, start[1] + i, start[2] + j)
                    if all(0 <= index < size for index, size in zip(voxel, shape, strict=True)):
                        expected[voxel] += tile[k, i, j] * importance[k, i, j]
                        counts[voxel] += importance[k, i, j]
        end = windows[number + 1][0] if number + 1 < len(windows) else shape[0]
        for k, sums, weights in accumulator.finished(end):
            layers[k] = sums / weights[..., None]
    assert sorted(layers) == list(range(shape[0]))
    stacked = torch.stack([layers[k] for k in range(shape[0])])
    assert torch.allclose(stacked, expected / counts[..., None], atol=1e-5)


def test_one_window_a_layer_passes_through():
    plan = WindowPlan.of((2, 3, 4), (1, 5, 4), (0, 0, 0))
    accumulator = WindowAccumulator(plan, plan.importance("gaussian", 0.125, torch.device("cpu")))
    tile = torch.rand(1, 5, 4, 2)
    accumulator.add(next(iter(plan)), tile)
    ((k, sums, weights),) = accumulator.finished(1)
    assert (k, weights) == (0, None)
    assert torch.equal(sums, tile[0, 1:4])


def test_only_unfinished_layers_stay_in_memory():
    plan = WindowPlan.of((50, 4, 4), (6, 4, 4), (0.5, 0, 0))
    accumulator = WindowAccumulator(plan, plan.importance("constant", 0.125, torch.device("cpu")))
    windows, largest = list(plan), 0
    for number, start in enumerate(windows):
        accumulator.add(start, torch.ones(6, 4, 4, 1))
        list(accumulator.finished(windows[number + 1][0] if number + 1 < len(windows) else 50))
        largest = max(largest, len(accumulator._open))
    assert largest < 6


@pytest.mark.parametrize("roi", [(1, 3, 4), (1, 5, 6)])
def test_the_last_layer_of_a_batch_has_memory_of_its_own_and_stays_valid(roi):
    plan = WindowPlan.of((6, 3, 4), roi, (0, 0, 0))
    accumulator = WindowAccumulator(plan, plan.importance("constant", 0.125, torch.device("cpu")))
    last_layer, windows = None, list(plan)
    first = 0
    for size in (3, 1, 1, 1):
        for start, tile in zip(windows[first : first + size], torch.rand(size, *roi, 2), strict=True):
            accumulator.add(start, tile)
        first += size
        before = None if last_layer is None else last_layer.clone()
        *_, (_, layer, _) = accumulator.finished(first)
        assert before is None or torch.equal(last_layer, before)
        assert layer.untyped_storage().nbytes() == layer.nbytes
        last_layer = layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_mapped_memory_is_a_tensor_that_lives_as_long_as_its_views(dtype):
    first, second = (empty_mapped((4, 5, 6), torch.device("cpu"), dtype) for _ in range(2))
    first.fill_(3)
    second.fill_(5)
    assert first.is_contiguous()
    assert (first == 3).all()
    assert first.sum() == 360
    view = first[1:]
    del first
    assert (view == 3).all()
    assert empty_mapped((0, 5), torch.device("cpu")).shape == (0, 5)
