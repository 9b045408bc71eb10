"""Trial runs before the first epoch: what does not fit shows now, and not after hours."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import list_data_collate

from medseg.errors import ConfigError, DeviceError, MedsegError
from medseg.training.seeding import rng_kept

logger = logging.getLogger(__name__)


class DryRun:
    """Take the first training sample through everything that a step does, but for the step.

    Not `SanityValidation`, which tries what follows an epoch. What does not fit is named: where the network lies and
    where its input, the shapes of image, output and label, a loss that is no number. The run's chance is the same after
    it as before, and so are the weights.

    Args:
        dataset: of the training; its first item is taken.
        out_channels: of the network.
    """

    affects_result = False  # see medseg.bundle.run_identity

    def __init__(self, dataset: Sequence[Any], out_channels: int) -> None:
        self.dataset, self.out_channels = dataset, out_channels

    def attach(self, engine: Any) -> None:
        """Try it when the trainer starts."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Any) -> None:
        """Try it.

        Raises:
            DeviceError: weights that do not lie where the run computes.
            ConfigError: anything else that does not fit.
        """
        network, device = engine.network, torch.device(engine.state.device)
        with rng_kept(), torch.no_grad():
            batch = list_data_collate([self.dataset[0]])
            image, target = engine.prepare_batch(batch, device, engine.non_blocking)
            training = network.training
            try:
                logits = try_network(network.eval(), image, self.out_channels, device, engine.amp, engine.inferer)
                loss = _loss(engine.loss_function, logits, target)
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
    """What a network says of one batch; an error that says what does not fit.

    Args:
        network: on `device`.
        image: `(B, C, *spatial)`, on `device`.
        out_channels: that it must give, at the image's size.
        device: where all of it must lie.
        amp: whether CUDA computes in half precision.
        inferer: calls the network, as a trainer's does; None calls it itself.

    Raises:
        DeviceError: weights or image that lie elsewhere; ConfigError: an image it cannot take, an output of another
        shape or with NaN in it.
    """
    for name, tensor in [*network.named_parameters(), *network.named_buffers(), ("its input", image)]:
        if tensor.device.type != device.type or (device.index is not None and tensor.device.index != device.index):
            raise DeviceError(
                f"network, {name}", f"must lie on {device}, where the run computes", str(tensor.device),
                "Move the network as a whole: network.to(device).",
            )  # fmt: skip
    shape = tuple(image.shape)
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=amp and device.type == "cuda"):
            logits = network(image) if inferer is None else inferer(image, network)
    except MedsegError:
        raise
    except Exception as error:  # whatever a network raises at an input that it was not made for
        found = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise ConfigError("network", f"must take an image of shape {shape}", found, "See in_channels.") from error
    wanted = (shape[0], out_channels, *shape[2:])
    if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != wanted:
        came = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ConfigError(
            "network", f"must give logits of shape {wanted} for an image of {shape}", str(came), "See out_channels."
        )
    if not bool(torch.isfinite(logits).all()):
        raise ConfigError(
            "network", "must give finite logits", "NaN or infinite ones", "See the weights it begins with."
        )
    return logits


def _loss(function: Any, logits: torch.Tensor, target: Any) -> float:
    label = target["label"] if isinstance(target, dict) else target
    if label.shape[2:] != logits.shape[2:]:
        raise ConfigError(
            "label", f"must have the size of the image, {tuple(logits.shape[2:])}", str(tuple(label.shape[2:]))
        )
    try:
        value = float(function(logits, target))
    except MedsegError:
        raise
    except Exception as error:
        found = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        rule = f"must take logits {tuple(logits.shape)} and labels {tuple(label.shape)}"
        raise ConfigError("loss", rule, found) from error
    if value != value:
        raise ConfigError("loss", "must be a number for the first sample", "NaN")
    return value


class SanityValidation:
    """Run the validator over one batch before training starts, then forget what it measured.

    Not MONAI's `ValidationHandler(exec_at_start=...)`: that one runs every volume, and its score of an
    untrained network stays as the best so far.

    While it runs, `validator.state.first_look` is True. The run's chance is the same after it as before.

    Args:
        validator: a MONAI evaluator.
    """

    affects_result = False  # see medseg.bundle.resuming

    def __init__(self, validator: Any) -> None:
        self.validator = validator

    def attach(self, engine: Engine) -> None:
        """Run when the trainer starts."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Validate one batch, unless the run goes on from a checkpoint."""
        state = self.validator.state
        if not state.epoch_length or engine.state.iteration:
            return
        logger.info("Checking validation with one batch before the first epoch")
        kept = state.epoch_length, state.best_metric, state.best_metric_epoch
        state.epoch_length, state.first_look = 1, True
        try:
            with rng_kept():
                self.validator.run(1)
        finally:
            state.epoch_length, state.best_metric, state.best_metric_epoch = kept
            state.first_look = False
            state.metrics.clear()
            state.metric_details.clear()
