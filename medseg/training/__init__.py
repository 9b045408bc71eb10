"""What a run needs around MONAI's trainer: device, chance, order of samples, checkpoints, identity."""

from medseg.training.checkpoints import Checkpoints
from medseg.training.device import default_workers, prepare, select_device
from medseg.training.first_validation import FirstValidation
from medseg.training.progress import ProgressBar
from medseg.training.run import Run, find_unfinished
from medseg.training.seeding import EpochSampler, FollowEpochs, SampleKey, SeededDataset

__all__ = [
    "Checkpoints",
    "EpochSampler",
    "FirstValidation",
    "FollowEpochs",
    "ProgressBar",
    "Run",
    "SampleKey",
    "SeededDataset",
    "default_workers",
    "find_unfinished",
    "prepare",
    "select_device",
]
