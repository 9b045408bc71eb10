import pytest
import torch
from monai.networks.nets import BasicUNet, UNet
from torch import nn

from medseg.inference.final_conv import split_head


@pytest.mark.parametrize("dims", [2, 3])
def test_body_and_head_together_are_the_network(dims):
    torch.manual_seed(0)
    network = BasicUNet(dims, 1, 7, features=(4, 4, 8, 8, 8, 6)).eval()
    windows = torch.rand(2, 1, *[32] * dims)
    with torch.no_grad():
        whole = network(windows)
        with split_head(network) as (body, head):
            features = body(windows)
            assert features.shape[1] == 6
            assert head is not None
            assert torch.allclose(head(features.movedim(1, -1)).movedim(-1, 1), whole, atol=1e-5)
        assert torch.equal(network(windows), whole)  # put together again


@pytest.mark.parametrize(
    "network",
    [
        UNet(2, 1, 5, (4, 8), (2,), num_res_units=0),  # ends in a transposed convolution
        nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 5, 1), nn.Sigmoid()),  # something stands behind it
        nn.Sequential(nn.Conv2d(1, 5, 1, stride=2)),
        lambda windows: windows,
    ],
)
def test_a_network_that_ends_otherwise_is_left_as_it_is(network):
    with split_head(network) as (body, head):
        assert body is network
        assert head is None


def test_it_is_put_together_again_after_an_error():
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 5, 1))
    head = network[1]
    with pytest.raises(ZeroDivisionError), split_head(network):
        raise ZeroDivisionError
    assert network[1] is head


def test_it_is_not_split_where_that_is_not_wanted():
    network = nn.Sequential(nn.Conv2d(1, 4, 1))
    with split_head(network, wanted=False) as (_, head):
        assert head is None
