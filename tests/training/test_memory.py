"""What is counted without memory is what a real step keeps."""

import pytest
import torch
from monai.networks.nets import BasicUNet, UNet
from torch.autograd.graph import saved_tensors_hooks

from medseg.training.memory import estimate

pytestmark = pytest.mark.slow


def basic(dimensions=2, share=1):
    return BasicUNet(dimensions, 1, 5, features=tuple(share * one // 2 for one in (16, 16, 32, 64, 128, 16)))


def unet(share=2):
    return UNet(2, 3, 11, tuple(share * one // 2 for one in (8, 16, 32)), (2, 2), num_res_units=2)


def really_kept(network, shape, lower=False):
    """Bytes that autograd keeps in a real forward pass, weights and image aside."""
    image, kept = torch.randn(shape), {}
    own = {one.untyped_storage().data_ptr() for one in [*network.parameters(), *network.buffers(), image]}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.autocast("cpu", torch.bfloat16, enabled=lower), saved_tensors_hooks(keep, lambda one: one):
        network(image)
    return sum(one.nbytes() for one in kept.values())


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize(
    ("network", "shape"),
    [(basic(2, 2), (3, 1, 64, 48)), (basic(3, 2), (1, 1, 32, 32, 16)), (unet(), (2, 3, 32, 32))],
    ids=["BasicUNet", "BasicUNet 3D", "UNet"],
)
def test_activations_are_those_of_a_real_step(network, shape, lower):
    assert estimate(network, shape, lower=lower).activations == pytest.approx(
        really_kept(network, shape, lower), rel=0.05
    )


@pytest.mark.parametrize(("whole", "half"), [(basic(2, 2), basic(2, 1)), (unet(2), unet(1))], ids=["BasicUNet", "UNet"])
def test_half_the_width_is_a_network_of_half_the_width(whole, half):
    shape = (2, whole.state_dict()[next(iter(whole.state_dict()))].shape[1], 64, 64)
    guessed, real = estimate(whole, shape, width=0.5), estimate(half, shape)
    assert guessed.activations == pytest.approx(really_kept(half, shape), rel=0.1)
    assert guessed.parameters == pytest.approx(real.parameters, rel=0.05)
    assert guessed.logits == real.logits


def test_weights_gradients_and_what_the_optimizer_keeps():
    network = basic()
    size = sum(one.nbytes for one in network.parameters())
    adam, sgd = torch.optim.AdamW(network.parameters()), torch.optim.SGD(network.parameters(), lr=1, momentum=0.9)
    shape = (1, 1, 32, 32)
    found = estimate(network, shape, adam)
    assert (found.parameters, found.gradients, found.optimizer) == (size, size, 2 * size)
    assert estimate(network, shape, sgd).optimizer == size
    assert estimate(network, shape).optimizer == 0
    network(torch.randn(shape)).sum().backward()
    adam.step()
    held = sum(one.nbytes for state in adam.state.values() for one in state.values())
    assert estimate(network, shape, adam).optimizer == pytest.approx(held, rel=1e-6)


def test_the_network_and_its_gradients_stay_as_they_are():
    network = basic().eval()
    before = {name: one.clone() for name, one in network.state_dict().items()}
    estimate(network, (2, 1, 32, 32))
    assert not network.training
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())
    assert all(one.grad is None for one in network.parameters())


def test_logits_and_batch_grow_with_the_loss_and_the_batch():
    few, many = (estimate(basic(), (size, 1, 32, 32), loss_buffers=2.0) for size in (1, 4))
    assert few.logits == 5 * 32 * 32 * 4 * 3
    assert many.logits == 4 * few.logits
    assert many.batch == 4 * few.batch == 4 * 32 * 32 * 8
    assert many.total > 3 * (few.total - few.parameters * 2)


def test_a_shape_that_the_network_does_not_take():
    with pytest.raises(RuntimeError):
        estimate(unet(), (1, 3, 33, 32))
