"""A bundle that is looked at: its files as they stand, its configs put together, and their values where asked for."""

from __future__ import annotations

import copy
import functools
import io
import json
import re
import warnings
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from medseg.config.merge import merge
from medseg.config.paths import at, closure, has, resolved_path
from medseg.config.references import is_component, key_path
from medseg.errors import ConfigError
from medseg.findings import Finding, error, warning

METADATA = "metadata"
MAIN = ("train", "evaluate", "inference")
RECORDS = ("run.json", "manifest.json", "label_map.json")  # a folder with one of them is no mere recipe
_PLACE = "dataset_dir"
_DATASETS = re.compile(r"dataset|loader$", re.IGNORECASE)  # what opens data, by its class


class UnknownValueError(Exception):
    """A value of a config that cannot be had.

    Args:
        why: what stands in the way.
        data: whether it is that there is no data set at hand.
    """

    def __init__(self, why: str, data: bool = False) -> None:
        super().__init__(why)
        self.data = data


class Opened:
    """The files of a bundle, read once; rules share it.

    Args:
        root: its folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.faults: list[Finding] = []
        self.files: dict[str, dict[str, Any]] = {}
        self._parsers: dict[str, ConfigParser] = {}
        for path in sorted(self.root.glob("configs/*")):
            if path.suffix == ".json":
                self._read(path)
            elif path.suffix in {".yaml", ".yml"}:
                self.faults.append(
                    warning("config-yaml", self.location(path.name), "it is not looked at", "Write configs as JSON.")
                )
        self.metadata: dict[str, Any] = self.files.pop(METADATA, {})
        self.overlays = {name: self._bases(name) for name in self.files if name not in MAIN or self._is_overlay(name)}
        self.configs: dict[str, dict[str, Any]] = {}
        for name in MAIN:
            if name in self.files:
                merged = self.files[name] if name not in self.overlays else self._merged(name)
                if merged is not None:
                    self.configs[name] = merged

    def _read(self, path: Path) -> None:
        twice: list[str] = []

        def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
            names = [name for name, _ in found]
            twice.extend(sorted({name for name in names if names.count(name) > 1}))
            return dict(found)

        try:
            content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=pairs)
        except (OSError, ValueError, RecursionError) as fault:
            self.faults.append(
                error("config-unreadable", self.location(path.name), f"it is no JSON: {fault}", "Write it again.")
            )
            return
        if not isinstance(content, dict):
            self.faults.append(
                error("config-unreadable", self.location(path.name), "it holds no JSON object", "Write it again.")
            )
            return
        for name in twice:
            self.faults.append(
                error(
                    "key-twice",
                    self.location(path.name, name),
                    "the key stands twice in one object, and the last one counts alone",
                    "Remove one of them.",
                )
            )
        self.files[path.stem] = content

    def location(self, file: str, path: str = "") -> str:
        """How a finding says where: the file below the root, and the path within the config."""
        name = file if "." in file else f"{file}.json"
        return f"configs/{name}" + (f", {path}" if path else "")

    @property
    def is_recipe(self) -> bool:
        """Whether it is there to be trained: it can train, and nothing tells of a training that was."""
        return "train" in self.files and not any((self.root / name).exists() for name in RECORDS)

    @property
    def is_run(self) -> bool:
        """Whether it is the folder of a run on this machine."""
        return (self.root / "run.json").is_file()

    def _is_overlay(self, name: str) -> bool:
        """Whether a file changes another one: its keys are paths into a config, or it stands on nothing of its own."""
        return name != "train" and any("#" in key_path(key) or key.startswith("+") for key in self.files[name])

    def _bases(self, name: str) -> tuple[str, ...]:
        """The configs that an overlay goes on top of, by its name and by where its keys are."""
        there = [main for main in MAIN if main in self.files and main != name]
        named = next((main for main in MAIN if main != name and main[:5] in name.lower()), None)
        if name == "evaluate":
            return ("train",) if "train" in there else ()
        if named in there and named is not None:
            return (*self._bases(named), named) if self._is_overlay(named) else (named,)

        def known(main: str) -> int:
            return sum(has(self.files[main], key_path(key).split("#")[0]) for key in self.files[name])

        best = max(there, key=known, default=None)
        return () if best is None else (best,)

    def _merged(self, name: str) -> dict[str, Any] | None:
        """An overlay on top of its configs; None where it fits none."""
        bases = self.overlays[name]
        if not bases:
            return None
        files = [self.root / "configs" / f"{one}.json" for one in (*bases, name)]
        try:
            return merge(files, {})
        except ConfigError:
            return None  # the overlays' rule says why

    def parser(self, config: str) -> ConfigParser:
        """The parser of a config, nothing evaluated yet; macros and relative paths are put in.

        Raises:
            UnknownValueError: macros lead nowhere.
        """
        if config in self._parsers:
            return self._parsers[config]
        parser = ConfigParser(copy.deepcopy(self.configs[config]))
        parser["bundle_root"] = str(self.root)
        parser[ConfigParser.meta_key] = copy.deepcopy(self.metadata)
        try:
            parser.parse(True)
        except Exception as fault:  # whatever MONAI meets in a config that others wrote
            raise UnknownValueError(str(fault)) from fault
        self._parsers[config] = parser
        return parser

    def can_parse(self, config: str) -> bool:
        """Whether MONAI can read a config at all; where it cannot, the rule on references says why."""
        try:
            self.parser(config)
        except UnknownValueError:
            return False
        return True

    def expanded(self, config: str) -> dict[str, Any]:
        """A config with its macros put in, as MONAI reads it; as it stands where they lead nowhere."""
        try:
            return dict(self.parser(config).get())
        except UnknownValueError:
            return self.configs[config]

    def needs_dataset(self, config: str, value: Any) -> bool:
        """Whether a value hangs on a data set that would have to be opened for it."""
        content = self.expanded(config)
        for path in closure(content, value):
            entry = at(content, resolved_path(content, path))
            if is_component(entry) and _DATASETS.search(str(entry["_target_"]).rpartition(".")[2]):
                return True
        return False

    def value(self, config: str, path: str) -> Any:
        """What MONAI makes of the entry at a path.

        Raises:
            UnknownValueError: it hangs on the data, or cannot be made.
        """
        entry = at(self.expanded(config), path)
        if self.needs_dataset(config, entry):
            raise UnknownValueError(f"{path} hangs on the data", data=True)
        try:
            with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                return self.parser(config).get_parsed_content(path)
        except UnknownValueError:
            raise
        except Exception as fault:  # whatever the bundle's own parts raise
            raise UnknownValueError(cause(fault), _PLACE in closure(self.expanded(config), entry)) from fault

    @functools.cached_property
    def networks(self) -> dict[str, Any]:
        """The network of each config, without weights, on the CPU, or the UnknownValueError that it is not built for.

        One is enough: of those after it only arguments are compared.
        """
        found: dict[str, Any] = {}
        for config in ("inference", "evaluate", "train"):
            content = self.configs.get(config, {})
            if "network_def" not in content or not self.can_parse(config):
                continue
            try:
                if config == "train" and self._pretrained():
                    raise UnknownValueError("it would fetch weights to begin with", data=True)
                found[config] = self.value(config, "network_def")
                break
            except UnknownValueError as fault:
                found[config] = fault
        return found

    def _pretrained(self) -> bool:
        given = mapping(self.configs["train"]["network_def"]).get("pretrained")
        try:
            return bool(self.value("train", "network_def#pretrained")) if given is not None else False
        except UnknownValueError:
            return True

    @property
    def network(self) -> Any:
        """The first network that can be built; None where none can be."""
        return next((one for one in self.networks.values() if not isinstance(one, UnknownValueError)), None)


def cause(fault: BaseException) -> str:
    """What an exception says at its root, in one line."""
    while fault.__cause__ is not None:
        fault = fault.__cause__
    first = next((line.strip() for line in str(fault).splitlines() if line.strip()), "")
    return f"{type(fault).__name__}: {first}"[:300]


def mapping(value: Any) -> Mapping[str, Any]:
    """The value where it is a mapping, and an empty one where it is not."""
    return value if isinstance(value, Mapping) else {}
