import pytest
import torch
from monai.networks.nets import BasicUNet, UNet
from torch import nn

from medseg.inference.final_conv import split_final_conv


@pytest.mark.parametrize("dims", [2, 3])
def test_body_and_final_convolution_together_are_the_network(dims):
    torch.manual_seed(0)
    network = BasicUNet(dims, 1, 7, features=(4, 4, 8, 8, 8, 6)).eval()
    windows = torch.rand(2, 1, *[32] * dims)
    with torch.no_grad():
        logits = network(windows)
        with split_final_conv(network) as (body, final_conv):
            features = body(windows)
            assert features.shape[1] == 6
            assert final_conv is not None
            assert torch.allclose(final_conv(features.movedim(1, -1)).movedim(-1, 1), logits, atol=1e-5)
        assert torch.equal(network(windows), logits)  # put together again


@pytest.mark.parametrize(
    "network",
    [
        UNet(2, 1, 5, (4, 8), (2,), num_res_units=0),  # ends in a transposed convolution
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 5, 1), nn.Sigmoid()),  # something stands behind it
        nn.Sequential(nn.Conv2d(1, 5, 1, stride=2)),
        lambda windows: windows,
    ],
)
def test_a_network_without_a_final_pointwise_convolution_is_not_split(network):
    with split_final_conv(network) as (body, final_conv):
        assert body is network
        assert final_conv is None


def test_the_network_is_put_together_again_after_an_error():
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 5, 1))
    final_conv = network[1]
    with pytest.raises(ZeroDivisionError), split_final_conv(network):
        raise ZeroDivisionError
    assert network[1] is final_conv


def test_the_network_is_not_split_unless_enabled():
    network = nn.Sequential(nn.Conv2d(1, 4, 1))
    with split_final_conv(network, enabled=False) as (_, final_conv):
        assert final_conv is None
