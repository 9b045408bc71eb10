"""References: whether what each refers to is there, and whether anything refers to what is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from monai.bundle.properties import InferProperties, TrainProperties
from monai.utils import BundlePropertyConfig

from medseg.bundle import config_check
from medseg.bundle.verify.opened import Opened
from medseg.config.merge import merge
from medseg.config.paths import has, resolved_path, walk
from medseg.config.references import SPECIAL_KEYS, is_component, is_expression, key_path, macro, references
from medseg.errors import ConfigError, did_you_mean
from medseg.findings import Finding, error, warning

# What MONAI, its zoo, MONAI Label and medseg itself look for by name, in any config.
_BY_NAME = {
    "imports", "initialize", "finalize", "run", "bundle_root", "output_dir", "ckpt_path", "ckpt_dir", "network",
    "labels", "displayable_configs", "volume_preprocessing", "volume_inferer", "spacing", "in_channels",
    "out_channels", "amp", "use_mlflow", "save_execute_config", "train", "validate", "datalist", "checkpointloader",
}  # fmt: skip
_PROPERTIES = {
    key_path(str(one[BundlePropertyConfig.ID])) for one in [*TrainProperties.values(), *InferProperties.values()]
}


def check(bundle: Opened) -> Iterator[Finding]:
    """Findings on references that lead nowhere, and on entries that nothing uses."""
    for config, content in bundle.configs.items():
        yield from _missing(bundle, config, content)
        yield from _unused(bundle, config, content)
    for name, bases in bundle.overlays.items():
        yield from _overlay(bundle, name, bases)


def _missing(bundle: Opened, config: str, content: Mapping[str, Any]) -> Iterator[Finding]:
    everything = [path for path, _ in walk(content)]
    for path, value in walk(content):
        if not isinstance(value, str):
            continue
        copied = macro(value)
        if copied is not None and copied[0]:
            yield error(
                "reference-file",
                bundle.location(config, path),
                f"'{value}' copies from a file that is looked for in the working directory, wherever that is",
                "Write down here what is meant.",
            )
            continue
        wanted = [copied[1]] if copied is not None else references(value)
        for one in wanted:
            if one in ("", "bundle_root") or one.startswith(("#", "_meta_")):
                continue  # relative paths, and what is always there
            if not (has(content, one) or has(content, resolved_path(content, one))):
                yield error(
                    "reference-missing",
                    bundle.location(config, path),
                    f"there is no '{one}', to which '{value[:80]}' refers",
                    did_you_mean(one, everything, "Define it, or correct the reference."),
                )


def _unused(bundle: Opened, config: str, content: Mapping[str, Any]) -> Iterator[Finding]:
    strings = [value for _, value in walk(content) if isinstance(value, str)]
    if any("@#" in value or "%#" in value for value in strings):
        return  # what relative references use depends on where they stand
    used = {*references(content), *_BY_NAME, *_PROPERTIES}
    used |= {found[1] for value in strings if (found := macro(value)) is not None}
    for path, value in _entries(content):
        if path in used or any(one.startswith(f"{path}#") for one in used):
            continue
        if any(path.startswith(f"{one}#") for one in used if one not in {"train", "validate"}):
            continue
        if _can_run(value) and "#" not in path:
            continue
        leaf = path.rpartition("#")[2]
        near = did_you_mean(leaf, [one.rpartition("#")[2] for one in used], "Remove it, or refer to it with '@'.")
        yield warning("key-unused", bundle.location(config, path), "nothing refers to it", near)


def _can_run(value: Any) -> bool:
    """Whether MONAI can run it by its name."""
    return isinstance(value, list) and bool(value) and all(is_expression(one) for one in value)


def _entries(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of nested dictionaries; what is within a component is its argument and not looked at here."""
    for key, value in config.items():
        below = f"{path}#{key}" if path else str(key)
        if key in SPECIAL_KEYS or key.startswith("_"):
            continue
        yield below, value
        if isinstance(value, Mapping) and not is_component(value):
            yield from _entries(value, below)


def _overlay(bundle: Opened, name: str, bases: tuple[str, ...]) -> Iterator[Finding]:
    if not bases:
        yield warning(
            "overlay-alone",
            bundle.location(name),
            "there is no config that it could go on top of",
            "Say in its name which: train, evaluate or inference.",
        )
        return
    files = [bundle.root / "configs" / f"{one}.json" for one in (*bases, name)]
    try:
        recipe, merged = merge(files[:-1], {}), merge(files, {})
        runs = {key: value for key, value in merged.items() if key in _BY_NAME or _can_run(value)}
        config_check.check({**runs, **recipe}, merged)
    except ConfigError as fault:
        came = f" ({fault.came})" if fault.came else ""
        yield error("key-unknown", bundle.location(name), f"{fault.thing}: {fault.problem}{came}", fault.fix)
