"""What a run needs around MONAI's trainer: device, chance, order of samples, checkpoints, identity."""

from medseg.training.allocator import keep_freed_memory
from medseg.training.attach import AttachHandlers
from medseg.training.backup import Backup
from medseg.training.batch import PrepareBatch
from medseg.training.checkpoints import Checkpoints, Resume
from medseg.training.clip import ClipGradients
from medseg.training.device import default_workers, prepare, select_device
from medseg.training.dry_run import DryRun, try_network
from medseg.training.early_stopping import EarlyStopping, require_patience
from medseg.training.inferer import PrecisionInferer, has_bf16
from medseg.training.nan_guard import NanGuard
from medseg.training.progress import ProgressBar
from medseg.training.run import TrainingRun
from medseg.training.sanity_validation import SanityValidation
from medseg.training.schedule import LrSchedule, steps_per_epoch
from medseg.training.seeding import EpochSampler, SampleKey, SeededDataset, SetSamplerEpoch, seeded_loader
from medseg.training.signals import Interrupted, Interruption

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
    "default_workers",
    "has_bf16",
    "keep_freed_memory",
    "prepare",
    "require_patience",
    "seeded_loader",
    "select_device",
    "steps_per_epoch",
    "try_network",
]
