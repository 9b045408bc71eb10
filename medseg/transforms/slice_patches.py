"""2D training patches out of whole volumes, with rare structures drawn as often as common ones.

Not MONAI's `RandCropByLabelClassesd`: that one looks through the whole volume for every class at each draw, or
keeps the indices of all voxels of all classes in memory; with 118 classes either costs more than the network.
Here each volume is searched once, and only which slices hold which class is remembered.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from medseg.errors import DataError, LabelError

INDEX, ANNOTATED = "slice_index", "annotated"


def _plane(volume: Any, k: int) -> torch.Tensor:
    """Return slice `k` of a volume, `(C, I, J)`; of a volume on disk (with `read_slice`) only that is read."""
    if hasattr(volume, "read_slice"):
        return torch.from_numpy(volume.read_slice(k))[None]
    return _plain(volume)[..., k]


def _plain(volume: Any) -> torch.Tensor:
    """Return the tensor without MONAI's metadata, whose bookkeeping at every slice costs more than the slice."""
    tensor = torch.as_tensor(volume)
    return tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor


def _codes_with(item: Mapping[Hashable, Any], structure: int) -> torch.Tensor:
    """Return the label values of a structure: itself, or every combination that contains it."""
    if "combinations" not in item:
        return torch.tensor([structure])
    codes = [code for code, channels in enumerate(item["combinations"]) if structure - 1 in channels]
    return torch.tensor(codes, dtype=torch.long)


class IndexSlicesd(MapTransform):
    """Note which slices along the last axis hold which structure, for `RandSlicePatchd`.

    Deterministic, so that CacheDataset runs it once. Adds `slice_index`, a bool array `(structures, K)`
    without the background, and sees that no label is out of range. Tensors of the label's size keep shape and
    values, and lie slice by slice in memory afterwards, so that a slice is read in one go.

    Args:
        keys: the label `(1, I, J, K)`: class indices, or codes where the item holds `combinations`.
        num_classes: classes, background included.

    Raises:
        LabelError: a label that is negative or not below `num_classes`; names the case.
    """

    def __init__(self, keys: KeysCollection, num_classes: int) -> None:
        super().__init__(keys)
        self.num_classes = num_classes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add the index to the item."""
        item = dict(data)
        shape = item[self.first_key(item)].shape
        for key, value in item.items():
            if isinstance(value, torch.Tensor) and value.shape[1:] == shape[1:]:
                item[key] = value.movedim(-1, 0).contiguous().movedim(0, -1)
        label = _plain(item[self.first_key(item)])[0]
        values = len(item["combinations"]) if "combinations" in item else self.num_classes
        lowest, highest = int(label.min()), int(label.max())
        if lowest < 0 or highest >= values:
            raise LabelError(
                f"case {item.get('case', '?')}",
                f"its labels must be from 0 to {values - 1}",
                f"got {lowest} to {highest}",
            )
        occurs = torch.zeros(values, label.shape[-1], dtype=torch.bool)
        for k in range(label.shape[-1]):
            occurs[torch.unique(label[..., k]).long(), k] = True
        rows = [occurs[_codes_with(item, structure)].any(dim=0) for structure in range(1, self.num_classes)]
        item[INDEX] = torch.stack(rows).numpy()
        return item


class RandSlicePatchd(RandomizableTransform, MapTransform):
    """Draw one 2D patch from a volume: a slice along the last axis, and a position in it.

    With probability `foreground_prob` a structure is drawn evenly from those in the volume, then a slice
    that holds it, then one of its voxels; the patch holds that voxel at a random position. Otherwise slice and
    position are drawn evenly from all. Outside of the volume the patch is padded. Where the item
    holds `annotated` (bool, a class each, the background first), only structures that are annotated are drawn.

    Args:
        keys: volumes `(C, I, J, K)` that become patches `(C', h, w)`, label among them: tensors, or
            volumes on disk that have a `shape` and `read_slice(k)`, such as `medseg.data.StoredVolume`.
        label_key: which of them is the label (class indices, or codes of combinations).
        patch_size: `(h, w)` along the first two axes.
        context: neighboring slices on each side that join the image as channels, lowest first; at the
            ends of the volume the last slice is repeated. Channels of the image: `2 * context + 1`.
        foreground_prob: probability that the patch is drawn around a structure.
        fill: value of the image outside the volume.

    Raises:
        DataError: a patch size or a probability is out of range; `slice_index` is missing from the item.
    """

    def __init__(
        self,
        keys: KeysCollection,
        patch_size: Sequence[int],
        label_key: str = "label",
        context: int = 0,
        foreground_prob: float = 0.7,
        fill: float = 0.0,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=1.0)
        if len(patch_size) != 2 or min(patch_size) < 1 or context < 0 or not 0 <= foreground_prob <= 1:
            raise DataError(
                "RandSlicePatchd",
                "it needs two sizes above 0, a context of 0 or more and a probability",
                f"got patch_size={patch_size}, context={context}, foreground_prob={foreground_prob}",
            )
        self.patch_size = tuple(int(size) for size in patch_size)
        self.label_key, self.context, self.foreground_prob, self.fill = label_key, context, foreground_prob, fill
        self._slice, self._corner = 0, (0, 0)
        self._label = torch.zeros(1, 0, 0)

    def randomize(self, data: Mapping[Hashable, Any]) -> None:
        """Draw slice and position for one item."""
        height, width, slices = data[self.label_key].shape[1:]
        if INDEX not in data:
            raise DataError("RandSlicePatchd", f"the item has no '{INDEX}'", "", "Put IndexSlicesd before it.")
        index = data[INDEX]
        occurs = index.any(axis=1)
        if ANNOTATED in data:
            occurs = occurs & np.asarray(data[ANNOTATED], dtype=bool)[1:]
        present = np.flatnonzero(occurs)
        voxel = None
        if len(present) and self.R.random_sample() < self.foreground_prob:
            row = int(self.R.choice(present))
            self._slice = int(self.R.choice(np.flatnonzero(index[row])))
            self._label = _plane(data[self.label_key], self._slice)
            voxels = np.flatnonzero(torch.isin(self._label[0], _codes_with(data, row + 1)).numpy())
            voxel = np.unravel_index(int(self.R.choice(voxels)), (height, width))
        else:
            self._slice = int(self.R.randint(slices))
            self._label = _plane(data[self.label_key], self._slice)
        self._corner = (self._start(height, 0, voxel), self._start(width, 1, voxel))

    def _start(self, size: int, axis: int, voxel: Any) -> int:
        """Return where the patch starts along one axis; negative where the volume is smaller and is centered."""
        patch = self.patch_size[axis]
        if size <= patch:
            return -((patch - size) // 2)
        low, high = 0, size - patch
        if voxel is not None:
            low, high = max(low, int(voxel[axis]) - patch + 1), min(high, int(voxel[axis]))
        return int(self.R.randint(low, high + 1))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw, then cut the patch out of every key; the volumes are not changed."""
        self.randomize(data)
        item = {key: value for key, value in data.items() if key != INDEX}
        for key in self.key_iterator(item):
            if key == self.label_key:
                item[key] = self._cut(self._label, 0)
            else:
                last = item[key].shape[-1] - 1
                around = range(self._slice - self.context, self._slice + self.context + 1)
                stack = torch.cat([_plane(item[key], min(max(k, 0), last)) for k in around])
                item[key] = self._cut(stack.float(), self.fill)
        return item

    def _cut(self, image: torch.Tensor, fill: float) -> torch.Tensor:
        patch = image.new_full((image.shape[0], *self.patch_size), fill)
        source, target = [], []
        for start, size, length in zip(self._corner, self.patch_size, image.shape[1:], strict=True):
            low, high = max(start, 0), min(start + size, length)
            source.append(slice(low, high))
            target.append(slice(low - start, high - start))
        patch[:, target[0], target[1]] = image[:, source[0], source[1]]
        return patch
