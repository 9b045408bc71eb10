"""What a run needs around MONAI's trainer: device, random state, order of samples, checkpoints, identity."""

from medseg.training.backup import Backup
from medseg.training.checkpoints import Checkpoints, Resume
from medseg.training.device import default_workers, keep_freed_memory, prepare, select_device, share_cores
from medseg.training.handlers import (
    AttachHandlers,
    EarlyStopping,
    LrSchedule,
    Validation,
    require_patience,
    steps_per_epoch,
)
from medseg.training.nan_guard import NanGuard
from medseg.training.progress import ProgressBar
from medseg.training.run import TrainingRun
from medseg.training.sanity import DryRun, SanityValidation, try_network
from medseg.training.seeding import EpochSampler, SampleKey, SeededDataset, SetSamplerEpoch, seeded_loader
from medseg.training.signals import Interrupted, Interruption
from medseg.training.step import ClipGradients, PrecisionInferer, PrepareBatch, has_bf16

__all__ = [
    "AttachHandlers",
    "Backup",
    "Checkpoints",
    "ClipGradients",
    "DryRun",
    "EarlyStopping",
    "EpochSampler",
    "Interrupted",
    "Interruption",
    "LrSchedule",
    "NanGuard",
    "PrecisionInferer",
    "PrepareBatch",
    "ProgressBar",
    "Resume",
    "SampleKey",
    "SanityValidation",
    "SeededDataset",
    "SetSamplerEpoch",
    "TrainingRun",
    "Validation",
    "default_workers",
    "has_bf16",
    "keep_freed_memory",
    "prepare",
    "require_patience",
    "seeded_loader",
    "select_device",
    "share_cores",
    "steps_per_epoch",
    "try_network",
]
