import pytest
import torch

from medseg.inference.buffers import empty_apart


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_a_tensor_like_any_other_and_no_other_touches_it(dtype):
    one, other = (empty_apart((4, 5, 6), torch.device("cpu"), dtype) for _ in range(2))
    one.fill_(3)
    other.fill_(5)
    assert one.is_contiguous()
    assert (one == 3).all()
    assert one.sum() == 360
    part = one[1:]
    del one
    assert (part == 3).all()  # the memory lives as long as any view of it


def test_nothing_needs_no_memory():
    assert empty_apart((0, 5), torch.device("cpu")).shape == (0, 5)
