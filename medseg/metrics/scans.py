"""Dice of whole scans whose slices come one by one, in any order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ignite.metrics.metric import reinit__is_reduced

from medseg.labels import LabelMap
from medseg.metrics.overlap import Overlap
from medseg.metrics.volumes import VolumeDice, annotated_mask, annotated_of_batch, overlap_of_case


class ScanDice(VolumeDice):
    """`VolumeDice` of scans: the pixels of all slices of a scan are counted together first.

    Not `VolumeDice` itself, for which every slice is a case of its own: there a structure of a few pixels, missed in
    the one slice where it begins, weighs as much as the rest of the organ. A slice that belongs to no scan is a case of
    its own. The slices of a scan must be on one rank.

    Args:
        labels: the classes.
        output_transform: see `VolumeDice`.
        multilabel: whether structures are channels of their own.
        key: what of an item says which scan it is of; where that is empty, its `case`.
    """

    def __init__(
        self,
        labels: LabelMap,
        output_transform: Callable[..., Any] = lambda output: output,
        multilabel: bool = False,
        key: str = "scan",
    ) -> None:
        self.key = key
        super().__init__(labels, output_transform, multilabel)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget all scans."""
        super().reset()
        self._scans: dict[str, Overlap] = {}

    @reinit__is_reduced
    def update(self, output: Sequence[Any]) -> None:
        """Take in some slices: predictions, truths, who is annotated in each, and the scan of each.

        Without the last two all is annotated, and each slice is a scan of its own.
        """
        count = len(output[1])
        annotated = output[2] if len(output) > 2 else [None] * count
        scans = output[3] if len(output) > 3 else [""] * count
        for prediction, truth, names, scan in zip(output[0], output[1], annotated, scans, strict=True):
            held = annotated_mask(self.labels, names)
            found = overlap_of_case(prediction, truth, self.labels, held, self.multilabel)
            name = scan or f"\0{len(self._scans)}"
            self._scans[name] = _together(self._scans[name], found) if name in self._scans else found

    def iteration_completed(self, engine: Any) -> None:
        """Take in what an engine made of a batch, with what the batch says of each slice."""
        output, batch = self._output_transform(engine.state.output), engine.state.batch
        count = len(output[1])
        annotated = output[2] if len(output) > 2 else annotated_of_batch(batch, count)
        self.update((output[0], output[1], annotated, scans_of_batch(batch, count, self.key)))

    def compute(self) -> float:
        """The mean over all structures that were present anywhere; NaN where none was."""
        found = dict(self._scans)
        super().reset()
        for one in found.values():
            self._add(one.dice[None], one.states)
        self._scans = found
        return super().compute()


def scans_of_batch(batch: Any, count: int, key: str = "scan") -> list[str]:
    """The scan of each item of a batch, collated or a list of items; of an item without one its case, or nothing."""
    if isinstance(batch, Mapping):
        scans, cases = (batch.get(name) or [""] * count for name in (key, "case"))
        return [str(scan or case) for scan, case in zip(scans, cases, strict=True)]
    if isinstance(batch, Sequence) and len(batch) == count and all(isinstance(item, Mapping) for item in batch):
        return [str(item.get(key) or item.get("case") or "") for item in batch]
    return [""] * count


def _together(one: Overlap, other: Overlap) -> Overlap:
    return Overlap(
        one.both + other.both,
        one.predicted + other.predicted,
        one.true + other.true,
        np.asarray(one.annotated | other.annotated),
    )
