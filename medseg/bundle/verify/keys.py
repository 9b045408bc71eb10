"""The keys that MONAI, its zoo and what is built on both look for in configs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medseg.bundle.verify.opened import Opened
from medseg.config.paths import at, components, has, resolved_path
from medseg.config.references import is_expression, references
from medseg.findings import Finding, error, warning

# MONAI's required properties, then what the zoo's guide adds (train#handlers and on, and data under each dataset).
_TRAIN = (
    "bundle_root",
    "device",
    "dataset_dir",
    "train#trainer",
    "train#trainer#max_epochs",
    "train#dataset",
    "train#inferer",
    "train#dataset#data",
    "train#handlers",
)
_VALIDATE = ("validate#evaluator", "validate#dataset", "validate#dataset#data", "validate#handlers")
_INFERENCE = ("bundle_root", "device", "dataset_dir", "dataset", "evaluator", "network_def", "inferer")
_REQUIRED = {*_TRAIN[:7], *_INFERENCE}
# What a dataset or an engine takes must stand under the name at which MONAI looks for it.
_PROPERTIES = {
    "train": {
        "train#preprocessing": "train#dataset#transform",
        "train#postprocessing": "train#trainer#postprocessing",
        "train#key_metric": "train#trainer#key_train_metric",
        "train#handlers": "train#trainer#train_handlers",
        "validate#dataset": "validate#dataloader#dataset",
        "validate#preprocessing": "validate#dataset#transform",
        "validate#postprocessing": "validate#evaluator#postprocessing",
        "validate#key_metric": "validate#evaluator#key_val_metric",
        "validate#handlers": "validate#evaluator#val_handlers",
        "validate#inferer": "validate#evaluator#inferer",
    },
    "inference": {
        "preprocessing": "dataset#transform",
        "postprocessing": "evaluator#postprocessing",
        "key_metric": "evaluator#key_val_metric",
        "handlers": "evaluator#val_handlers",
        "inferer": "evaluator#inferer",
    },
}


def check(bundle: Opened) -> Iterator[Finding]:
    """Findings on keys that others look for and that are not there."""
    for config, content in bundle.configs.items():
        for key in _wanted(bundle, config, content):
            if not _there(content, key):
                say = error if key in _REQUIRED else warning
                yield say(
                    "key-missing",
                    bundle.location(config, key),
                    "the key is not there",
                    "MONAI or its zoo looks for it.",
                )
        if not isinstance(content.get("run"), list) or not content["run"]:
            ids = [key for key, value in content.items() if _is_run_id(key, value)]
            named = f"It runs as '{ids[0]}' alone; call it 'run', or add one." if ids else "Add a list of expressions."
            yield warning(
                "run-missing",
                bundle.location(config, "run"),
                "without it a run with no id named does nothing, and says nothing of it",
                named,
            )
        yield from _elsewhere(bundle, config, content)
        yield from _interval(bundle, config, content)


def _wanted(bundle: Opened, config: str, content: Mapping[str, Any]) -> Iterator[str]:
    is_train = "train" in content or config == "train"
    yield from _TRAIN if is_train else _INFERENCE
    if is_train and "validate" in content:
        yield from _VALIDATE
    saves = any(str(value["_target_"]).rpartition(".")[2].startswith("Save") for _, value in components(content))
    if saves:
        yield "output_dir"


def _there(content: Mapping[str, Any], key: str) -> bool:
    return has(content, resolved_path(content, key)) or has(content, key)


def _is_run_id(key: str, value: Any) -> bool:
    run = isinstance(value, list) and bool(value) and all(is_expression(one) for one in value)
    return run and key not in {"imports", "initialize", "finalize"}


def _elsewhere(bundle: Opened, config: str, content: Mapping[str, Any]) -> Iterator[Finding]:
    """What an engine takes and that does not refer to the key of which MONAI thinks that it is that."""
    wanted = _PROPERTIES["train" if "train" in content else "inference"]
    for key, location in wanted.items():
        value = at(content, location)
        if value is None or not has(content, location.rpartition("#")[0]):
            continue
        found = references(value) if isinstance(value, str) else []
        if key not in found and has(content, key):
            yield warning(
                "key-elsewhere",
                bundle.location(config, location),
                f"it does not refer to '{key}', which stands there",
                f"What looks at '{key}' is misled: refer to it.",
            )


def _interval(bundle: Opened, config: str, content: Mapping[str, Any]) -> Iterator[Finding]:
    for path, component in components(content):
        if str(component["_target_"]).endswith("ValidationHandler") and component.get("interval") != "@val_interval":
            yield warning(
                "key-elsewhere",
                bundle.location(config, f"{path}#interval"),
                "it does not refer to 'val_interval'",
                "MONAI looks for the interval there.",
            )
