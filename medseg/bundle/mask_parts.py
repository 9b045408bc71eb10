"""Make the parts that a mask needs of a bundle that is not the user's own, through a builder that runs nothing of it.

Not MONAI's `ConfigParser`, which evaluates every expression as Python and makes an object of any class.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from medseg.config.references import key_path
from medseg.errors import ConfigError, MedsegError, UntrustedError, first_line
from medseg.inspection.components import Component
from medseg.inspection.forms import Device, Dtype
from medseg.inspection.mask_parts import MaskParts, mask_problem
from medseg.inspection.plain import ABSENT, LABEL_MAP, TRUST_FIX
from medseg.labels import LabelMap
from medseg.networks import load_weights
from medseg.training import select_device

if TYPE_CHECKING:
    from medseg.bundle.bundle import Bundle


def needs_trust(bundle: Bundle, merged: Mapping[str, Any]) -> bool:
    """Return True if what a mask needs of a bundle cannot be made without running what its config holds."""
    values = {"bundle_root": ".", "device": Device("cpu"), "accept": []}
    parts = MaskParts(merged, bundle.root, lambda component, _: component, values, bundle.metadata, _label_map(bundle))
    return mask_problem(parts) is not None


def _label_map(bundle: Bundle) -> dict[str, str] | None:
    file = bundle.root / LABEL_MAP
    return LabelMap.load(file).to_dict() if file.is_file() else None


class BuiltParts(MaskParts):
    """The parts of a bundle as objects, with its weights in the network.

    Args:
        bundle: the bundle.
        merged: its inference config with overlays and overrides.
        overrides: what the user gave: a device, and weights that may lie outside of the bundle.
    """

    def __init__(self, bundle: Bundle, merged: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
        self.device = select_device(overrides.get("device") or "auto")
        self._given_weights = overrides.get("ckpt_path")
        self.root = bundle.root
        values: dict[str, Any] = {"bundle_root": str(bundle.root), "device": Device(str(self.device))}
        values["accept"] = list(overrides.get("accept") or ())  # which doubtful scans are taken is the user's word
        super().__init__(merged, bundle.root, make_component, values, bundle.metadata, _label_map(bundle))

    def get_parsed_content(self, id: str = "", default: Any = ABSENT) -> Any:
        """Return what a key comes to, see `MaskParts`; `network` has its weights, and `device` is one of torch."""
        key = key_path(id)
        if key == "device":
            return self.device
        if key == "network":
            if "#network" not in self._values:
                network, labels = self.get_parsed_content("network_def"), self.get_parsed_content("labels")
                channels = self.get_parsed_content("out_channels", default=len(labels))
                load_weights(network, self.get_parsed_content("ckpt_path"), channels)
                self._values["#network"] = network.to(self.device)
            return self._values["#network"]
        value = super().get_parsed_content(id, default)
        return self._weights(value) if key == "ckpt_path" else value

    def _weights(self, written: str) -> Path:
        """Return the file of the weights; only the user may name one outside of the bundle."""
        if isinstance(self._given_weights, str) and self._given_weights == written:
            return Path(written)
        path = self.root / written
        for file in (path, path.with_suffix(".safetensors")):
            if "\0" in written or not file.resolve().is_relative_to(self.root):
                problem = f"without trust its key 'ckpt_path' does not run: '{written}' lies outside of the bundle"
                raise UntrustedError(f"bundle {self.root}", problem, fix=TRUST_FIX)
        return path


def make_component(component: Component, arguments: dict[str, Any]) -> Any:
    """Make a component of the table; MONAI's loaders get medseg's reader, whatever the bundle names."""
    if component.name == "LoadImaged":
        arguments = {**arguments, "reader": "medseg.data.VolumeReader"}
        arguments.pop("accept", None)
    arguments = {name: _as_argument(value) for name, value in arguments.items()}
    try:
        return getattr(importlib.import_module(component.module), component.name)(**arguments)
    except MedsegError:
        raise
    except Exception as error:  # whatever a component raises for arguments that it does not take
        problem = f"{component.name} does not take its arguments"
        raise ConfigError("inference.json", problem, first_line(error), "Ask the bundle's maker.") from error


def _as_argument(value: Any) -> Any:
    if isinstance(value, Dtype):
        module, _, name = value.partition(".")
        return getattr(importlib.import_module(module), name)
    return torch.device(value) if isinstance(value, Device) else value
