"""A tiny training through the real parts, wired as train.json wires them, to be killed as a process of its own."""

import io
import json
import logging
import os
import sys
import time
import warnings
from pathlib import Path

import torch
from ignite.engine import Events
from ignite.metrics import MeanSquaredError
from monai.data import CacheDataset, DataLoader
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, ValidationHandler
from monai.transforms import Compose, EnsureTyped, RandGaussianNoised, RandScaleIntensityd
from monai.utils import set_determinism

from medseg.monitoring import History
from medseg.training import (
    Checkpoints,
    EpochSampler,
    ProgressBar,
    Resume,
    SanityValidation,
    SeededDataset,
    SetSamplerEpoch,
    TrainingRun,
    checkpoint_files,
)

CASES, DRAWS, BATCH, LENGTH = 6, 5, 4, 8  # the last batch of an epoch is half as large
STEPS, VALIDATING, STARTED = "steps.txt", "validating", "started"


class Tape:
    """The loss of each iteration and the score of each epoch, as a handler whose state survives."""

    def __init__(self, folder, validator, pause, pause_validation):
        self.folder, self.validator, self.losses, self.scores = folder, validator, [], []
        self.pause, self.pause_validation = pause, pause_validation

    def attach(self, engine):
        engine.state.stateful = getattr(engine.state, "stateful", None) or {}
        engine.state.stateful["tape"] = self
        engine.add_event_handler(Events.STARTED, lambda: (self.folder / STARTED).touch())
        engine.add_event_handler(Events.ITERATION_STARTED, self.step)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.loss)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: self.scores.append(self.validator.state.best_metric))
        self.validator.add_event_handler(Events.ITERATION_STARTED, self.look)

    def step(self, engine):
        with (self.folder / STEPS).open("a") as file:
            file.write(f"{engine.state.iteration}\n")
        time.sleep(self.pause)

    def look(self, engine):
        (self.folder / VALIDATING).touch()
        time.sleep(self.pause_validation)

    def loss(self, engine):
        self.losses.append(float(engine.state.output["loss"]))

    def state_dict(self):
        return {"losses": list(self.losses), "scores": list(self.scores)}

    def load_state_dict(self, state):
        self.losses, self.scores = list(state["losses"]), list(state["scores"])


def save_slowly(seconds):
    """Let each save take its time, half written, so that kills hit it."""
    save = torch.save

    def slow(content, file):
        buffer = io.BytesIO()
        save(content, buffer)
        data = buffer.getvalue()
        file.write(data[: len(data) // 2])
        file.flush()
        time.sleep(seconds)
        file.write(data[len(data) // 2 :])

    checkpoint_files.torch.save = slow


def train(
    folder,
    epochs=4,
    workers=0,
    accumulate=1,
    pause=0.0,
    pause_validation=0.0,
    slow=0.0,
    every_minutes=0.001,
    look=False,
):
    """Train in `folder`, or go on there; in a process group of its own."""
    os.setsid()
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.INFO, filename=os.devnull)
    torch.set_num_threads(1)
    set_determinism(0)
    if slow:
        save_slowly(slow)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = [{"image": torch.full((1, 8, 8), float(i)), "label": torch.full((1, 8, 8), i / CASES)} for i in range(CASES)]
    random = [
        RandScaleIntensityd("image", prob=1.0, factors=0.5),
        RandGaussianNoised("image", prob=1.0),
        EnsureTyped(["image", "label"], track_meta=False),
    ]
    dataset = CacheDataset(data, Compose(random), progress=False, copy_cache=False)
    sampler = EpochSampler(CASES, DRAWS, seed=1)
    forked = "fork" if sys.platform == "linux" else None  # what was imported is there
    options = {"persistent_workers": True, "multiprocessing_context": forked} if workers else {}
    loader = DataLoader(SeededDataset(dataset, 1), sampler=sampler, batch_size=BATCH, num_workers=workers, **options)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.BatchNorm2d(8), torch.nn.Dropout(0.3), torch.nn.Conv2d(8, 1, 1)
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
    validator = SupervisedEvaluator(
        torch.device("cpu"),
        DataLoader(data[:2], batch_size=1),
        network,
        key_val_metric={"mse": MeanSquaredError(lambda output: (output["pred"], output["label"]))},
        metric_cmp_fn=lambda new, best: new < best,
        decollate=False,
    )
    handlers = [
        SetSamplerEpoch(sampler),
        Resume(),
        LrScheduleHandler(scheduler, print_lr=False),
        *([SanityValidation(validator)] if look else []),
        ValidationHandler(1, validator),
        History(folder, validator, log_every_n_batches=2),
        Tape(folder, validator, pause, pause_validation),
        Checkpoints(
            folder / "checkpoints",
            network,
            optimizer,
            folder / "models" / "model.pt",
            scheduler,
            validator,
            every=1,
            keep=2,
            every_minutes=every_minutes,
        ),
        ProgressBar(validator),
    ]
    trainer = SupervisedTrainer(
        torch.device("cpu"),
        epochs,
        loader,
        network,
        optimizer,
        torch.nn.MSELoss(),
        train_handlers=handlers,
        decollate=False,
        accumulation_steps=accumulate,
    )
    TrainingRun(folder, "one", {"name": "tiny"}).train(trainer)


def steps(folder):
    """The iterations that were begun, in the order in which they were."""
    path = Path(folder) / STEPS
    return [int(line) for line in path.read_text().split()] if path.is_file() else []


def losses(folder):
    """The mean losses in the run's history."""
    return json.loads((Path(folder) / "training_history.json").read_text())["loss"]
