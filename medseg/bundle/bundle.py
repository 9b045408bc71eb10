"""A bundle on disk: a recipe in `bundles/`, or the folder of a run."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.transforms.io.array import SUPPORTED_READERS

from medseg.bundle import config_check
from medseg.bundle.evaluation_context import BundleParser
from medseg.bundle.mask_parts import BuiltParts, needs_trust
from medseg.config.check import check_keys
from medseg.config.keys import check_values
from medseg.config.merge import merge, read_config
from medseg.data import VolumeReader
from medseg.errors import ConfigError, UntrustedError, command_line, quoted
from medseg.inspection.plain import TRUST_FIX
from medseg.runs.find import find_bundle
from medseg.runs.origin import is_own
from medseg.search_path import find_overlay

logger = logging.getLogger(__name__)

# MONAI warns at each LoadImaged that an optional DICOM decoder of NVIDIA is missing; medseg does not use it.
# A filter, because the logging.conf of a bundle resets the level.
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").addFilter(lambda record: False)
warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader", category=UserWarning)
# A LoadImage without a reader asks the last of these first. MONAI's NibabelReader swaps a right sform for the qform
# as soon as pixdim was rounded, and labels are turned by 180 degrees then, in silence.
SUPPORTED_READERS["volumereader"] = VolumeReader


class Bundle:
    """A bundle that was opened. Its configs can run code, and do so only where it is the user's own, or trusted.

    Args:
        root: its folder.
        trust: whether whatever its configs hold may run, though the bundle is not the user's own.

    Example:
        >>> bundle = Bundle.open("unet2d")  # doctest: +SKIP
        >>> bundle.resolve("train", {"lr": 0.01}).get_parsed_content("network")  # doctest: +SKIP
    """

    def __init__(self, root: Path, trust: bool = False) -> None:
        self.root = root.resolve()
        self.trust = trust
        self.metadata: dict[str, Any] = self.content("metadata")

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

    @functools.cached_property
    def is_own(self) -> bool:
        """Whether it is the user's own: comes with medseg, was created here, or is a run that was begun here."""
        return is_own(self.root)

    @property
    def runs_freely(self) -> bool:
        """Whether MONAI may evaluate its configs: it is the user's own, or trusted."""
        return self.trust or self.is_own

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
        return read_config(self.root / "configs" / f"{config}.json")

    def monai_command(self, config: str, key: str = "run") -> str:
        """Return the command with which MONAI itself runs a key of one of its configs, as it is."""
        return f"python -m monai.bundle run {key} --config_file {quoted(self.root / 'configs' / f'{config}.json')}"

    def require_keys(self, config: str, holder: Container[str], keys: Iterable[str]) -> None:
        """Require keys that medseg's commands look for; MONAI's own command may do without them.

        Raises:
            ConfigError: some are missing; names them, and MONAI's command.
        """
        missing = [f"'{key}'" for key in keys if key not in holder]
        if missing:
            problem = f"its {config}.json has no key {', '.join(missing)}, which medseg needs for this"
            fix = f"MONAI runs it as it is: {self.monai_command(config)}"
            raise ConfigError(f"bundle '{self.name}'", problem, "", fix)

    def require_trust(self, use: str) -> None:
        """Refuse a use that would run whatever the bundle's configs hold, unless it is the user's own or trusted.

        Args:
            use: the config that is to be used, `train` or `evaluate`; `inference` runs nothing of the bundle.

        Raises:
            UntrustedError: it came from elsewhere.
        """
        if self.runs_freely or use == "inference":
            if not self.is_own and use != "inference":
                logger.warning("%s came from elsewhere: what its configs name runs, as --trust says", self.root)
            return
        raise UntrustedError(
            f"bundle {self.root}",
            f"to use its {use}.json runs whatever that holds, and the bundle is neither medseg's own, nor was it "
            "created or begun on this machine as it is now",
            fix=f"See what it holds with: {command_line('bundle', 'inspect', self.root)}. {TRUST_FIX}",
        )

    def resolve(
        self, config: str, overrides: Mapping[str, Any] | None = None, overlays: Sequence[str | Path] = ()
    ) -> ConfigParser:
        """Return one of its configs with overlays and overrides, ready to be resolved key by key.

        The inference config of a bundle that is neither the user's own nor trusted gives only what a mask needs, and
        runs nothing: `BuiltParts`, which is asked as a parser is.

        Raises:
            UntrustedError: see `require_trust`.
            ConfigError: a key that means nothing, see `medseg.config.check`.
        """
        overrides = dict(overrides or {})
        files = [self.config_file(config), *(find_overlay(overlay, self.root) for overlay in overlays)]
        merged = merge(files, overrides)
        if config == "inference" and not self.is_own and not (self.trust and needs_trust(self, merged)):
            check_keys(self.content(config), merged, list(overrides), lambda *_: None)
            check_values(merged, self.metadata)
            return BuiltParts(self, merged, overrides)
        self.require_trust(config)
        config_check.check(self.content(config), merged, list(overrides), self.metadata)
        config_check.check_derived(merged, self.content(config), self.metadata, self.root, config)
        parser = BundleParser(merged, self.root, config)
        parser.read_meta(self.metadata)
        parser["bundle_root"] = str(overrides.get("bundle_root", self.root))
        return parser
