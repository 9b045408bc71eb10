"""A bundle on disk: a recipe in `bundles/`, or the folder of a run."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.transforms.io.array import SUPPORTED_READERS

from medseg import inspection
from medseg.bundle import config_check
from medseg.bundle.evaluation_context import BundleParser
from medseg.config.merge import merge
from medseg.data import VolumeReader
from medseg.errors import ConfigError
from medseg.runs.find import find_bundle
from medseg.runs.resume import was_started_here
from medseg.search_path import find_overlay, search_path

# MONAI warns at each LoadImaged that an optional DICOM decoder of NVIDIA is missing; medseg does not use it.
# A filter, because the logging.conf of a bundle resets the level.
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").addFilter(lambda record: False)
warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader", category=UserWarning)
# A LoadImage without a reader asks the last of these first. MONAI's NibabelReader swaps a right sform for the qform
# as soon as pixdim was rounded, and labels are turned by 180 degrees then, in silence.
SUPPORTED_READERS["volumereader"] = VolumeReader


def require_trust(root: str | Path, trust: bool, use: str = "train", overlays: Iterable[str | Path] = ()) -> None:
    """Refuse a bundle that could do more than what is known to be harmless, unless it is trusted.

    Args:
        root: its folder, or a zip of it.
        trust: True if the user trusts it; then the findings are only logged.
        use: what it is to be used for. Where a training would send things matters to `train` alone, and not if this
            user started the run in the folder.
        overlays: JSON files that are to be laid over its configs.

    Raises:
        UntrustedError: a finding could do harm; names it.
        BundleError: there is no bundle.
    """
    inspection.require_trust(root, trust, use, overlays, was_started_here(root))


class Bundle:
    """A bundle that was opened. Its configs can run code, so they are inspected before they are resolved.

    Args:
        root: its folder.
        trust: whether to run it even if it could do more than what is known to be harmless.

    Example:
        >>> bundle = Bundle.open("unet2d")  # doctest: +SKIP
        >>> bundle.resolve("train", {"lr": 0.01}).get_parsed_content("network")  # doctest: +SKIP
    """

    def __init__(self, root: Path, trust: bool = False) -> None:
        self.root = root.resolve()
        self.trust = trust
        self.metadata: dict[str, Any] = self.content("metadata")
        self._passed: set[tuple[str, tuple[Path, ...]]] = set()

    @classmethod
    def open(cls, name: str | Path, trust: bool = False) -> Bundle:
        """Open a bundle by path or name; nothing of it is executed.

        Args:
            name: its folder, or the name of one that is installed or comes with medseg.
            trust: see `Bundle`.

        Raises:
            ConfigError: there is none.
        """
        return cls(find_bundle(name), trust)

    def __repr__(self) -> str:
        return f"Bundle({str(self.root)!r})"

    @property
    def name(self) -> str:
        """The name in its metadata."""
        return str(self.metadata.get("name", self.root.name))

    @property
    def is_ours(self) -> bool:
        """Whether it is one of the recipes that come with medseg."""
        return any(self.root.parent == (home / "bundles").resolve() for home in search_path()[1:])

    def config_file(self, config: str) -> Path:
        """Return the path of one of its configs.

        Raises:
            ConfigError: it has none of that name.
        """
        path = self.root / "configs" / f"{config}.json"
        if not path.is_file():
            raise ConfigError(self.root, f"the bundle cannot be used for this: it has no configs/{config}.json")
        return path

    @property
    def takes_slices(self) -> bool:
        """Whether its inference takes 2D images beside volumes."""
        return "volume_preprocessing" in self.content("inference")

    def content(self, config: str) -> dict[str, Any]:
        """Return one of its configs, or its metadata, as it is in the file.

        Raises:
            ConfigError: the file is missing or holds no JSON object.
        """
        path = self.root / "configs" / f"{config}.json"
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ConfigError(path, "the file must hold a JSON object", str(error)) from error

    def require_trust(self, use: str, overlays: Sequence[str | Path] = ()) -> None:
        """Refuse to be used if it could do harm, unless it is trusted; what passed once is not inspected again.

        Args:
            use: what it is to be used for, see the function `require_trust`.
            overlays: files or names that are to be laid over its configs.

        Raises:
            UntrustedError: a finding could do harm; names it.
        """
        key = use, tuple(find_overlay(overlay, self.root) for overlay in overlays)
        if key not in self._passed:
            require_trust(self.root, self.trust, *key)
            self._passed.add(key)

    def resolve(
        self, config: str, overrides: Mapping[str, Any] | None = None, overlays: Sequence[str | Path] = ()
    ) -> ConfigParser:
        """Return one of its configs with overlays and overrides, ready to be resolved key by key.

        Raises:
            UntrustedError: see `require_trust`.
            ConfigError: a key that means nothing, see `medseg.config.check`.
        """
        overrides = dict(overrides or {})
        files = [self.config_file(config), *(find_overlay(overlay, self.root) for overlay in overlays)]
        merged = merge(files, overrides)
        config_check.check(self.content(config), merged, list(overrides), self.metadata)
        self.require_trust(config, overlays)
        config_check.check_derived(merged, self.content(config), self.metadata, self.root, config)
        parser = BundleParser(merged, self.root, config)
        parser.read_meta(self.metadata)
        parser["bundle_root"] = str(overrides.get("bundle_root", self.root))
        return parser
