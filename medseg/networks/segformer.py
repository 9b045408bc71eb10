"""Build SegFormer, a transformer for 2D images, with logits of the image's size."""

from __future__ import annotations

import contextlib
import json
import logging
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import interpolate

from medseg.errors import ConfigError, GeometryError, WeightsError, did_you_mean, first_line
from medseg.networks.weights import UnreachableError, weights_folder
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
_SHAPE = (*_BY_STAGE, "hidden_act", "decoder_hidden_size")  # must agree between a network and its pretrained weights
_CLASSIFIER, _DECODER, _STEM = "decode_head.classifier.", "decode_head.", "stages.0.patch_embeddings.proj.weight"
_IMAGE_CLASSIFIER = "classifier."  # of an encoder trained on ImageNet
_SMALLEST = 29  # pixels; below, the first stage is smaller than the 8x8 patches that its keys are reduced by


def require_variant(variant: str | Mapping[str, Any] | None) -> None:
    """Require that a training names its variant; for the `initialize` of a config.

    A run is used later without the pretrained weights, and must build the same network then.

    Raises:
        ConfigError: it is None.
    """
    if variant is None:
        problem = "must be named, so that the trained network can be built without its pretrained weights"
        fix = "Set variant=b0 to b5, as the pretrained weights are; leave it out for others: the error names theirs."
        raise ConfigError("variant", problem, "got null", fix)


class SegFormer(torch.nn.Module):
    """Run Hugging Face's SegFormer with any number of channels, and return logits of the image's size.

    Not `SegformerForSemanticSegmentation` itself, which returns an output object with logits at a quarter of the
    size; this module uses its stages and its decoder, and they compute the same values.
    Xie, E. et al. (2021). SegFormer: simple and efficient design for semantic segmentation with transformers. NeurIPS.

    `(B, in_channels, H, W)` becomes `(B, out_channels, H, W)`, for any H and W from 29 on: for other sizes than
    multiples of 32 the patches at the border are padded. Logits are interpolated bilinearly from a quarter of the
    size. The network can be traced (`torch.jit.trace`, then also for other sizes) and exported to ONNX, but not
    scripted.

    Args:
        in_channels: channels of the image. Weights for another number (3, of ImageNet) are averaged over channels,
            repeated and scaled: an image that is the same in all channels has the same response as before.
        out_channels: classes, background included.
        variant: `b0` to `b5`, or a mapping with other values of Hugging Face's `SegformerConfig` (`depths`,
            `hidden_sizes`, ...); None for that of `pretrained`, and `b0` without it.
        pretrained: initial weights: a folder in Hugging Face's format or the id of a model on the hub, such as
            `nvidia/segformer-b0-finetuned-ade-512-512` or, for the encoder alone, `nvidia/mit-b0`. Everything but the
            classifier, the last 1x1 convolution, is loaded.
        allow_missing_pretrained: begin with random weights and a warning in the log where `pretrained` is on the hub,
            but not in the cache, and the hub cannot be reached.
        drop_path: the share of residual branches dropped in training, at the last block; less before it.
        dropout: the share of features dropped in training before the classifier.
        gradient_checkpointing: compute activations again for the backward pass: less memory, more time.

    Raises:
        ConfigError: an unknown variant, or a number of channels below 1.
        WeightsError: the weights cannot be loaded, or are those of another network.
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
                raise ConfigError(f"SegFormer, {name}", "must be a whole number above 0", f"got {number!r}")
        transformers = require("transformers", extra="segformer")
        folder = None if pretrained is None else _folder(pretrained, allow_missing_pretrained)
        source = None if folder is None else _read_config(transformers, folder)
        values = _values(variant, source)
        arguments = {"num_channels": in_channels, "num_labels": out_channels}
        rates = {"drop_path_rate": drop_path, "classifier_dropout_prob": dropout}
        config = _config(transformers, values, {**arguments, **rates})
        self.in_channels = in_channels
        model = transformers.SegformerForSemanticSegmentation(config)
        if folder is not None and source is not None:
            _initialize(model, transformers, folder, source, variant)
        if gradient_checkpointing:
            name = "activation_checkpointing_enable"  # where this name exists, the older one is deprecated
            getattr(model, name, model.gradient_checkpointing_enable)({"use_reentrant": False})
        self.stages = model.segformer.stages
        self.decode_head = model.decode_head

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return logits `(B, out_channels, H, W)` of an image `(B, in_channels, H, W)`.

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
            problem = f"must have the shape (batch, {self.in_channels}, height, width)"
            fix = "The number of channels is the network's in_channels."
            raise GeometryError("image for SegFormer", problem, f"got {shape}", fix)
        if min(shape[2:]) < _SMALLEST:
            problem = f"must have {_SMALLEST} pixels or more along each axis"
            raise GeometryError("image for SegFormer", problem, f"got {shape[2:]}")


def _folder(pretrained: str | Path, allow_missing_pretrained: bool) -> Path | None:
    try:
        return weights_folder(pretrained, extra="segformer")
    except UnreachableError as error:
        if not allow_missing_pretrained:
            raise
        logger.warning("SegFormer begins with random weights: %s", error)
        return None


def _values(variant: str | Mapping[str, Any] | None, source: Any | None) -> dict[str, Any]:
    """Return the values of the network's config, without its channels."""
    if variant is None:
        return VARIANTS["b0"] if source is None else {key: getattr(source, key) for key in _SHAPE}
    if isinstance(variant, Mapping):
        return dict(variant)
    if variant not in VARIANTS:
        fix = did_you_mean(str(variant).lower(), VARIANTS)
        raise ConfigError("SegFormer, variant", f"must be one of {', '.join(VARIANTS)}", f"got {variant!r}", fix)
    return VARIANTS[variant]


def _config(transformers: Any, values: Mapping[str, Any], arguments: Mapping[str, Any]) -> Any:
    default, thing = transformers.SegformerConfig(), "SegFormer, variant"
    for key in values:
        if key in arguments:
            raise ConfigError(f"{thing}, {key}", "must not be set here", fix="SegFormer has an argument for it.")
        if key not in vars(default):
            fix = did_you_mean(key, vars(default))
            raise ConfigError(f"{thing}, {key}", "is not a key of SegformerConfig", fix=fix)
    try:
        config = transformers.SegformerConfig(**values, **arguments)
    except (TypeError, ValueError, _wrong_type_error()) as error:
        raise ConfigError(thing, "is not what SegformerConfig takes", " ".join(str(error).split())) from error
    stages = config.num_encoder_blocks
    for key in _BY_STAGE:
        if len(getattr(config, key)) != stages:
            problem = f"must have a value for each of {stages} stages"
            raise ConfigError(f"{thing}, {key}", problem, f"got {getattr(config, key)}")
    return config


def _wrong_type_error() -> type[Exception]:
    """Return the error that a config raises for a value of another type."""
    error: type[Exception] = require("huggingface_hub.errors", extra="segformer").StrictDataclassError
    return error


def _read_config(transformers: Any, folder: Path) -> Any:
    path, problem = folder / "config.json", "is not the config of a SegFormer"
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, _wrong_type_error()) as error:
        raise WeightsError(path, problem, first_line(error)) from error
    if config.model_type != "segformer":
        raise WeightsError(path, problem, f"got {config.model_type}")
    return config


def _require_variant_of(
    config: Any, source: Any, default: Any, folder: Path, variant: Any, keys: Sequence[str]
) -> None:
    """Require that the weights in a folder, with the config `source`, are of this variant.

    Not `variant=null` is advised: a run is used without its pretrained weights, and must name what it is.
    """
    expected, actual = ({key: _as_list(getattr(values, key)) for key in keys} for values in (config, source))
    differing = [key for key in keys if expected[key] != actual[key]]
    if not differing:
        return
    key = differing[0]
    matching = [
        name
        for name, values in VARIANTS.items()
        if all(actual[shared] == values[shared] for shared in keys if shared in values)
    ]
    own = {name: actual[name] for name in keys if actual[name] != _as_list(getattr(default, name))}
    raise WeightsError(
        folder,
        f"does not hold a SegFormer of variant {variant}, whose {key} is {expected[key]}",
        f"got {matching[0] if matching else 'another one'}, with {actual[key]}",
        f"Set variant={matching[0] if matching else shlex.quote(json.dumps(own))}.",
    )


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def _initialize(model: Any, transformers: Any, folder: Path, source: Any, variant: Any) -> None:
    """Copy the weights of a folder into the network, except for its classifier, and require that none is missing."""
    weights, info = _load(transformers, folder, source)
    state = model.state_dict()
    missing = set(info["missing_keys"])
    decoder = {name for name in state if name.startswith(_DECODER)}
    # Of an encoder trained on ImageNet there is no decoder at all.
    encoder_only = {name for name in decoder if not name.endswith("num_batches_tracked")} <= missing
    random = decoder if encoder_only else {name for name in state if name.startswith(_CLASSIFIER)}
    keys = _SHAPE[:-1] if encoder_only else _SHAPE
    _require_variant_of(model.config, source, transformers.SegformerConfig(), folder, variant, keys)
    lacking = sorted(missing - random)
    unknown = sorted(name for name in info["unexpected_keys"] if not name.startswith(_IMAGE_CLASSIFIER))
    if lacking or unknown:
        raise WeightsError(
            folder,
            "must hold every weight of a SegFormer except for its classifier, and no others",
            f"{len(lacking)} missing ({', '.join(lacking[:2])}), {len(unknown)} unknown ({', '.join(unknown[:2])})",
        )
    loaded = {name: weight for name, weight in weights.items() if name not in random}
    stem = next(name for name in loaded if name.endswith(_STEM))
    loaded[stem] = for_channels(loaded[stem], state[stem].shape[1])
    model.load_state_dict({**state, **loaded})
    logger.info("SegFormer begins with %d of %d weights from %s", len(loaded), len(state), folder)


def _load(transformers: Any, folder: Path, source: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return a folder's weights, under the names of this version of transformers, and what was missing or unknown.

    Raises:
        WeightsError: the files are cut short, would execute code, or differ in a shape from their own config.
    """
    network_class = transformers.SegformerForSemanticSegmentation
    options = {"local_files_only": True, "output_loading_info": True, "weights_only": True, "dtype": torch.float32}
    # Weights that are missing are drawn at random: the state of the training's RNG must not change by that.
    with _quiet(transformers), torch.random.fork_rng(devices=[]):
        try:
            model, info = network_class.from_pretrained(folder, config=source, **options)
        except Exception as error:  # of a dozen types
            problem = "does not hold the complete weights of the SegFormer in its config"
            raise WeightsError(folder, problem, first_line(error)) from error
    return model.state_dict(), info


def for_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """Return the first convolution's weight for another number of input channels, `(features, channels, h, w)`.

    Averaged over the original channels, repeated, and scaled: an image that is the same in all channels has the same
    response as before.

    >>> for_channels(torch.tensor([[1.0, 2.0, 6.0]])[:, :, None, None], 2).flatten().tolist()
    [4.5, 4.5]
    """
    count = weight.shape[1]
    if count == channels:
        return weight
    return (weight.mean(1, keepdim=True) * (count / channels)).repeat(1, channels, 1, 1)


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Silence Hugging Face's report of what it loaded, which warns of the new classifier."""
    logging_utils = transformers.utils.logging
    level, bars = logging_utils.get_verbosity(), logging_utils.is_progress_bar_enabled()
    logging_utils.set_verbosity_error()
    logging_utils.disable_progress_bar()
    try:
        yield
    finally:
        logging_utils.set_verbosity(level)
        if bars:
            logging_utils.enable_progress_bar()
