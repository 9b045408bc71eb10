"""The components that a mask needs and that run without `--trust`: each is one exact class of an installed library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from medseg.config.references import TARGET

_READERS = {"ITKReader", "NibabelReader", "NrrdReader", "NumpyReader", "PILReader", "PydicomReader", "VolumeReader"}
_SEGFORMER_OPTIONS = {
    *("num_encoder_blocks", "depths", "sr_ratios", "hidden_sizes", "patch_sizes", "strides", "num_attention_heads"),
    *("mlp_ratios", "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range"),
    *("layer_norm_eps", "decoder_hidden_size"),
}
# None of these runs text, imports by a name from an argument, or reads or writes a file, with the arguments that
# `Component.problem` lets through. MONAI also finds those of its own by their short names.
_TABLE = {
    "monai.transforms": """
        Activationsd AsDiscreted CastToTyped CenterSpatialCropd ClipIntensityPercentilesd Compose CropForegroundd
        DivisiblePadd EnsureChannelFirstd EnsureTyped FillHolesd Flipd GaussianSmoothd Invertd
        KeepLargestConnectedComponentd LoadImaged MedianSmoothd NormalizeIntensityd Orientationd RemoveSmallObjectsd
        Resized Rotate90d ScaleIntensityRanged ScaleIntensityRangePercentilesd ScaleIntensityd SpatialPadd Spacingd
        SqueezeDimd ThresholdIntensityd ToTensord Transposed""",
    "monai.inferers": "SimpleInferer SlidingWindowInferer SlidingWindowInfererAdapt",
    "monai.networks.nets": """
        AttentionUnet BasicUNet BasicUNetPlusPlus DynUNet FlexibleUNet HighResNet MedNeXt MedNeXtB MedNeXtL MedNeXtM
        MedNeXtS SegResNet SegResNetDS SegResNetDS2 SwinUNETR UNETR UNet VNet""",
    "medseg.inference": "StreamingInferer",
    "medseg.networks": "SegFormer",
    "medseg.transforms": "LoadSlice2Dd ResizeKeepAspectd ScaleWindowd Spacingd Standardized WindowHUd",
}  # fmt: skip
_HOMES = {f"{module}.{name}": (module, name) for module, names in _TABLE.items() for name in names.split()}
_SHORT = {name: (module, name) for module, name in _HOMES.values() if module.startswith("monai.")}
_ALIASES = {"Unet": "UNet", "BasicUnet": "BasicUNet", "Basicunet": "BasicUNet", "DynUnet": "DynUNet"}
# Of these the arguments are listed too; the readers of a LoadImaged are replaced by medseg's own in any case.
_ARGUMENTS = {
    "LoadImaged": {"accept", "keys", "reader", "dtype", "image_only", "ensure_channel_first", "simple_keys"},
    "Compose": {"transforms", "map_items", "unpack_items", "lazy"},
}
# Where a component may be an argument of another one.
_TAKES_COMPONENTS = {("Compose", "transforms"), ("Invertd", "transform")}


@dataclass(frozen=True)
class Component:
    """One class of the table.

    Args:
        module: where it is imported from.
        name: its name there.
    """

    module: str
    name: str

    def problem(self, arguments: Mapping[str, Any], is_plain: Callable[[Any], bool]) -> str | None:
        """Return why it may not be made with these arguments, or None.

        Args:
            arguments: resolved values by name.
            is_plain: whether a value is made of numbers, texts and names of classes alone.
        """
        for name, value in arguments.items():
            if name not in _ARGUMENTS.get(self.name, {name}):
                return f"{self.name} may not be given {name}"
            if name.startswith("pretrained") and value:
                return "it would fetch weights from elsewhere"
            if not is_plain(value) and (self.name, name) not in _TAKES_COMPONENTS:
                return f"its argument {name} is a component"
        reader, variant = arguments.get("reader"), arguments.get("variant")
        if reader is not None and str(reader).rpartition(".")[2] not in _READERS:
            return f"its reader '{reader}' is not on the list"
        if self.name == "SegFormer" and isinstance(variant, Mapping) and not set(variant) <= _SEGFORMER_OPTIONS:
            return "its variant has keys that are not on the list"
        return None


def find_component(target: Any) -> Component | None:
    """Return the class of the table that a `_target_` names, in any of its spellings; None where it is another.

    Example:
        >>> find_component("SpacingDict") == find_component("monai.transforms.spatial.dictionary.Spacingd")
        True
        >>> find_component("os.system") is None, find_component("evil.Spacingd") is None
        (True, True)
    """
    if not isinstance(target, str):
        return None
    prefix, _, name = target.rpartition(".")
    name = _ALIASES.get(name, name)
    spellings = [name, *(f"{name.removesuffix(end)}d" for end in ("D", "Dict") if name.endswith(end))]
    for spelling in spellings:
        if not prefix and spelling in _SHORT:
            return Component(*_SHORT[spelling])
        for module in _TABLE:
            inside = prefix == module or prefix.startswith(f"{module}.")
            if inside and f"{module}.{spelling}" in _HOMES:
                return Component(module, spelling)
    return Component("medseg.inference", name) if target == "medseg.StreamingInferer" else None


def target_of(node: Any) -> Any:
    """Return what a component names as its class; None for what is no component."""
    return node.get(TARGET) if isinstance(node, Mapping) else None
