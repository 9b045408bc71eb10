"""Trial runs before the first epoch: what does not fit shows now, and not after hours."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import list_data_collate
from monai.engines import default_prepare_batch

from medseg.errors import ConfigError, DeviceError, MedsegError
from medseg.training.seeding import rng_kept

logger = logging.getLogger(__name__)


class DryRun:
    """Take the first training sample through everything that a step does, except the step itself.

    Not `SanityValidation`, which tries what follows an epoch. An error names what does not fit: the devices of network
    and input, the shapes of image, output and label, a loss that is NaN. Random state and weights are the same after it
    as before.

    Args:
        dataset: of the training; its first item is taken.
        out_channels: of the network.
        network: the network; by default the trainer's, as MONAI's has it.
        loss: the loss; by default the trainer's.
    """

    affects_result = False  # see medseg.bundle.run_identity

    def __init__(
        self, dataset: Sequence[Any], out_channels: int, network: torch.nn.Module | None = None, loss: Any = None
    ) -> None:
        self.dataset = dataset
        self.out_channels = out_channels
        self.network = network
        self.loss = loss

    def attach(self, engine: Any) -> None:
        """Run when the trainer starts."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Any) -> None:
        """Try one sample.

        Raises:
            DeviceError: weights that are not where the run computes.
            ConfigError: anything else that does not fit.
        """
        network = self.network or engine.network
        loss_function = self.loss or engine.loss_function
        device = torch.device(getattr(engine.state, "device", None) or next(network.parameters()).device)
        prepare = getattr(engine, "prepare_batch", default_prepare_batch)
        with rng_kept(), torch.no_grad():
            batch = list_data_collate([self.dataset[0]])
            image, target = prepare(batch, device, getattr(engine, "non_blocking", False))
            training = network.training
            try:
                amp, inferer = getattr(engine, "amp", False), getattr(engine, "inferer", None)
                logits = try_network(network.eval(), image, self.out_channels, device, amp, inferer)
                loss = _loss(loss_function, logits, target)
            finally:
                network.train(training)
        logger.info("One sample went through: %s to %s, loss %.3f", tuple(image.shape), tuple(logits.shape), loss)


def try_network(
    network: torch.nn.Module,
    image: torch.Tensor,
    out_channels: int,
    device: torch.device,
    amp: bool = False,
    inferer: Any = None,
) -> torch.Tensor:
    """Return a network's output for one batch, or raise an error that says what does not fit.

    Args:
        network: on `device`.
        image: `(B, C, *spatial)`, on `device`.
        out_channels: of the output, which must have the image's size.
        device: where weights and image must be.
        amp: whether CUDA computes in half precision.
        inferer: calls the network, as a trainer's does; None calls it directly.

    Raises:
        DeviceError: weights or the image are elsewhere.
        ConfigError: the network does not take the image, or its output has another shape or holds NaN.
    """
    for name, tensor in [*network.named_parameters(), *network.named_buffers(), ("its input", image)]:
        if tensor.device.type != device.type or (device.index is not None and tensor.device.index != device.index):
            problem = f"it is on {tensor.device}, and the run computes on {device}"
            raise DeviceError(f"network, {name}", problem, "", "Move the whole network: network.to(device).")
    shape = tuple(image.shape)
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=amp and device.type == "cuda"):
            logits = network(image) if inferer is None else inferer(image, network)
    except MedsegError:
        raise
    except Exception as error:  # whatever a network raises for an input that it was not made for
        problem = f"it does not take an image of shape {shape}: {_first_line(error)}"
        raise ConfigError("network", problem, "", "Check in_channels.") from error
    expected = (shape[0], out_channels, *shape[2:])
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != expected:
        came = str(tuple(logits.shape)) if isinstance(logits, torch.Tensor) else type(logits).__name__
        problem = f"its output for an image of {shape} must have the shape {expected}"
        raise ConfigError("network", problem, f"got {came}", "Check out_channels.")
    if not bool(torch.isfinite(logits).all()):
        raise ConfigError("network", "its output holds NaN or infinity", "", "Check the weights it starts with.")
    return logits


def _loss(function: Any, logits: torch.Tensor, target: Any) -> float:
    label = target["label"] if isinstance(target, dict) else target
    if label.shape[2:] != logits.shape[2:]:
        size, expected = tuple(label.shape[2:]), tuple(logits.shape[2:])
        raise ConfigError("label", f"it must have the size of the image, {expected}", f"got {size}")
    try:
        value = float(function(logits, target))
    except MedsegError:
        raise
    except Exception as error:
        shapes = f"logits {tuple(logits.shape)} and labels {tuple(label.shape)}"
        raise ConfigError("loss", f"it does not take {shapes}: {_first_line(error)}") from error
    if value != value:
        raise ConfigError("loss", "it is NaN for the first sample", "", "Check the image and the label of that case.")
    return value


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".rstrip(".")


class SanityValidation:
    """Run the validator over one batch before training starts, then forget what it measured.

    Not MONAI's `ValidationHandler(exec_at_start=...)`: that one runs every volume, and its score of an untrained
    network stays as the best so far. While it runs, `validator.state.sanity_check` is True. The random state is the
    same after it as before.

    Args:
        validator: an evaluator, MONAI's or Ignite's.
        data: what a plain Ignite evaluator runs over; MONAI's has its own.
    """

    affects_result = False  # see medseg.bundle.run_identity

    def __init__(self, validator: Any, data: Any = None) -> None:
        self.validator = validator
        self.data = data

    def attach(self, engine: Engine) -> None:
        """Run when the trainer starts."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Validate one batch, unless the run resumes from a checkpoint."""
        state = self.validator.state
        if engine.state.iteration or not (state.epoch_length or self.data):
            return
        logger.info("Checking validation with one batch before the first epoch")
        names = ("epoch_length", "best_metric", "best_metric_epoch")
        before = {name: getattr(state, name) for name in names if hasattr(state, name)}
        state.sanity_check = True
        try:
            with rng_kept():
                if self.data is not None:
                    self.validator.run(self.data, max_epochs=1, epoch_length=1)
                else:
                    state.epoch_length = 1
                    self.validator.run(1)
        finally:
            state = self.validator.state
            for name, value in before.items():
                setattr(state, name, value)
            state.sanity_check = False
            state.metrics.clear()
            getattr(state, "metric_details", {}).clear()
