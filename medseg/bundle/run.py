"""Running a bundle: the effective config, the identity of the run, and its folder as a bundle of its own."""

from __future__ import annotations

import copy
import logging
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.atomic import write_json
from medseg.bundle import config_check, run_identity
from medseg.bundle.addresses import without_addresses
from medseg.bundle.bundle import Bundle
from medseg.bundle.evaluation_context import (
    METADATA,
    BundleWorkflow,
    EvaluationContext,
    current_context,
    say_errors_last,
)
from medseg.bundle.run_identity import HARMLESS_KEYS
from medseg.cases import DatasetIndex
from medseg.config.diff import differences
from medseg.config.merge import read_config
from medseg.config.references import TARGET, top_key, used_paths
from medseg.data.intensity_reference import KEY as TRAINING_IMAGES
from medseg.data.intensity_reference import describe_training
from medseg.errors import ConfigError
from medseg.findings import names_of
from medseg.labels import LabelMap
from medseg.runs import Run
from medseg.runs.find import find_unfinished
from medseg.runs.origin import remember_start, was_started_here
from medseg.runs.record import read_record
from medseg.search_path import find_overlay
from medseg.training import Backup, TrainingRun
from medseg.training.restore import fetch, newest_copy
from medseg.training.run import identity, new_folder

logger = logging.getLogger(__name__)


def run_bundle(
    bundle: Bundle,
    run_id: str,
    config: str = "train",
    overlays: Sequence[str | Path] = (),
    overrides: Mapping[str, Any] | None = None,
) -> Run | None:
    """Run a config of a bundle through MONAI, as `python -m monai.bundle run` does, after a strict check.

    Args:
        bundle: the bundle.
        run_id: the key to run, `training` or `evaluating`.
        config: which of its configs.
        overlays: files or names of overlays, later ones overrule earlier ones.
        overrides: values by key, `train#trainer#max_epochs`.

    Returns:
        The run that the config started; None for a config that starts none.

    Raises:
        ConfigError: a key that means nothing; checked before anything starts.

    Example:
        >>> run = run_bundle(Bundle.open("unet2d"), "training", overrides={"max_epochs": 5})  # doctest: +SKIP
        >>> run.best.dice  # doctest: +SKIP
        0.8125
    """
    overrides = {key: _as_text(value) for key, value in (overrides or {}).items()}
    run_id = _run_id(bundle, config, bundle.resolve(config, overrides, overlays), run_id)
    files = [bundle.config_file(config), *(find_overlay(overlay, bundle.root) for overlay in overlays)]
    overrides = {**without_addresses(bundle, files, overrides), **overrides}
    folder = bundle.root / "configs"
    # MONAI warns that overlays are in another folder, which matters only where metadata and logging are not named.
    logging.getLogger("monai.bundle.workflows").setLevel(logging.ERROR)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as location:
        nulls = {key: value for key, value in overrides.items() if value is None}
        if nulls:  # MONAI takes them for arguments that were not given; in a file they say what they say
            files.append(Path(location, "nulls.json"))
            write_json(files[-1], nulls)
        if bundle.is_own:  # MONAI warns that a config can run any code, which matters for foreign ones only
            warnings.filterwarnings("ignore", message="parsing config_file", category=UserWarning)
        workflow = BundleWorkflow(
            bundle.root,
            config,
            run_id=run_id,
            config_file=[str(file) for file in files],
            meta_file=str(folder / METADATA),
            logging_file=str(folder / "logging.conf") if (folder / "logging.conf").is_file() else False,
            workflow_type=None,
            **{key: value for key, value in overrides.items() if value is not None},
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    started = workflow.context.run
    return None if started is None else Run(started.folder)


def _run_id(bundle: Bundle, config: str, content: Container[str], run_id: str) -> str:
    """Return the key to run: MONAI's zoo has `run` where others have `training`."""
    bundle.require_keys(config, content, [run_id] if "run" not in content else [])
    return run_id if run_id in content else "run"


def _as_text(value: Any) -> Any:
    """Return a path, or the folder of a run, as a config has it; anything else as it is."""
    value = value.folder if isinstance(value, Run) else value
    return str(value) if isinstance(value, Path) else value


def check_config(root: str, config: str) -> None:
    """Check the config that is being evaluated against the one in the bundle; for `initialize`.

    So the plain MONAI command refuses a mistyped override, too.

    Raises:
        ConfigError: a key that means nothing.
    """
    context = current_context()
    if context is not None:
        bundle, merged = Bundle(Path(root)), context.config()
        say_errors_last()
        config_check.check(bundle.content(config), merged, (), bundle.metadata)
        config_check.check_derived(merged, bundle.content(config), bundle.metadata, bundle.root, config)


def resume_run(folder: str | Path, overrides: Mapping[str, Any] | None = None, trust: bool = False) -> None:
    """Resume a run from its folder, with the settings with which it was started and these overrides.

    A run that finished trains on if `max_epochs` is raised.

    Args:
        folder: the run's folder.
        overrides: values by key; only such as do not change what it has computed so far.
        trust: True to run it even if it was begun elsewhere.

    Raises:
        ConfigError: a setting that cannot change, see `medseg.bundle.run_identity.compare_configs`.
        RunError: nothing is left to do.
        UntrustedError: it was not begun on this machine.
    """
    root = Path(folder).resolve()
    overrides = {**(overrides or {}), "resume": str(root)}
    Bundle.open(root, trust).require_trust("train")  # before anything is fetched from a backup that it names
    update_from_backup(root, overrides)
    run_bundle(Bundle.open(root, trust), "training", "train", (), overrides)


def update_from_backup(root: Path, overrides: Mapping[str, Any]) -> bool:
    """Replace the folder of a run by the copy in its backup where that got further, and return True then.

    This happens before anything of the folder is in use: a run can then be resumed from its own folder, whichever
    machine had it last. A folder that is no run, or has no backup, is left alone.

    Args:
        root: the folder of a bundle, or of a run.
        overrides: may name another `backup`.

    Raises:
        ConfigError, OutputError, RunError: see `medseg.training.restore.newest_copy`.
    """
    if not run_identity.is_run(root):
        return False
    config = run_identity.read_run_config(root)
    started_here = was_started_here(root)
    backup = overrides.get("backup", config.get("backup") if started_here else None)
    if not isinstance(backup, str) or backup[:1] in ("$", "@", "%"):
        return False
    record = read_record(root)
    configs = [(file, read_config(file)) for file in sorted((root / "configs").glob("*.json"))]
    newest_copy(backup, root)
    if read_record(root) == record:
        return False
    # What went on elsewhere with the same settings is still what was started here. All of it must be the same: what is
    # remembered runs without --trust.
    if started_here and all(
        not differences(before, read_config(file), ignore=("dataset_dir",)) for file, before in configs
    ):
        remember_start(root)
    return True


def start_run(
    root: str,
    output_dir: str,
    dataset: DatasetIndex,
    labels: LabelMap,
    name: str,
    resume: bool | str = True,
    backup: str | None = None,
    config: str = "train",
) -> TrainingRun:
    """Return the run of the config that is being evaluated: an unfinished one of the same identity, or a new one.

    Nothing is written before it trains, but for a run that is brought here from its backup.

    Args:
        root: the bundle's folder.
        output_dir: the run's folder is `<output_dir>/<bundle>/<time>-<name>`.
        dataset: what it trains on.
        labels: the classes of the network.
        name: what the run is called.
        resume: True to resume an unfinished run of the same identity; the folder or the name of a run to resume that.
        backup: where a copy of the run is kept, see `medseg.training.Backup`; None keeps none.
        config: which config is being evaluated.

    Raises:
        ConfigError: called outside of the evaluation of a config; a backup that cannot be; or a run that was asked
            for and cannot be resumed with what has changed.
        RunError: the bundle is the folder of a run whose backup got further.
    """
    context = current_context()
    if context is None:
        raise ConfigError("start_run", "only the expression of a config can start a run")
    merged = context.config()
    if merged.get("structures", "") is None:
        merged["structures"] = list(labels.structures)  # the set's, which is another run where the set has others
    bundle = Bundle(Path(root))
    data = run_identity.data_fingerprints(dataset)
    harmless = tuple(bundle.metadata.get("harmless_keys", ()))
    run_hash = identity(run_identity.result_config(run_identity.json_config(merged), harmless), data["data"])
    parent = Path(output_dir).resolve() / bundle.name

    def newest(folder: Path) -> Path:
        return folder if backup is None else newest_copy(backup, folder, in_use=folder == bundle.root)

    if isinstance(resume, str):
        existing: Path | None = run_identity.resumable_run(
            resume, parent, bundle.name, merged, data, config, newest, harmless
        )
    else:
        existing = _unfinished(bundle, parent, run_hash, backup) if resume else None
    if existing is not None:
        logger.info("This run was started before and is resumed in %s", existing)
        run_identity.log_changes(existing, merged, config)
    elif resume:
        run_identity.log_similar_runs(parent, merged, data, config, harmless)
    patch = context.value("patch_size") or context.value("image_size") or ()
    logger.info(
        "Data: %d cases to train on, %d to validate, in %s; %d structures: %s%s",
        len(dataset.split.train),
        len(dataset.split.val),
        dataset.root,
        len(labels) - 1,
        names_of(labels.structures),
        f"; patches of {' x '.join(map(str, patch))}" if patch else "",
    )
    facts: dict[str, Any] = {
        "bundle": bundle.name,
        "name": name,
        "dataset": str(dataset.root),
        **data,
        "cases": {subset: list(getattr(dataset.split, subset)) for subset in ("train", "val", "test")},
        "command": sys.argv,
    }

    def prepare(folder: Path) -> None:
        images = [case.image for case in dataset.subset("train")]
        _write_bundle(folder, bundle, config, merged, labels, context, images)
        remember_start(folder)
        palette = dataset.class_colors
        if palette is not None and palette.colored:  # so that masks get the colors of the data set
            colors = dict(zip(palette.names, palette.codes, strict=True))
            write_json(folder / "classes.json", {name: list(colors[name]) for name in labels.names if name in colors})

    folder = existing or new_folder(parent, name)
    copy_elsewhere = None if backup is None else Backup(backup, folder)
    if copy_elsewhere is not None:
        copy_elsewhere.check()
    run = TrainingRun(folder, run_hash, facts, prepare, copy_elsewhere)
    context.run = run
    return run


def _unfinished(bundle: Bundle, parent: Path, run_hash: str, backup: str | None) -> Path | None:
    """Return the run of this identity to resume: the bundle's own folder, or one of the runs here or in the backup."""
    if run_identity.is_run(bundle.root) and run_identity.is_unfinished(bundle.root, run_hash):
        return bundle.root if backup is None else newest_copy(backup, bundle.root, in_use=True)
    return fetch(backup, run_hash, parent) if backup is not None else find_unfinished(parent, run_hash)


def _write_bundle(
    folder: Path,
    bundle: Bundle,
    config: str,
    merged: Mapping[str, Any],
    labels: LabelMap,
    context: EvaluationContext,
    images: Sequence[Path],
) -> None:
    """Make the run's folder a bundle: configs as they run, label map, docs; the weights come with training."""
    recipe = bundle.content(config)
    effective = {**run_identity.json_config(merged), "bundle_root": recipe["bundle_root"], "resume": True}
    if "output_dir" in recipe:
        effective["output_dir"] = recipe["output_dir"]  # where the run's folder lies is seen from the folder itself
    names = [name for name in ("train", "evaluate", "inference") if (bundle.root / f"configs/{name}.json").is_file()]
    contents = {name: _shared(bundle.content(name), recipe, effective) for name in names if name != config}
    for name, content in {**contents, config: effective}.items():
        write_json(folder / "configs" / f"{name}.json", run_identity.json_config(content))
    if folder.resolve() == bundle.root:
        return
    metadata = {**_metadata_of_run(bundle.metadata, labels, context), TRAINING_IMAGES: describe_training(images)}
    write_json(folder / "configs" / METADATA, metadata)
    for name in ("configs/logging.conf", "docs/README.md", "LICENSE"):
        if (bundle.root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.root / name, folder / name)
    labels.save(folder / "label_map.json")


def _metadata_of_run(metadata: Mapping[str, Any], labels: LabelMap, context: EvaluationContext) -> dict[str, Any]:
    """Return the bundle's metadata with the run's own channels.

    `channel_def` of the output names the values of the label map that inference writes: also where the channels
    overlap and the network has none for the background.
    """
    content = copy.deepcopy(dict(metadata))
    content["description"] = without_recipe_note(content.get("description", ""))
    tensors = content.get("network_data_format", {})
    image = tensors.get("inputs", {}).get("image")
    pred = tensors.get("outputs", {}).get("pred")
    inputs = context.value("in_channels")
    outputs = context.value("out_channels")
    if image is not None and inputs not in (None, image.get("num_channels")):
        names = {str(channel): f"image_{channel}" for channel in range(inputs)}
        image |= {"num_channels": inputs, "channel_def": names}
    if pred is not None:
        pred |= {"channel_def": labels.to_dict()} | ({} if outputs is None else {"num_channels": outputs})
    return content


def without_recipe_note(description: Any) -> Any:
    """Return a description without the sentence that a recipe comes without weights."""
    is_text = isinstance(description, str)
    return re.sub(r"\s*A recipe[^.:]*: it comes without weights\.", "", description).strip() if is_text else description


def _shared(content: dict[str, Any], recipe: Mapping[str, Any], effective: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config in which everything that the recipe shares with the one that runs is as it runs.

    Shared is what both recipes have in the same words (network, preprocessing, spacing ...), whole or entry by entry
    of the same component, and whatever that refers to.
    """
    result = dict(content)
    shared = [key for key in content if key not in HARMLESS_KEYS and key in recipe]
    new: set[str] = set()
    for key in shared:
        result[key] = _as_it_ran(content[key], recipe[key], effective.get(key))
        if result[key] != content[key]:
            new |= {top_key(path) for path in used_paths(result[key])}
    while new:
        key = new.pop()
        if key in effective and key not in result:
            result[key] = effective[key]
            new |= {top_key(path) for path in used_paths(effective[key])}
    return result


def _as_it_ran(content: Any, recipe: Any, effective: Any) -> Any:
    """Return a value as it ran where both recipes have the same; of two components of one class entry by entry."""
    if content == recipe:
        return effective
    parts = (content, recipe, effective)
    if not all(isinstance(part, Mapping) for part in parts) or len({part.get(TARGET) for part in parts}) != 1:
        return content
    return {
        key: _as_it_ran(value, recipe[key], effective[key]) if key in recipe and key in effective else value
        for key, value in content.items()
    }
