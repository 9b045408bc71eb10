"""Every handler works on a plain Ignite engine, and seeding and augmentation in a plain PyTorch loop."""

import pytest
import torch
from ignite.engine import Engine, Events, create_supervised_evaluator
from ignite.metrics import Loss
from monai.data import CacheDataset
from monai.transforms import Compose

from medseg.errors import TrainingError
from medseg.training import (
    AttachHandlers,
    Checkpoints,
    ClipGradients,
    DryRun,
    EarlyStopping,
    LrSchedule,
    NanGuard,
    ProgressBar,
    Resume,
    SanityValidation,
    SetSamplerEpoch,
    seeded_loader,
)
from medseg.transforms import AugmentBatch, RandAugmentd


def training(tmp_path, broken=False, **options):
    """A network, its plain Ignite trainer, and all handlers by name."""
    items = [{"image": torch.rand(1, 4, 4), "label": torch.rand(1, 4, 4)} for _ in range(4)]
    loader = seeded_loader(CacheDataset(items, Compose([]), progress=False), batch_size=2, samples_per_case=2)
    network = torch.nn.Conv2d(1, 1, 1)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    loss_function = torch.nn.MSELoss()

    def step(engine, batch):
        optimizer.zero_grad()
        loss = loss_function(network(batch["image"]), batch["label"])
        if broken:
            loss = loss * float("nan")
        loss.backward()
        optimizer.step()
        return loss.item()

    trainer = Engine(step)
    pairs = [(item["image"][None], item["label"][None]) for item in items]
    validator = create_supervised_evaluator(network, {"loss": Loss(loss_function)})
    handlers = {
        "epochs": SetSamplerEpoch(loader.sampler),
        "resume": Resume(),
        "dry_run": DryRun(items, 1, network, loss_function),
        "clip": ClipGradients(optimizer, 1.0),
        "nan_guard": NanGuard(optimizer, tmp_path, loader.sampler),
        "sanity_validation": SanityValidation(validator, pairs),
        "early_stopping": EarlyStopping(validator, patience=9),
        "lr_schedule": LrSchedule(torch.optim.lr_scheduler.StepLR(optimizer, 1)),
        "checkpoints": Checkpoints(tmp_path / "checkpoints", network, optimizer, tmp_path / "model.pt", every=1),
        "progress": ProgressBar(),
        **options,
    }
    AttachHandlers(handlers).attach(trainer)
    return network, trainer, loader


def test_every_handler_attaches_to_a_plain_engine_and_a_run_resumes(tmp_path):
    network, trainer, loader = training(tmp_path)
    state = trainer.run(loader, max_epochs=2)
    assert (state.epoch, state.iteration) == (2, 8)
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(saved[name], weight) for name, weight in network.state_dict().items())
    epochs = []
    _, trainer, loader = training(tmp_path)
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda engine: epochs.append(engine.state.epoch))
    trainer.run(loader, max_epochs=3)
    assert epochs == [3]


def test_a_loss_of_a_plain_engine_that_is_nan_stops_the_run(tmp_path):
    _, trainer, loader = training(tmp_path, broken=True)
    with pytest.raises(TrainingError, match="epoch 1, iteration 1: loss or gradient is not finite"):
        trainer.run(loader, max_epochs=1)


def test_seeding_and_augmentation_in_a_plain_loop():
    items = [{"image": torch.rand(1, 8, 8), "label": torch.zeros(1, 8, 8)} for _ in range(3)]
    augment = RandAugmentd(noise={"prob": 1.0, "std": 0.1})
    data = CacheDataset(items, Compose([augment]), progress=False)
    batches = []
    for _ in range(2):
        loader = seeded_loader(data, batch_size=3, seed=5)
        loader.sampler.set_position(epoch=2)
        for batch in loader:
            images, _ = AugmentBatch(augment)(batch)
            batches.append(images)
    assert torch.equal(*batches)
    assert not torch.equal(batches[0], torch.stack([item["image"] for item in items]))
