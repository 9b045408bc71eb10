"""What a mask needs of a bundle: labels, network, weights, preprocessing, inferer, decision; nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medseg.config.references import key_path
from medseg.errors import MedsegError
from medseg.inspection.components import Component
from medseg.inspection.forms import Refusal
from medseg.inspection.plain import ABSENT, LABEL_MAP, PlainConfig
from medseg.labels import LabelMap

KEYS = ("labels", "network_def", "ckpt_path", "preprocessing", "inferer", "postprocessing", "amp")
SLICES = "volume_"  # before the keys for volumes, of a bundle that takes 2D slices
_WEIGHTS = "models/model.pt"


class MaskParts(PlainConfig):
    """The inference config of a bundle, of which only the parts that a mask needs are resolved; see `PlainConfig`.

    The zoo's layouts name some parts in another way than medseg's: those are looked up where the zoo has them.
    """

    def __contains__(self, key: str) -> bool:
        return key in KEYS or super().__contains__(key)

    def get_parsed_content(self, id: str = "", default: Any = ABSENT) -> Any:
        """Return what a key comes to, see `PlainConfig`."""
        part = getattr(self, f"_{key_path(id)}", None) if key_path(id) in KEYS else None
        if part is not None:
            with self._naming():
                return part()
        return super().get_parsed_content(id, default)

    def _labels(self) -> LabelMap:
        """Return the classes as the config says, else the label map beside the weights, else the metadata."""
        value = self._at("labels") if PlainConfig.__contains__(self, "labels") else None
        if isinstance(value, LabelMap):
            return value
        if self.label_map is not None:
            return self.trained_labels()
        channels = self._node("_meta_#network_data_format#outputs#pred#channel_def")
        names = [str(name) for name in channels.values()] if isinstance(channels, Mapping) else []
        has_background = bool(names) and names[0].lower() == "background"
        try:
            return LabelMap(names[has_background:])
        except MedsegError as problem:
            raise Refusal(f"neither config, {LABEL_MAP} nor metadata say what its classes are: {problem}") from None

    def _network_def(self) -> Any:
        """Return the network without weights; some bundles of the zoo define it under `network` alone."""
        return self._at("network_def" if PlainConfig.__contains__(self, "network_def") else "network")

    def _ckpt_path(self) -> str:
        """Return where the weights are: as it is written, or where the zoo's checkpoint loader has it."""
        for key in ("ckpt_path", "checkpointloader#load_path"):
            if PlainConfig.__contains__(self, key):
                return str(self._at(key))
        return _WEIGHTS

    def _postprocessing(self) -> Any:
        """Return what makes a label map of the network's output, without what saves it."""
        if PlainConfig.__contains__(self, "postprocessing"):
            return self._at("postprocessing")
        return self.make(Component("monai.transforms", "Compose"), {"transforms": []})

    def _amp(self) -> bool:
        for key in ("amp", "evaluator#amp"):
            if PlainConfig.__contains__(self, key):
                return bool(self._at(key))
        return False


def mask_problem(parts: MaskParts) -> str | None:
    """Return why a bundle does not predict without trust, or None.

    Args:
        parts: its inference config, with a `make` that makes nothing.
    """
    prefix = SLICES if f"{SLICES}preprocessing" in parts else ""
    try:
        for key in (*KEYS, *(f"{prefix}{key}" for key in ("preprocessing", "inferer") if prefix)):
            parts.get_parsed_content(key)
    except MedsegError as problem:
        return f"{problem.problem}" + (f" ({problem.came})" if problem.came else "")
    return None
