"""The handlers of a training, by name: what every recipe attaches, each to be changed or switched off."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, get_type_hints

import torch

from medseg.errors import ConfigError, did_you_mean
from medseg.monitoring import Histograms, History, Monitor, System
from medseg.training import (
    Checkpoints,
    ClipGradients,
    DryRun,
    EarlyStopping,
    EpochSampler,
    LrSchedule,
    NanGuard,
    ProgressBar,
    Resume,
    SanityValidation,
    SetSamplerEpoch,
    TrainingRun,
    Validation,
)

# What may stand under the name of a handler: its settings, false or null to leave it out, or a handler of another kind.
Settings = Mapping[str, Any] | bool | None | Any
DISABLED = "_disabled_"


def default_handlers(
    run: TrainingRun,
    loader: Any,
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    validator: Any,
    lr_scheduler: Any | None = None,
    labels: Sequence[str] = (),
    epochs: Annotated[Settings, SetSamplerEpoch] = True,
    resume: Annotated[Settings, Resume] = True,
    dry_run: Annotated[Settings, DryRun] = True,
    clip: Annotated[Settings, ClipGradients] = True,
    nan_guard: Annotated[Settings, NanGuard] = True,
    sanity_validation: Annotated[Settings, SanityValidation] = True,
    validation: Annotated[Settings, Validation] = True,
    early_stopping: Annotated[Settings, EarlyStopping] = True,
    history: Annotated[Settings, History] = True,
    lr_schedule: Annotated[Settings, LrSchedule] = True,
    system: Annotated[Settings, System] = True,
    histograms: Annotated[Settings, Histograms] = True,
    checkpoints: Annotated[Settings, Checkpoints] = True,
    monitor: Annotated[Settings, Monitor] = True,
    progress: Annotated[Settings, ProgressBar] = True,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the handlers of a training by name, in the order in which they are attached.

    The order matters: `resume` loads before any other handler starts, what measures comes before what saves, and a
    schedule steps after the learning rate of the step was recorded. Settings that the run decides (its folder, the
    optimizer, the validator ...) cannot be given again.

    Args:
        run: where the handlers write, and its backup; see `medseg.bundle.start_run`.
        loader: the data loader of the training, see `medseg.training.seeded_loader`.
        network: the network.
        optimizer: its optimizer.
        validator: the evaluator whose key metric decides which epoch is best.
        lr_scheduler: what `lr_schedule` steps; None leaves that handler out.
        labels: names of the structures, for the history.
        epochs: settings of `medseg.training.SetSamplerEpoch`; a mapping of its arguments, as for all that follow.
        resume: of `medseg.training.Resume`.
        dry_run: of `medseg.training.DryRun`; left out while `out_channels` is not given.
        clip: of `medseg.training.ClipGradients`; left out while `max_norm` is not given.
        nan_guard: of `medseg.training.NanGuard`.
        sanity_validation: of `medseg.training.SanityValidation`.
        validation: of `medseg.training.Validation`; every epoch by default.
        early_stopping: of `medseg.training.EarlyStopping`; left out while `patience` is not given.
        history: of `medseg.monitoring.History`.
        lr_schedule: of `medseg.training.LrSchedule`.
        system: of `medseg.monitoring.System`.
        histograms: of `medseg.monitoring.Histograms`.
        checkpoints: of `medseg.training.Checkpoints`.
        monitor: of `medseg.monitoring.Monitor`.
        progress: of `medseg.training.ProgressBar`.
        more: further handlers by name, attached last.

    Raises:
        ConfigError: a setting that the run decides, or that its handler does not take.

    Example:
        >>> handlers = default_handlers(
        ...     run, loader, network, optimizer, evaluator, progress=False, clip={"max_norm": 12}
        ... )  # doctest: +SKIP
        >>> for handler in handlers.values():  # doctest: +SKIP
        ...     handler.attach(trainer)
    """
    if not isinstance(run, TrainingRun):
        raise ConfigError(
            "handler_set, run",
            "the handlers write to the folder of a run",
            f"got {type(run).__name__}",
            "Give what medseg.bundle.start_run returns.",
        )
    sampler = loader.sampler if isinstance(loader.sampler, EpochSampler) else None
    folder, size = run.folder, loader.batch_size
    evaluated = {"validator": validator}
    written = {"folder": folder}
    # By name: what is asked for, what the run decides, and which settings the handler is left out without.
    plan: dict[str, tuple[Settings, dict[str, Any], tuple[str, ...]]] = {
        "epochs": (epochs if sampler is not None else None, {"sampler": sampler, "batch_size": size}, ()),
        "resume": (resume, {}, ()),
        "dry_run": (dry_run, {"dataset": getattr(loader.dataset, "dataset", loader.dataset)}, ("out_channels",)),
        "clip": (clip, {"optimizer": optimizer}, ("max_norm",)),
        "nan_guard": (nan_guard, {**written, "optimizer": optimizer, "sampler": sampler}, ()),
        "sanity_validation": (sanity_validation, evaluated, ()),
        "validation": (validation, evaluated, ()),
        "early_stopping": (early_stopping, evaluated, ("patience",)),
        "history": (history, {**written, **evaluated, "structures": tuple(labels)}, ()),
        "lr_schedule": (lr_schedule if lr_scheduler is not None else None, {"lr_scheduler": lr_scheduler}, ()),
        "system": (system, {**written, **evaluated}, ()),
        "histograms": (histograms, written, ()),
        "checkpoints": (
            checkpoints,
            {
                **evaluated,
                "folder": folder / "checkpoints",
                "model_path": folder / "models" / "model.pt",
                "network": network,
                "optimizer": optimizer,
                "lr_scheduler": lr_scheduler,
                "backup": run.backup,
            },
            (),
        ),
        "monitor": (monitor, written, ()),
        "progress": (progress, evaluated, ()),
    }
    handlers: dict[str, Any] = {}
    for name, (settings, decided, required) in plan.items():
        handler = _handler(name, settings, decided, required)
        if handler is not None:
            handlers[name] = handler
    for name, handler in (more or {}).items():
        if name in plan:
            raise ConfigError(f"handler_set#more#{name}", "there is a default handler of this name", "", "Rename it.")
        if handler is not None:
            handlers[name] = handler
    return handlers


def handler_class(name: str) -> type[Any] | None:
    """Return the class of a default handler; None for a name that none of them has."""
    hint = get_type_hints(default_handlers, include_extras=True).get(name)
    metadata = getattr(hint, "__metadata__", ())
    return metadata[0] if metadata else None


def _handler(name: str, settings: Settings, decided: Mapping[str, Any], required: Sequence[str]) -> Any | None:
    """Make one handler of its settings; None where it is switched off, or lacks a setting it cannot do without."""
    if settings is None or settings is False:
        return None
    if hasattr(settings, "attach"):
        return settings  # a handler that the config made itself
    kind = handler_class(name)
    mapping = {} if settings is True else settings
    if kind is None or not isinstance(mapping, Mapping):
        raise ConfigError(
            f"handler_set#{name}",
            "this is neither settings nor a handler",
            f"got {settings!r}",
            "Give a mapping of settings, a handler, or false to leave it out.",
        )
    options = dict(mapping)
    if options.pop(DISABLED, False):
        return None
    parameters = _parameters(kind)
    for key in options:
        if key in decided:
            raise ConfigError(f"handler_set#{name}#{key}", "the run decides this setting", "", "Leave it out.")
        if key not in parameters:
            problem = f"{kind.__name__} has no such setting"
            raise ConfigError(f"handler_set#{name}#{key}", problem, "", did_you_mean(key, parameters))
    if any(options.get(key) is None for key in required):
        return None
    if name == "validation":
        options = {"interval": 1, "epoch_level": True, **options}
    try:
        return kind(**decided, **options)
    except TypeError as error:
        raise ConfigError(
            f"handler_set#{name}",
            f"{kind.__name__} does not take these settings: {error}",
            f"got {', '.join(options) or 'none'}",
            f"It takes {', '.join(parameter for parameter in parameters if parameter not in decided)}.",
        ) from error


def _parameters(kind: type[Any]) -> list[str]:

    return [name for name in inspect.signature(kind).parameters if name != "self"]
