"""Each thing that does not fit is said before the first step, and nothing of the run changes by looking."""

import random

import numpy as np
import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer

from medseg.errors import ConfigError, DeviceError
from medseg.training import DryRun, try_network
from medseg.training.seeding import rng_state


def network(channels=1, classes=3):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels, 4, 3, padding=1),
        torch.nn.BatchNorm2d(4),
        torch.nn.Dropout(0.5),
        torch.nn.Conv2d(4, classes, 1),
    )


class Items(list):
    """A data set that draws at every look."""

    def __getitem__(self, index):
        random.random(), np.random.rand(), torch.rand(1)
        return super().__getitem__(index)


def items(channels=1, size=(8, 8), label=(8, 8)):
    return Items([{"image": torch.ones(channels, *size), "label": torch.zeros(1, *label)}] * 2)


def cross_entropy(logits, label):
    return torch.nn.functional.cross_entropy(logits, label[:, 0].long())


def warm_up(data=None, net=None, classes=3, loss=cross_entropy, **options):
    net = network() if net is None else net
    trainer = SupervisedTrainer(
        torch.device("cpu"),
        1,
        [],
        net,
        torch.optim.SGD(net.parameters(), lr=0.1),
        loss,
        decollate=False,
        epoch_length=1,
        **options,
    )
    DryRun(items() if data is None else data, classes)(trainer)


def test_one_sample_goes_through_and_nothing_of_the_run_changes(caplog):
    net = network().train()
    net[2].eval()
    before, weights = rng_state(), {name: one.clone() for name, one in net.state_dict().items()}
    caplog.set_level("INFO")
    warm_up(net=net)
    assert "One sample went through: (1, 1, 8, 8) to (1, 3, 8, 8), loss" in caplog.text
    after = rng_state()
    assert torch.equal(after["torch"], before["torch"])
    assert torch.equal(after["numpy"][1], before["numpy"][1])
    assert after["numpy"][2] == before["numpy"][2]
    assert torch.equal(after["python"][1], before["python"][1])
    assert all(torch.equal(one, weights[name]) for name, one in net.state_dict().items())
    assert all(one.grad is None for one in net.parameters())
    assert net.training


def test_the_loss_is_that_of_the_first_sample(caplog):
    caplog.set_level("INFO")
    net, data = network(), items()
    with torch.no_grad():
        wanted = float(cross_entropy(net.eval()(data[0]["image"][None]), data[0]["label"][None]))
    warm_up(net=net, data=data)
    assert f"loss {wanted:.3f}" in caplog.text


def test_it_runs_when_the_trainer_starts_and_stops_it():
    trainer = SupervisedTrainer(
        torch.device("cpu"),
        1,
        [{"image": torch.ones(2, 1, 8, 8), "label": torch.zeros(2, 1, 8, 8)}],
        net := network(),
        torch.optim.SGD(net.parameters(), lr=0.1),
        cross_entropy,
        train_handlers=[DryRun(items(), out_channels=4)],
        decollate=False,
    )
    with pytest.raises(ConfigError, match="Check out_channels"):
        trainer.run()
    assert trainer.state.iteration == 0


def infinite():
    net = network()
    torch.nn.init.constant_(net[3].bias, float("nan"))
    return net


class Two(torch.nn.Module):
    def forward(self, image):
        return [image, image]


WRONG = {
    r"network: it does not take an image of shape \(1, 2, 8, 8\).*Check in_channels": {"data": items(channels=2)},
    r"for an image of \(1, 1, 8, 8\) must have the shape \(1, 4, 8, 8\) \(got \(1, 3, 8, 8\)\)": {"classes": 4},
    r"must have the shape .* \(got list\)": {"net": torch.nn.Sequential(network(), Two())},
    "network: its output holds NaN or infinity": {"net": infinite()},
    r"label: it must have the size of the image, \(8, 8\) \(got \(8, 9\)\)": {"data": items(label=(8, 9))},
    r"loss: it does not take logits \(1, 3, 8, 8\) and labels \(1, 1, 8, 8\)": {"loss": torch.nn.CrossEntropyLoss()},
    "loss: it is NaN for the first sample": {"loss": lambda logits, _: logits.sum() * np.nan},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_does_not_fit_is_named(message):
    net = WRONG[message].get("net", network()).train()
    with pytest.raises(ConfigError, match=message):
        warm_up(**{**WRONG[message], "net": net})
    assert net.training


def test_weights_that_lie_elsewhere_are_named():
    net = network()
    net[3] = torch.nn.Conv2d(4, 3, 1, device="meta")
    with pytest.raises(
        DeviceError, match=r"network, 3\.weight: it is on meta, and the run computes on cpu.*network\.to\(device\)"
    ):
        warm_up(net=net)
    net = network()
    net[1].running_mean = torch.zeros(4, device="meta")
    with pytest.raises(DeviceError, match=r"network, 1\.running_mean: it is on meta"):
        warm_up(net=net)
    with pytest.raises(DeviceError, match=r"network, its input: it is on meta"):
        try_network(network(), torch.zeros(1, 1, 8, 8, device="meta"), 3, torch.device("cpu"))


def test_the_network_is_called_as_the_trainer_calls_it():
    class Doubled(SimpleInferer):
        def __call__(self, inputs, network, *args, **kwargs):
            return network(inputs.repeat(1, 2, 1, 1))

    warm_up(net=network(channels=2), inferer=Doubled())
    image = torch.rand(2, 1, 8, 8)
    net = network().eval()
    assert torch.equal(try_network(net, image, 3, torch.device("cpu")), net(image))
