"""F1 of pixels, pooled over all images: what sets of single slices are scored by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce

from medseg.labels import LabelMap
from medseg.metrics.volumes import annotated_mask, annotated_of_batch, overlap_of_case


class PixelF1(Metric):
    """F1 of each structure over the pixels of all images together, and its mean over the structures.

    Not the mean of a Dice for each image (`VolumeDice`): on single slices that one is 0 or 1 for structures of a few
    pixels, and has no value where there are none. Not scikit-learn's `f1_score(average="macro")` either: a structure
    in neither truth nor prediction has no value here, and is not in the mean. After each epoch
    `engine.state.metric_details[name]` holds `by_structure` and `cases`.

    Args:
        labels: the classes.
        output_transform: see `medseg.metrics.VolumeDice`.
        multilabel: whether structures are channels of their own.
    """

    def __init__(
        self, labels: LabelMap, output_transform: Callable[..., Any] = lambda output: output, multilabel: bool = False
    ) -> None:
        self.labels, self.multilabel = labels, multilabel
        super().__init__(output_transform, skip_unrolling=True)  # cases come as lists, and whole

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all images."""
        self._counts = torch.zeros((3, len(self.labels) - 1), dtype=torch.int64)
        self._cases = torch.zeros(1, dtype=torch.int64)

    @reinit__is_reduced
    def update(self, output: Sequence[Any]) -> None:
        """Take in the images of one batch: predictions, truths and, where it is known, who is annotated in each."""
        annotated = output[2] if len(output) > 2 else [None] * len(output[1])
        for prediction, truth, names in zip(output[0], output[1], annotated, strict=True):
            held = annotated_mask(self.labels, names)
            found = overlap_of_case(prediction, truth, self.labels, held, self.multilabel)
            true = found.true * found.annotated
            self._counts += torch.from_numpy(np.stack([found.both, found.predicted, true]).astype(np.int64))
            self._cases += 1

    def iteration_completed(self, engine: Any) -> None:
        """Take in what an engine made of a batch, with `annotated` of the batch where the output does not have it."""
        output = self._output_transform(engine.state.output)
        self.update(output if len(output) > 2 else (*output, annotated_of_batch(engine.state.batch, len(output[1]))))

    @sync_all_reduce("_counts", "_cases")
    def compute(self) -> float:
        """The mean over all structures that are anywhere; NaN where none is.

        Raises:
            NotComputableError: there was no image.
        """
        if not int(self._cases):
            raise NotComputableError("PixelF1 needs at least one image before it can be computed.")
        both, predicted, true = self._counts.cpu().double()
        self._scores = 2 * both / (predicted + true)  # 0/0 is NaN
        self._seen = int(self._cases)
        return float(self._scores.nanmean())

    def completed(self, engine: Any, name: str) -> None:
        """Put the mean and the details where handlers look for them."""
        super().completed(engine, name)
        if getattr(engine.state, "metric_details", None) is None:
            engine.state.metric_details = {}
        scores = [None if score != score else score for score in self._scores.tolist()]
        engine.state.metric_details[name] = {
            "by_structure": dict(zip(self.labels, scores, strict=True)),
            "cases": self._seen,
        }
