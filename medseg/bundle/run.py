"""Running a bundle: the effective config, the identity of the run, and its folder as a bundle of its own."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import monai.bundle

from medseg.atomic import write_json
from medseg.bundle import strict
from medseg.bundle.bundle import Bundle, find_overlay
from medseg.bundle.source import METADATA, effective_config
from medseg.cases import Dataset
from medseg.errors import ConfigError
from medseg.labels import LabelMap
from medseg.training import Run, find_unfinished
from medseg.training.run import identity, new_folder

logger = logging.getLogger(__name__)

# What says where things lie or how this machine computes, not what is computed.
PLACES = (
    "bundle_root",
    "output_dir",
    "dataset_dir",
    "device",
    "num_workers",
    "resume",
    strict.TRACKING,
    monai.bundle.ConfigParser.meta_key,
)


def run_bundle(
    bundle: Bundle,
    run_id: str,
    config: str = "train",
    overlays: Sequence[str | Path] = (),
    overrides: Mapping[str, Any] | None = None,
) -> None:
    """Run a config of a bundle through MONAI, as `python -m monai.bundle run` does, after a strict check.

    Args:
        bundle: the bundle.
        run_id: the key to run, `training` or `evaluating`.
        config: which of its configs.
        overlays: files or names of overlays, later ones overrule earlier ones.
        overrides: values by key, `train#trainer#max_epochs`.

    Raises:
        ConfigError: a key that means nothing; checked before anything starts.
    """
    overrides = dict(overrides or {})
    bundle.resolve(config, overrides, overlays)
    files = [bundle.config_file(config), *(find_overlay(overlay, bundle.root) for overlay in overlays)]
    folder = bundle.root / "configs"
    # MONAI warns that overlays lie elsewhere, which matters only to who does not name metadata and logging.
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        if bundle.is_ours:  # what MONAI says of foreign configs, that they can run any code, is said for those alone
            warnings.filterwarnings("ignore", message="parsing config_file", category=UserWarning)
        monai.bundle.run(
            run_id=run_id,
            config_file=[str(file) for file in files],
            meta_file=str(folder / METADATA),
            logging_file=str(folder / "logging.conf"),
            **overrides,
        )


def check_config(root: str, config: str) -> None:
    """Check the config that is being evaluated against the one in the bundle; for `initialize`.

    So the plain MONAI command refuses a mistyped override, too.

    Raises:
        ConfigError: a key that means nothing.
    """
    merged = effective_config()
    if merged is not None:
        strict.check(Bundle(Path(root)).content(config), merged)


def start_run(
    root: str,
    output_dir: str,
    dataset: Dataset,
    labels: LabelMap,
    name: str,
    resume: bool = True,
    config: str = "train",
) -> Run:
    """The run of the config that is being evaluated: an unfinished one of the same identity, or a new one.

    Nothing is written before it trains.

    Args:
        root: the bundle's folder.
        output_dir: the run's folder is `<output_dir>/<bundle>/<time>-<name>`.
        dataset: what it trains on.
        labels: the classes of the network.
        name: what the run is called.
        resume: whether an unfinished run is gone on with.
        config: which config is being evaluated.

    Raises:
        ConfigError: called outside of the evaluation of a config.
    """
    merged = effective_config()
    if merged is None:
        raise ConfigError("start_run", "must be called by a config", "no config that is being evaluated")
    bundle = Bundle(Path(root))
    fingerprint = dataset.fingerprint()
    who = identity({key: value for key, value in merged.items() if key not in PLACES}, fingerprint)
    parent = Path(output_dir).resolve() / bundle.name
    unfinished = find_unfinished(parent, who) if resume else None
    if unfinished is not None:
        logger.info("This run was started before and did not finish: going on in %s", unfinished)
    about = {
        "bundle": bundle.name,
        "name": name,
        "dataset": str(dataset.root),
        "data": fingerprint,
        "cases": {side: list(getattr(dataset.split, side)) for side in ("train", "val", "test")},
        "command": sys.argv,
        "working_directory": str(Path().resolve()),
    }

    def furnish(folder: Path) -> None:
        _write_bundle(folder, bundle, config, merged, labels)

    return Run(unfinished or new_folder(parent, name), who, about, furnish)


def _write_bundle(folder: Path, bundle: Bundle, config: str, merged: Mapping[str, Any], labels: LabelMap) -> None:
    """Make the run's folder a bundle: configs as they run, label map, docs; the weights come with training."""
    if folder.resolve() == bundle.root:
        return
    effective = {key: value for key, value in merged.items() if key != monai.bundle.ConfigParser.meta_key}
    recipe = bundle.content(config)
    effective["bundle_root"] = recipe["bundle_root"]
    for name in ("train", "evaluate", "inference"):
        if (bundle.root / "configs" / f"{name}.json").is_file():
            content = effective if name == config else _shared(bundle.content(name), recipe, effective)
            write_json(folder / "configs" / f"{name}.json", json.loads(json.dumps(content, default=repr)))
    metadata = dict(bundle.metadata)
    outputs = metadata.get("network_data_format", {}).get("outputs", {}).get("pred")
    if outputs is not None:
        outputs["channel_def"] = labels.to_dict()
    write_json(folder / "configs" / METADATA, metadata)
    for name in ("configs/logging.conf", "docs/README.md", "LICENSE"):
        if (bundle.root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.root / name, folder / name)
    labels.save(folder / "label_map.json")


def _shared(other: dict[str, Any], recipe: Mapping[str, Any], effective: Mapping[str, Any]) -> dict[str, Any]:
    """A config in which everything that the recipe shares with the one that runs is as it runs.

    Shared is what both recipes say in the same words (network, preprocessing, spacing ...), and whatever that
    refers to.
    """
    result = dict(other)
    shared = [key for key in other if key not in PLACES and key in recipe and recipe[key] == other[key]]
    while shared:
        key = shared.pop()
        result[key] = effective[key]
        new = {reference.split("#")[0] for reference in strict.references(effective[key])}
        shared += [name for name in new if name in effective and name not in result]
    return result
