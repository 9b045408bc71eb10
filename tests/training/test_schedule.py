"""The learning rate of a run is that of a plain loop in torch."""

import pytest
import torch
from monai.engines import SupervisedTrainer

from medseg.training import LrSchedule
from medseg.training.handlers import steps_per_epoch


def parts(make):
    torch.manual_seed(0)
    network = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    return network, optimizer, make(optimizer)


def batches(count):
    rng = torch.Generator().manual_seed(1)
    return [{"image": torch.rand(4, 2, generator=rng), "label": torch.rand(4, 1, generator=rng)} for _ in range(count)]


def trained(make, length, epochs, accumulation, epoch_level):
    """The rate at which each batch was computed with, and at last."""
    network, optimizer, scheduler = parts(make)
    rates = []

    def loss(prediction, truth):
        rates.append(optimizer.param_groups[0]["lr"])
        return torch.nn.functional.mse_loss(prediction, truth)

    SupervisedTrainer(
        torch.device("cpu"),
        epochs,
        batches(length),
        network,
        optimizer,
        loss,
        train_handlers=[LrSchedule(scheduler, epoch_level)],
        accumulation_steps=accumulation,
        decollate=False,
    ).run()
    return [*rates, optimizer.param_groups[0]["lr"]], scheduler


def plain(make, length, epochs, accumulation, epoch_level):
    network, optimizer, scheduler = parts(make)
    rates, data = [], batches(length)
    for _ in range(epochs):
        for number, batch in enumerate(data, 1):
            rates.append(optimizer.param_groups[0]["lr"])
            loss = torch.nn.functional.mse_loss(network(batch["image"]), batch["label"])
            (loss / accumulation).backward()
            if number % accumulation == 0 or number == length:
                optimizer.step()
                optimizer.zero_grad()
                if not epoch_level:
                    scheduler.step()
        if epoch_level:
            scheduler.step()
    return [*rates, optimizer.param_groups[0]["lr"]]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("length", "accumulation"), [(7, 3), (6, 3), (5, 1), (2, 3)])
def test_a_schedule_by_steps_steps_when_the_optimizer_does(length, accumulation):
    total = 3 * steps_per_epoch(length, accumulation)

    def one_cycle(optimizer):
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total, pct_start=0.3, final_div_factor=1e4)

    found, scheduler = trained(one_cycle, length, 3, accumulation, False)
    assert found == plain(one_cycle, length, 3, accumulation, False)
    assert scheduler.last_epoch == total
    assert len(set(found)) == total + 1  # one for each step, and what comes after the last
    with pytest.raises(ValueError, match=f"Tried to step {total + 1} times"):
        scheduler.step()


@pytest.mark.filterwarnings("error")
def test_a_schedule_by_epochs_steps_after_each():
    def halved(optimizer):
        return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

    found, _ = trained(halved, 4, 3, 3, True)
    assert found == plain(halved, 4, 3, 3, True)
    assert found == pytest.approx([0.1] * 4 + [0.05] * 4 + [0.025] * 4 + [0.0125])


@pytest.mark.parametrize(("count", "accumulation", "steps"), [(12, 1, 12), (12, 4, 3), (13, 4, 4), (1, 4, 1)])
def test_the_steps_of_an_epoch(count, accumulation, steps):
    assert steps_per_epoch(count, accumulation) == steps
