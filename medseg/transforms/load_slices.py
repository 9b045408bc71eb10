"""Load 2D slices from image files, oriented as on the screen."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medseg.errors import ConfigError, DataError
from medseg.image_io_2d import intensities, read_image_2d

logger = logging.getLogger(__name__)

_HELPERS = ("neighbors", "limits", "spacing")


class LoadSlice2Dd(MapTransform):
    """Load slices as `(C, rows, columns)`: the first axis of space runs down the screen, the second to the right.

    Not MONAI's `LoadImaged`: its PNG reader gives columns first, scales nothing, and knows no neighbors. The affine
    holds the spacing alone (rows, columns, mm), for an image file does not say which side of it is left. The paths of
    neighbors, the spacing and the range are removed from the item, so that it can be batched.

    Args:
        keys: paths of images. Images become float32 from 0 to 1: up to 8 bits white is 1; with more the scan's range
            (`limits` of the item) becomes 0 and 1, or the slice's own where it has none.
        label_key: which of the keys is a label: indices or codes, `(1, rows, columns)`, as they are in the file.
        channels: of an image without context: 1 (gray) or 3 (colors, or gray three times).
        context: neighbors on each side whose gray images are the channels instead, lowest first: 2 * context + 1. The
            item must name them (`neighbors`, see `DatasetIndex.items`); without them the slice is repeated.

    Raises:
        ConfigError: channels or a context that cannot be, an item that names another number of neighbors.
        DataError: an image that cannot be read; see `medseg.image_io_2d.read_image_2d`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        label_key: str = "label",
        channels: int = 3,
        context: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if channels not in (1, 3) or context < 0:
            raise ConfigError(
                "LoadSlice2Dd", "channels must be 1 or 3, and context 0 or more", f"got {channels} and {context}"
            )
        self.label_key, self.channels, self.context = label_key, channels, context
        self._warned = False

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load every key."""
        item = {key: value for key, value in data.items() if key not in _HELPERS}
        rows, columns = data.get("spacing", (1.0, 1.0))
        affine = torch.diag(torch.tensor([rows, columns, 1.0, 1.0], dtype=torch.float64))
        for key in self.key_iterator(item):
            path = str(item[key])
            array = self._label(path) if key == self.label_key else self._image(path, data)
            meta = {
                "filename_or_obj": path,
                "spatial_shape": np.array(array.shape[1:]),
                "original_channel_dim": 0,
                "original_affine": affine.numpy().copy(),
            }
            item[key] = MetaTensor(torch.from_numpy(array), affine=affine, meta=meta)
        return item

    def _label(self, path: str) -> Any:
        content = read_image_2d(path)
        if content.values.ndim != 2:
            raise DataError(
                path, "a label must have one channel", "got colors", "Open the set with medseg.data.open_dataset."
            )
        return content.values.astype(np.uint8 if not content.deep else np.int32)[None]

    def _image(self, path: str, data: Mapping[Hashable, Any]) -> Any:
        limits = data.get("limits")
        ends = (float(limits[0]), float(limits[1])) if limits is not None else None
        if not self.context:
            content = read_image_2d(path)
            if content.loss and not self._warned and "16 bits" in content.loss:
                self._warned = True
                logger.warning("%s: not read: %s; so it is of all such images", path, content.loss)
            return intensities(content, self.channels, ends)
        count = 2 * self.context + 1
        around = [str(neighbor) for neighbor in data.get("neighbors", [path] * count)]
        if len(around) != count:
            raise ConfigError(
                path, f"its item must name {count} slices", f"got {len(around)}", "Give the same context to items()."
            )
        loaded = {neighbor: intensities(read_image_2d(neighbor), 1, ends) for neighbor in dict.fromkeys(around)}
        first = loaded[path] if path in loaded else loaded[around[self.context]]
        other_size = next((neighbor for neighbor in around if loaded[neighbor].shape != first.shape), None)
        if other_size is not None:
            size = f"{loaded[other_size].shape[1]} rows and {loaded[other_size].shape[2]} columns"
            raise DataError(other_size, f"it must have the size of its neighbor {path}", f"got {size}")
        return np.concatenate([loaded[neighbor] for neighbor in around])
