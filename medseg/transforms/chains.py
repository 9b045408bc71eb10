"""The transforms of training and of evaluation, put together around a bundle's own preprocessing."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import CastToTyped, Compose, EnsureTyped, MapTransform

from medseg.errors import ConfigError, LabelError
from medseg.labels import LabelMap
from medseg.transforms.intensities import WindowHUd
from medseg.transforms.slice_patches import IndexSlicesd, RandSlicePatchd


class MultiHotd(MapTransform):
    """Turn codes of combinations into one channel for each structure.

    Not MONAI's `AsDiscreted(to_onehot)`: there a voxel has one class; here it may belong to several.

    Args:
        keys: codes `(1, *spatial)`; become `(num_channels, *spatial)`, uint8 0 or 1.
        num_channels: the number of structures, without the background.

    Raises:
        LabelError: the item has no `combinations`, or a code that they do not list.
    """

    def __init__(self, keys: KeysCollection, num_channels: int) -> None:
        super().__init__(keys)
        self.num_channels = num_channels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Spread the codes, and remove their table from the item."""
        item = dict(data)
        if "combinations" not in item:
            problem = "its item has no 'combinations' of overlapping structures"
            raise LabelError(f"case {item.get('case', '?')}", problem, "", "Open the data set with overlaps='keep'.")
        combinations = item.pop("combinations")
        table = torch.zeros(len(combinations), self.num_channels, dtype=torch.uint8)
        for code, channels in enumerate(combinations):
            table[code, list(channels)] = 1
        for key in self.key_iterator(item):
            codes = torch.as_tensor(item[key])[0].long()
            if int(codes.max()) >= len(combinations):
                problem = f"its label holds code {int(codes.max())}, and {len(combinations)} codes are listed"
                raise LabelError(f"case {item.get('case', '?')}", problem)
            spread = table.T.contiguous()[:, codes]
            item[key] = spread
        return item


KEYS = ("image", "label")
IMAGE, LABEL = KEYS


def training_chain(
    preprocess: Sequence[Any],
    labels: LabelMap,
    patch_size: Sequence[int] | None = None,
    context: int = 0,
    foreground_prob: float = 0.7,
    augment: Any | None = None,
    multilabel: bool = False,
    stored: bool = False,
) -> Compose:
    """Return the transforms of training: what a cache keeps of a case, then what is drawn at random from it.

    Cached are the preprocessed image as float16 and the label in the smallest type that holds it, with an index of
    the slices that hold each structure. From a slice store (`stored`) single slices are read instead: then nothing is
    cached, and HU are mapped after the patch was cut out.

    Args:
        preprocess: the deterministic transforms, from paths to an image with values from 0 to 1.
        labels: the classes of the network.
        patch_size: `(h, w)` of the patches that `RandSlicePatchd` draws from volumes; None takes images as they are.
        context: neighboring slices on each side that join a patch as channels.
        foreground_prob: probability that a patch is drawn around a structure.
        augment: the transform that augments, last of all, such as `RandAugmentd`; None for none.
        multilabel: whether structures may overlap: the label gets a channel for each.
        stored: whether items come from a slice store.

    Raises:
        ConfigError: a slice store without `patch_size`, or without a `WindowHUd` in `preprocess`.

    Example:
        >>> chain = training_chain([], LabelMap(["liver"]), patch_size=(4, 4))
        >>> volume = torch.rand(1, 8, 8, 3)
        >>> sample = chain({"image": volume, "label": (volume > 0.5).byte()})
        >>> sample["image"].shape, sample["label"].dtype
        (torch.Size([1, 4, 4]), torch.uint8)
    """
    window = next((step for step in preprocess if isinstance(step, WindowHUd)), None)
    if stored and (patch_size is None or window is None):
        raise ConfigError(
            "training_chain",
            "a slice store holds HU of volumes, so the chain needs patch_size and a WindowHUd in preprocess",
            "",
            "Add them, or train with data#use_store=false.",
        )
    label_dtype = _label_dtype(labels, multilabel)
    chain: list[Any] = []
    if not stored:
        chain += [*preprocess, CastToTyped(KEYS, dtype=[torch.float16, label_dtype])]
        if patch_size is not None:
            chain.append(IndexSlicesd(LABEL, num_classes=len(labels)))
    if patch_size is not None:
        fill = 0.0 if window is None else float(window.hu[0] if stored else window.values[0])
        chain.append(RandSlicePatchd(KEYS, patch_size, LABEL, context, foreground_prob, fill))
    if stored:
        chain.append(window)
    if multilabel:
        chain.append(MultiHotd(LABEL, num_channels=len(labels) - 1))
    chain.append(EnsureTyped(KEYS, dtype=[torch.float32, label_dtype], track_meta=False))
    return Compose([*chain, augment] if augment is not None else chain)


def evaluation_chain(preprocess: Sequence[Any], labels: LabelMap, multilabel: bool = False) -> Compose:
    """Return the transforms of validation and evaluation: the preprocessing, and the label as the metrics take it.

    Args:
        preprocess: the deterministic transforms, as inference has them.
        labels: the classes of the network.
        multilabel: whether structures may overlap: the label gets a channel for each.

    Example:
        >>> chain = evaluation_chain([], LabelMap(["liver"]))
        >>> chain({"image": torch.rand(1, 2, 2, 2), "label": torch.ones(1, 2, 2, 2)})["label"].dtype
        torch.uint8
    """
    chain = [*preprocess, CastToTyped(LABEL, dtype=_label_dtype(labels, multilabel))]
    if multilabel:
        chain.append(MultiHotd(LABEL, num_channels=len(labels) - 1))
    return Compose(chain)


def _label_dtype(labels: LabelMap, multilabel: bool) -> torch.dtype:
    """The smallest type of a label map; codes of combinations may need more than a byte."""
    return torch.uint8 if len(labels) <= 256 and not multilabel else torch.int32
