"""Open a bundle for verification: its files as they stand, its configs merged, and their values where asked for."""

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

from medseg.bundle.mask_parts import make_component
from medseg.config.merge import merge
from medseg.config.paths import at, closure, has, resolved_path
from medseg.config.references import is_component, key_path
from medseg.errors import ConfigError, first_line
from medseg.findings import Finding, error, warning
from medseg.inspection.forms import Device
from medseg.inspection.mask_parts import MaskParts
from medseg.inspection.plain import LABEL_MAP, expanded
from medseg.labels import LabelMap

METADATA = "metadata"
MAIN = ("train", "evaluate", "inference")
TRAINED = ("run.json", "manifest.json", "label_map.json")  # a folder with one of these was trained, it is no recipe
_DATA_KEY = "dataset_dir"
_DATASETS = re.compile(r"dataset|loader$", re.IGNORECASE)  # class names of what opens data


class UnknownValueError(Exception):
    """A config's value that cannot be computed.

    Args:
        reason: what stands in the way.
        needs_data: True if only a dataset is missing.
    """

    def __init__(self, reason: str, needs_data: bool = False) -> None:
        super().__init__(reason)
        self.needs_data = needs_data


class BundleFiles:
    """The files of a bundle, read once and shared by all rules.

    Args:
        root: the bundle's folder.
        runs_freely: whether its expressions are evaluated and its own modules imported; else only what
            `medseg.inspection.plain` resolves is known.

    Attributes:
        files: content of each `configs/*.json` by its stem, metadata left out.
        metadata: content of `metadata.json`.
        overlays: for each file that changes other configs, the names of those configs.
        configs: train, evaluate and inference, overlays among them merged with what they change.
        findings: what reading the files found.
    """

    def __init__(self, root: Path, runs_freely: bool = True) -> None:
        self.root = root.resolve()
        self.runs_freely = runs_freely
        self.findings: list[Finding] = []
        self.files: dict[str, dict[str, Any]] = {}
        self._parsers: dict[str, ConfigParser] = {}
        for path in sorted(self.root.glob("configs/*")):
            if path.suffix == ".json":
                self._read(path)
            elif path.suffix in {".yaml", ".yml"}:
                message = "configs in YAML are not checked"
                self.findings.append(warning("config-yaml", self.location(path.name), message, "Write it as JSON."))
        self.metadata: dict[str, Any] = self.files.pop(METADATA, {})
        self.overlays = {name: self._bases(name) for name in self.files if name not in MAIN or self._is_overlay(name)}
        self.configs: dict[str, dict[str, Any]] = {}
        for name in MAIN:
            if name in self.files:
                merged = self.files[name] if name not in self.overlays else self._merged(name)
                if merged is not None:
                    self.configs[name] = merged

    def _read(self, path: Path) -> None:
        repeated: list[str] = []

        def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
            names = [name for name, _ in items]
            repeated.extend(sorted({name for name in names if names.count(name) > 1}))
            return dict(items)

        try:
            content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=pairs)
            if not isinstance(content, dict):
                raise ValueError("it is not a JSON object")  # noqa: TRY004
        except (OSError, ValueError, RecursionError) as problem:
            message = f"the file cannot be read as JSON: {first_line(problem)}"
            self.findings.append(error("config-unreadable", self.location(path.name), message, "Write it again."))
            return
        for name in repeated:
            message = "one object has this key twice, and only the last one counts"
            self.findings.append(error("key-twice", self.location(path.name, name), message, "Remove one of them."))
        self.files[path.stem] = content

    def location(self, file: str, path: str = "") -> str:
        """Return what a finding calls an entry: the file below the root, and the path within the config."""
        name = file if "." in file else f"{file}.json"
        return f"configs/{name}" + (f", {path}" if path else "")

    @property
    def is_recipe(self) -> bool:
        """True for a bundle that can be trained and never was."""
        return "train" in self.files and not any((self.root / name).exists() for name in TRAINED)

    @property
    def is_run(self) -> bool:
        """True for the folder of a run on this machine."""
        return (self.root / "run.json").is_file()

    def _is_overlay(self, name: str) -> bool:
        """Return True for a file that changes another one: its keys are paths into a config."""
        return name != "train" and any("#" in key_path(key) or key.startswith("+") for key in self.files[name])

    def _bases(self, name: str) -> tuple[str, ...]:
        """Return the configs that an overlay is merged on, by its name and by where its keys are."""
        candidates = [main for main in MAIN if main in self.files and main != name]
        named = next((main for main in MAIN if main != name and main[:5] in name.lower()), None)
        if name == "evaluate":
            return ("train",) if "train" in candidates else ()
        if named in candidates and named is not None:
            return (*self._bases(named), named) if self._is_overlay(named) else (named,)

        def shared_keys(main: str) -> int:
            return sum(has(self.files[main], key_path(key).split("#")[0]) for key in self.files[name])

        best = max(candidates, key=shared_keys, default=None)
        return () if best is None else (best,)

    def _merged(self, name: str) -> dict[str, Any] | None:
        """Return an overlay merged with its configs; None where it fits none, which the rule on overlays reports."""
        if not self.overlays[name]:
            return None
        try:
            return merge([self.root / "configs" / f"{base}.json" for base in (*self.overlays[name], name)], {})
        except ConfigError:
            return None

    def parser(self, config: str) -> ConfigParser:
        """Return MONAI's parser of a config: macros and relative paths resolved, nothing evaluated.

        Raises:
            UnknownValueError: MONAI cannot parse it.
        """
        if config in self._parsers:
            return self._parsers[config]
        try:
            content = copy.deepcopy(self.configs[config]) if self.runs_freely else expanded(self.configs[config])
            parser = ConfigParser(content)
            parser["bundle_root"] = str(self.root)
            parser[ConfigParser.meta_key] = copy.deepcopy(self.metadata)
            parser.parse(True)
        except Exception as problem:  # whatever MONAI meets in a stranger's config
            raise UnknownValueError(str(problem)) from problem
        self._parsers[config] = parser
        return parser

    def can_parse(self, config: str) -> bool:
        """Return True if MONAI can parse a config; where it cannot, the rule on references says why."""
        try:
            self.parser(config)
        except UnknownValueError:
            return False
        return True

    def expanded(self, config: str) -> dict[str, Any]:
        """Return a config with its macros resolved as MONAI does; as it is written where they lead nowhere."""
        try:
            return dict(self.parser(config).get())
        except UnknownValueError:
            return self.configs[config]

    def needs_dataset(self, config: str, value: Any) -> bool:
        """Return True if a value refers to a component that opens a dataset."""
        content = self.expanded(config)
        for path in closure(content, value):
            entry = at(content, resolved_path(content, path))
            if is_component(entry) and _DATASETS.search(str(entry["_target_"]).rpartition(".")[2]):
                return True
        return False

    def value(self, config: str, path: str) -> Any:
        """Return what MONAI makes of the entry at a path.

        Raises:
            UnknownValueError: it depends on the dataset, or evaluating it fails.
        """
        entry = at(self.expanded(config), path)
        if self.needs_dataset(config, entry):
            raise UnknownValueError(f"{path} depends on the dataset", needs_data=True)
        try:
            with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
                warnings.simplefilter("ignore")
                if not self.runs_freely:
                    return self._plain(config).get_parsed_content(path)
                return self.parser(config).get_parsed_content(path.replace("#", "::"))
        except UnknownValueError:
            raise
        except Exception as problem:  # whatever the bundle's own parts raise
            needs_data = _DATA_KEY in closure(self.expanded(config), entry)
            raise UnknownValueError(root_cause(problem), needs_data) from problem

    def _plain(self, config: str) -> MaskParts:
        file = self.root / LABEL_MAP
        label_map = LabelMap.load(file).to_dict() if file.is_file() else None
        values = {"bundle_root": str(self.root), "device": Device("cpu")}
        return MaskParts(self.configs[config], self.root, make_component, values, self.metadata, label_map)

    @functools.cached_property
    def networks(self) -> dict[str, Any]:
        """The first network that can be built, on the CPU and without weights, by its config.

        Configs tried before it have the UnknownValueError that kept theirs from being built. One network is enough:
        of the others only arguments are compared.
        """
        built: dict[str, Any] = {}
        for config in ("inference", "evaluate", "train"):
            content = self.configs.get(config, {})
            if "network_def" not in content or not self.can_parse(config):
                continue
            try:
                if config == "train" and self._downloads_weights():
                    raise UnknownValueError("it would download pretrained weights", needs_data=True)
                built[config] = self.value(config, "network_def")
                break
            except UnknownValueError as problem:
                built[config] = problem
        return built

    def _downloads_weights(self) -> bool:
        if as_mapping(self.configs["train"]["network_def"]).get("pretrained") is None:
            return False
        try:
            return bool(self.value("train", "network_def#pretrained"))
        except UnknownValueError:
            return True

    @property
    def network(self) -> Any:
        """The first network that can be built; None where none can."""
        return next((built for built in self.networks.values() if not isinstance(built, UnknownValueError)), None)


def bundle_folder(folder: Path) -> Path:
    """Return the bundle in a folder that a zip was unpacked to: the folder itself, or the only one in it."""
    inner = [path.parents[1] for path in folder.glob(f"*/configs/{METADATA}.json")]
    return inner[0] if len(inner) == 1 and not (folder / "configs").is_dir() else folder


def root_cause(problem: BaseException) -> str:
    """Return class and message of the exception at the root of a chain, in one line."""
    while problem.__cause__ is not None:
        problem = problem.__cause__
    return first_line(problem)[:300]


def as_mapping(value: Any) -> Mapping[str, Any]:
    """Return the value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}
