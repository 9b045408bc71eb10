"""SegFormer: a transformer for 2D images that gives logits of the image's own size."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import interpolate

from medseg.errors import ConfigError, GeometryError, WeightsError, did_you_mean
from medseg.networks.hub import NotAtHandError, weights_folder
from medseg.optional import require

logger = logging.getLogger(__name__)
_WIDE = {"hidden_sizes": [64, 128, 320, 512], "decoder_hidden_size": 768}
VARIANTS: dict[str, dict[str, Any]] = {
    "b0": {"depths": [2, 2, 2, 2], "hidden_sizes": [32, 64, 160, 256], "decoder_hidden_size": 256},
    "b1": {"depths": [2, 2, 2, 2], **_WIDE, "decoder_hidden_size": 256},
    "b2": {"depths": [3, 4, 6, 3], **_WIDE},
    "b3": {"depths": [3, 4, 18, 3], **_WIDE},
    "b4": {"depths": [3, 8, 27, 3], **_WIDE},
    "b5": {"depths": [3, 6, 40, 3], **_WIDE},
}
_BY_STAGE = ("depths", "hidden_sizes", "num_attention_heads", "sr_ratios", "patch_sizes", "strides", "mlp_ratios")
_SHAPE = (*_BY_STAGE, "hidden_act", "decoder_hidden_size")  # what weights of one must share with the other
_HEAD, _DECODER, _STEM = "decode_head.classifier.", "decode_head.", "stages.0.patch_embeddings.proj.weight"
_CLASSIFIER_OF_IMAGES = "classifier."  # of an encoder trained on ImageNet
_SMALLEST = 29  # below it the first stage is smaller than the 8x8 patches that its keys are reduced by


def require_variant(variant: str | Mapping[str, Any] | None) -> None:
    """See that a network is named apart from the weights it begins with; for the `initialize` of a training.

    A run is used later without them, and must build the same network then.

    Raises:
        ConfigError: it is None.
    """
    if variant is None:
        raise ConfigError(
            "variant",
            "must be named, so that the trained network can be built without the weights it began with",
            "null",
            "Give variant=b0 to b5, as the pretrained weights are, or a mapping.",
        )


class SegFormer(torch.nn.Module):
    """Hugging Face's SegFormer as a network of medseg: any number of channels, logits of the image's size.

    Not `SegformerForSemanticSegmentation` itself, which gives an output object with logits at a quarter of the size;
    its stages and its head are taken out of it, and what they compute is the same.
    Xie, E. et al. (2021). SegFormer: simple and efficient design for semantic segmentation with transformers. NeurIPS.

    `(B, in_channels, H, W)` becomes `(B, out_channels, H, W)`, for any H and W from 29 on: where they are no multiples
    of 32 the patches at the border are padded. Logits are brought from a quarter of the size by bilinear interpolation.
    It can be traced (`torch.jit.trace`, then also for other sizes) and exported to ONNX, but not scripted.

    Args:
        in_channels: channels of the image. Weights made for another number of them (3, of ImageNet) are averaged over
            channels, repeated, and scaled so that an image with the same picture in all channels gives what it gave.
        out_channels: classes, background included.
        variant: `b0` to `b5`, or a mapping with other values of Hugging Face's `SegformerConfig` (`depths`,
            `hidden_sizes`, ...); None for what `pretrained` is, and `b0` without it.
        pretrained: weights to begin with: a folder in Hugging Face's format or the id of a model on the hub, such as
            `nvidia/segformer-b0-finetuned-ade-512-512` or, for the encoder alone, `nvidia/mit-b0`. Everything but the
            classifier, the last 1x1 convolution, comes from there.
        allow_missing_pretrained: begin with random weights, and log it, where `pretrained` is on the hub and neither
            in the cache nor within reach of the network.
        drop_path: the share of residual branches left out in training, at the last block; less before it.
        dropout: the share of features left out in training before the classifier.
        gradient_checkpointing: keep less for the backward pass and compute it again: less memory, more time.

    Raises:
        ConfigError: a variant that there is not, a number of channels below 1.
        WeightsError: weights that cannot be had, or are those of another network.
        MissingExtraError: transformers is not installed.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        variant: str | Mapping[str, Any] | None = None,
        pretrained: str | Path | None = None,
        allow_missing_pretrained: bool = False,
        drop_path: float = 0.1,
        dropout: float = 0.1,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        for name, number in (("in_channels", in_channels), ("out_channels", out_channels)):
            if isinstance(number, bool) or not isinstance(number, int) or number < 1:
                raise ConfigError(f"SegFormer, {name}", "must be a whole number from 1 on", repr(number))
        transformers = require("transformers", extra="segformer")
        folder = None if pretrained is None else _folder(pretrained, allow_missing_pretrained)
        source = None if folder is None else _read_config(transformers, folder)
        values = _values(variant, source)
        arguments = {"num_channels": in_channels, "num_labels": out_channels}
        rates = {"drop_path_rate": drop_path, "classifier_dropout_prob": dropout}
        config = _config(transformers, values, {**arguments, **rates})
        self.in_channels = in_channels
        whole = transformers.SegformerForSemanticSegmentation(config)
        if folder is not None and source is not None:
            _begin_with(whole, transformers, folder, source, variant)
        if gradient_checkpointing:
            name = "activation_checkpointing_enable"  # its older name brings a warning where it has this one
            getattr(whole, name, whole.gradient_checkpointing_enable)({"use_reentrant": False})
        self.stages, self.decode_head = whole.segformer.stages, whole.decode_head

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits `(B, out_channels, H, W)` of an image `(B, in_channels, H, W)`.

        Raises:
            GeometryError: another number of channels or axes, or an image below 29 pixels.
        """
        traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if not (traced or torch.compiler.is_compiling()):
            self._check(tuple(image.shape))
        features = [image]
        for stage in self.stages:
            features.append(stage(features[-1]))
        logits = self.decode_head(features[1:])
        return interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)

    def _check(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 4 or shape[1] != self.in_channels:
            raise GeometryError(
                "image for SegFormer",
                f"must have the shape (batch, {self.in_channels}, height, width)",
                str(shape),
                "The number of channels is the network's in_channels.",
            )
        if min(shape[2:]) < _SMALLEST:
            raise GeometryError("image for SegFormer", f"must have {_SMALLEST} pixels or more each way", str(shape[2:]))


def _folder(pretrained: str | Path, allow_missing_pretrained: bool) -> Path | None:
    try:
        return weights_folder(pretrained, extra="segformer")
    except NotAtHandError as error:
        if not allow_missing_pretrained:
            raise
        logger.warning("SegFormer begins with random weights: %s", error)
        return None


def _values(variant: str | Mapping[str, Any] | None, source: Any | None) -> dict[str, Any]:
    """What the config of the network is to be beside its channels."""
    if variant is None:
        return VARIANTS["b0"] if source is None else {key: getattr(source, key) for key in _SHAPE}
    if isinstance(variant, Mapping):
        return dict(variant)
    if variant not in VARIANTS:
        fix = did_you_mean(str(variant).lower(), VARIANTS)
        raise ConfigError("SegFormer, variant", f"must be one of {', '.join(VARIANTS)}", repr(variant), fix)
    return VARIANTS[variant]


def _config(transformers: Any, values: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    known, thing = transformers.SegformerConfig(), "SegFormer, variant"
    for key in values:
        if key in arguments:
            raise ConfigError(f"{thing}, {key}", "must not be in it", "it", "SegFormer has an argument for that.")
        if key not in vars(known):
            fix = did_you_mean(key, vars(known))
            raise ConfigError(f"{thing}, {key}", "must be a key of SegformerConfig", "no such key", fix)
    try:
        config = transformers.SegformerConfig(**values, **arguments)
    except (TypeError, ValueError, _wrong_type()) as error:
        raise ConfigError(thing, "must be what SegformerConfig takes", " ".join(str(error).split())) from error
    stages = config.num_encoder_blocks
    for key in _BY_STAGE:
        if len(getattr(config, key)) != stages:
            raise ConfigError(
                f"{thing}, {key}", f"must have a value for each of {stages} stages", f"{getattr(config, key)}"
            )
    return config


def _wrong_type() -> type[Exception]:
    """What a config raises for a value of another type."""
    found: type[Exception] = require("huggingface_hub.errors", extra="segformer").StrictDataclassError
    return found


def _read_config(transformers: Any, folder: Path) -> Any:
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, _wrong_type()) as error:
        found = str(error).strip().splitlines()[0]
        raise WeightsError(folder / "config.json", "must be the config of a SegFormer", found) from error
    if config.model_type != "segformer":
        raise WeightsError(folder / "config.json", "must be the config of a SegFormer", config.model_type)
    return config


def _compare(config: Any, source: Any, folder: Path, variant: Any, keys: Sequence[str]) -> None:
    """See that the weights in a folder are of this variant."""
    own, given = ({key: _plain(getattr(one, key)) for key in keys} for one in (config, source))
    differing = [key for key in keys if own[key] != given[key]]
    if not differing:
        return
    key = differing[0]
    is_one = [
        name for name, values in VARIANTS.items() if all(given[each] == values[each] for each in keys if each in values)
    ]
    raise WeightsError(
        folder,
        f"must hold a SegFormer of variant {variant}, with {key} {own[key]}",
        f"{is_one[0] if is_one else 'another one'}, with {given[key]}",
        f"Set variant to {is_one[0]}." if is_one else "Give its values as a mapping, or set variant to null.",
    )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _begin_with(model: Any, transformers: Any, folder: Path, source: Any, variant: Any) -> None:
    """Copy what a folder holds into the network, everything but its head, and see that it was everything."""
    given, info = _load(transformers, folder, source)
    own = model.state_dict()
    missing = set(info["missing_keys"])
    decoder = {name for name in own if name.startswith(_DECODER)}
    encoder_alone = {name for name in decoder if not name.endswith("num_batches_tracked")} <= missing
    apart = decoder if encoder_alone else {name for name in own if name.startswith(_HEAD)}
    _compare(model.config, source, folder, variant, _SHAPE[:-1] if encoder_alone else _SHAPE)
    lost = sorted(missing - apart)
    strange = sorted(name for name in info["unexpected_keys"] if not name.startswith(_CLASSIFIER_OF_IMAGES))
    if lost or strange:
        raise WeightsError(
            folder,
            "must hold every weight of a SegFormer but its classifier, and nothing else",
            f"{len(lost)} missing ({', '.join(lost[:2])}), {len(strange)} unknown ({', '.join(strange[:2])})",
        )
    taken = {name: weight for name, weight in given.items() if name not in apart}
    stem = next(name for name in taken if name.endswith(_STEM))
    taken[stem] = for_channels(taken[stem], own[stem].shape[1])
    model.load_state_dict({**own, **taken})
    logger.info("SegFormer begins with %d of %d weights from %s", len(taken), len(own), folder)


def _load(transformers: Any, folder: Path, source: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """What a folder holds, under the names of this version of transformers, and what was missing or unknown in it.

    Raises:
        WeightsError: files that are cut short, would execute something, or differ in a shape from their own config.
    """
    kind = transformers.SegformerForSemanticSegmentation
    options = {"local_files_only": True, "output_loading_info": True, "weights_only": True, "dtype": torch.float32}
    with _quiet(transformers), torch.random.fork_rng(devices=[]):
        try:
            model, info = kind.from_pretrained(folder, config=source, **options)
        except Exception as error:  # of a dozen kinds
            found = str(error).strip().splitlines()[0]
            raise WeightsError(folder, "must hold the whole weights of the SegFormer in its config", found) from error
    return model.state_dict(), info


def for_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """The first convolution's weight for another number of input channels, `(features, channels, h, w)`.

    Averaged over the channels it was made for, repeated, and scaled: where all channels hold the same picture the
    response is what it was for that picture in all of the old ones.

    >>> for_channels(torch.tensor([[1.0, 2.0, 6.0]])[:, :, None, None], 2).flatten().tolist()
    [4.5, 4.5]
    """
    old = weight.shape[1]
    if old == channels:
        return weight
    return (weight.mean(1, keepdim=True) * (old / channels)).repeat(1, channels, 1, 1)


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without Hugging Face's own report of what it loaded, which counts a new classifier as an accident."""
    words = transformers.utils.logging
    level, bars = words.get_verbosity(), words.is_progress_bar_enabled()
    words.set_verbosity_error()
    words.disable_progress_bar()
    try:
        yield
    finally:
        words.set_verbosity(level)
        if bars:
            words.enable_progress_bar()
