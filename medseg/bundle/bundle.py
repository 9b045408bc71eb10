"""A bundle on disk: a recipe in `bundles/`, or the folder of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from medseg.bundle import config_check
from medseg.bundle.evaluation_context import METADATA, BundleParser
from medseg.config.merge import merge
from medseg.errors import ConfigError, did_you_mean
from medseg.search_path import search_path


def find_bundle(name: str | Path) -> Path:
    """The folder of a bundle, by path or by name.

    Raises:
        ConfigError: there is none; names those there are.
    """
    given = Path(name)
    for location in [given, *(home / "bundles" / given for home in search_path())]:
        if (location / "configs" / METADATA).is_file():
            return location
    places = (path.parents[1].name for home in search_path() for path in home.glob(f"bundles/*/configs/{METADATA}"))
    known = sorted(
        {location for location in places if not location.startswith(".")}
    )  # an install that goes on, or was killed
    fix = did_you_mean(str(name), known, f"Known by name: {', '.join(known) or 'none'}.")
    found = f"a folder without configs/{METADATA}" if given.is_dir() else "none of that path or name"
    raise ConfigError(f"bundle '{name}'", "must be a bundle or the folder of a run", found, fix)


def find_overlay(name: str | Path, root: Path) -> Path:
    """The file of an overlay: a path, or a name in the bundle's `configs` or in the common `configs`.

    Raises:
        ConfigError: there is none; names those there are.
    """
    given = Path(name)
    named = given.name if given.suffix == ".json" else f"{given.name}.json"
    folders = [root / "configs", *(home / "configs" for home in search_path())]
    for location in [given, *(home / given for home in search_path()), *(folder / named for folder in folders)]:
        if location.is_file():
            return location
    own = {"train", "evaluate", "inference", "metadata", "tracking"}
    known = sorted({path.stem for folder in folders for path in folder.glob("*.json")} - own)
    fix = did_you_mean(given.stem, known, f"There are: {', '.join(known) or 'none'}.")
    raise ConfigError(f"overlay '{name}'", "must be a JSON file or the name of an overlay", "none", fix)


class Bundle:
    """A bundle that was opened; nothing of it is executed before `resolve`.

    Args:
        root: its folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.metadata: dict[str, Any] = self.content("metadata")

    @classmethod
    def open(cls, name: str | Path) -> Bundle:
        """Open a bundle by path or name.

        Raises:
            ConfigError: there is none.
        """
        return cls(find_bundle(name))

    @property
    def name(self) -> str:
        """The name in its metadata."""
        return str(self.metadata.get("name", self.root.name))

    @property
    def is_ours(self) -> bool:
        """Whether it is one of the recipes that come with medseg."""
        return any(self.root.parent == (home / "bundles").resolve() for home in search_path()[1:])

    def config_file(self, config: str) -> Path:
        """The path of one of its configs.

        Raises:
            ConfigError: it has none of that name.
        """
        path = self.root / "configs" / f"{config}.json"
        if not path.is_file():
            raise ConfigError(self.root, f"must hold configs/{config}.json to be used for this", "no such file")
        return path

    def content(self, config: str) -> dict[str, Any]:
        """One of its configs as it stands in the file, or its metadata.

        Raises:
            ConfigError: the file is missing or holds no JSON object.
        """
        path = self.root / "configs" / f"{config}.json"
        try:
            return dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise ConfigError(path, "must be a JSON object", str(error)) from error

    def resolve(
        self, config: str, overrides: Mapping[str, Any] | None = None, overlays: Sequence[str | Path] = ()
    ) -> ConfigParser:
        """One of its configs with overlays and overrides, checked strictly, ready to be resolved key by key.

        Raises:
            ConfigError: a key that means nothing, see `medseg.config.check`.
        """
        overrides = dict(overrides or {})
        files = [self.config_file(config), *(find_overlay(overlay, self.root) for overlay in overlays)]
        merged = merge(files, overrides)
        config_check.check(self.content(config), merged, list(overrides))
        parser = BundleParser(merged, self.root)
        parser.read_meta(self.metadata)
        parser["bundle_root"] = str(overrides.get("bundle_root", self.root))
        return parser
