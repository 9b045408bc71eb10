"""The loss, the metric and the inferer in training loops that are not medseg's."""

import lightning
import pytest
import torch
from ignite.engine import Engine
from monai.networks.nets import BasicUNet
from torch.utils.data import DataLoader

from medseg.inference import StreamingInferer
from medseg.labels import LabelMap
from medseg.losses import DiceCELoss
from medseg.metrics import DiceScore, VolumeDice

FEATURES = (4, 4, 8, 8, 8, 4)
LIGHTNING_WARNINGS = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:UserWarning",
    "ignore:.*isinstance.treespec, LeafSpec:FutureWarning",
    "ignore:GPU available but not used:UserWarning",
)


def network():
    torch.manual_seed(0)
    return BasicUNet(2, 1, 3, features=FEATURES)


def batches(count=6):
    """Return images whose brightness tells the class, so that a few steps learn something."""
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(2, 1, 32, 32, generator=generator) for _ in range(count)]
    return [{"image": image, "label": (image > 0.4).long() + (image > 0.7).long()} for image in images]


def test_a_plain_pytorch_loop():
    net, loss, metric = network(), DiceCELoss(), DiceScore(3)
    optimizer, losses = torch.optim.AdamW(net.parameters(), lr=1e-2), []
    for batch in batches() * 2:
        optimizer.zero_grad()
        value = loss(net(batch["image"]), batch["label"])
        value.backward()
        optimizer.step()
        losses.append(value.item())
        metric.update(net(batch["image"]), batch["label"])
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert 0 < float(metric.compute()) < 1
    labels = StreamingInferer((32, 32))(torch.rand(1, 1, 32, 32, 3), net)
    assert labels.shape == (1, 1, 32, 32, 3)


def test_plain_ignite_engines():
    net, loss, losses = network(), DiceCELoss(), []
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)

    def step(engine, batch):
        optimizer.zero_grad()
        value = loss(net(batch["image"]), batch["label"])
        value.backward()
        optimizer.step()
        losses.append(value.item())

    inferer = StreamingInferer((32, 32))
    evaluator = Engine(lambda engine, batch: (list(inferer(batch["image"], net)), list(batch["label"])))
    VolumeDice(LabelMap(["liver", "spleen"])).attach(evaluator, "dice")
    Engine(step).run(batches(), max_epochs=2)
    evaluator.run(batches(1))
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert 0 < evaluator.state.metrics["dice"] < 1
    assert set(evaluator.state.metric_details["dice"]["by_structure"]) == {"liver", "spleen"}


class Segmenter(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.network, self.loss, self.dice = network(), DiceCELoss(), DiceScore(3)
        self.inferer, self.losses = StreamingInferer((32, 32)), []

    def training_step(self, batch, index):
        loss = self.loss(self.network(batch["image"]), batch["label"])
        self.losses.append(loss.item())
        return loss

    def validation_step(self, batch, index):
        self.dice.update(self.inferer(batch["image"], self.network), batch["label"])

    def on_validation_epoch_end(self):
        self.log("dice", self.dice.compute())
        self.dice.reset()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


@LIGHTNING_WARNINGS
def test_lightning(tmp_path):
    module = Segmenter()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(max_epochs=2, num_sanity_val_steps=0, default_root_dir=tmp_path, **quiet)
    trainer.fit(module, *(DataLoader(part, batch_size=None) for part in (batches(), batches(1))))
    assert sum(module.losses[-3:]) < 0.8 * sum(module.losses[:3])
    assert 0 < float(trainer.callback_metrics["dice"]) < 1
