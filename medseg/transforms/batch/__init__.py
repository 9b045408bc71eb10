"""Random augmentation of 2D batches: drawn for each sample where it is made, done to the batch where it is used."""

from medseg.transforms.batch.augment import AugmentBatch, augment_batch
from medseg.transforms.batch.draws import Draws, RandAugmentd

__all__ = ["AugmentBatch", "Draws", "RandAugmentd", "augment_batch"]
