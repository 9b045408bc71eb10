import pytest
import torch

from medseg.errors import ConfigError
from medseg.inference.window_forward import WindowForward


def net(windows):
    return torch.cat([windows, 2 * windows, windows.cumsum(2)], dim=1)


@pytest.mark.parametrize("shape", [(2, 1, 5, 6), (2, 1, 3, 5, 6)])
def test_channels_come_last_with_the_layers_in_front(shape):
    windows = torch.rand(shape)
    result = WindowForward(net, slices=len(shape) == 4)(windows)
    expected = net(windows).movedim(1, -1)
    assert torch.equal(result, expected[:, None] if len(shape) == 4 else expected)
    assert result.is_contiguous()
    assert result.dtype == torch.float32


@pytest.mark.parametrize(("axis", "flip", "dim"), [(2, 0, 2), (2, 1, 3), (0, 1, 2), (0, 2, 3), (1, 0, 2), (1, 2, 3)])
def test_flips_are_named_by_the_axes_of_the_volume(axis, flip, dim):
    windows = torch.rand(1, 1, 5, 6)
    result = WindowForward(net, flips=[[flip]], axis=axis, slices=True)(windows)
    expected = (net(windows) + net(windows.flip(dim)).flip(dim)) / 2
    assert torch.allclose(result[:, 0], expected.movedim(1, -1))


def test_arguments_go_to_the_network():
    calls = []

    def network(windows, *args, **kwargs):
        calls.append((args, kwargs))
        return windows

    WindowForward(network, 1, slices=True, mode="x")(torch.rand(1, 1, 2, 2))
    assert calls == [((1,), {"mode": "x"})]


def test_unknown_precisions_and_axes_are_refused():
    for wrong in ({"precision": "int8"}, {"flips": [[3]]}, {"flips": [[2]], "slices": True, "axis": 2}):
        with pytest.raises(ConfigError):
            WindowForward(net, **wrong)


def test_one_window_that_does_not_fit_is_an_error():
    def full(_):
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        WindowForward(full, slices=True)(torch.rand(1, 1, 2, 2))
