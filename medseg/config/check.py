"""The check of keys: what an overlay or an override adds to a config must mean something.

MONAI takes any key: `--lrr 0.5` runs with the old learning rate. Here a key that the recipe does not have is
accepted only if something refers to it, or the component it is given to takes an argument of that name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.config.keys import check_values
from medseg.config.merge import merge, read_config, unknown_key
from medseg.config.paths import at, walk
from medseg.config.references import META, SPECIAL_KEYS, is_component, key_path, top_key, used_paths
from medseg.search_path import METADATA, find_overlay

TRACKING = "save_execute_config"  # MONAI adds this key when it is asked to track a run


def check_keys(
    recipe: Mapping[str, Any],
    config: Mapping[str, Any],
    keys: Sequence[str],
    arguments: Callable[[Mapping[str, Any], str], set[str] | None],
) -> None:
    """Check that everything in `config` that `recipe` does not have means something.

    Args:
        recipe: the config as it is in the bundle.
        config: the same with overlays and overrides.
        keys: the keys that were overridden; each must be there.
        arguments: returns the names of the arguments that a component takes, None where it takes any. With the name of
            an argument, the settings that this argument of the component takes; None where it is no set of settings.

    Raises:
        ConfigError: a key that nothing uses; names the nearest that exists.
    """
    existing = {path for path, _ in walk(recipe, into_lists=False)}
    paths = [path for path, _ in walk(config, into_lists=False)]
    used = used_paths(config)
    for key in keys:
        if key_path(key) not in paths:
            raise unknown_key(key_path(key), existing)
    accepted: set[str] = set()
    for path in paths:
        parent, _, leaf = path.rpartition("#")
        if path in existing or path == TRACKING or leaf in SPECIAL_KEYS or top_key(path) == META:
            continue
        if any(path.startswith(f"{above}#") for above in accepted):
            continue  # part of something that was accepted as a whole
        if parent in existing and not isinstance(at(recipe, parent), Mapping):
            accepted.add(parent)  # a value of another kind, such as a dictionary where a name may be
            continue
        holder = at(config, parent)
        if is_component(holder):
            names = arguments(holder, "")
            if names is not None and leaf not in names:
                siblings = existing | {f"{parent}#{name}" for name in names}
                raise unknown_key(path, siblings, f"{holder['_target_']} takes no argument '{leaf}'")
        elif not any(path == used_path or used_path.startswith(f"{path}#") for used_path in used):
            outer, _, argument = parent.rpartition("#")
            component = at(config, outer)
            names = arguments(component, argument) if is_component(component) else None
            if names is None or leaf not in names:
                raise unknown_key(path, existing | {f"{parent}#{name}" for name in names or ()})
        accepted.add(path)


def check_command(
    root: Path, use: str, overlays: Sequence[str | Path] = (), overrides: Mapping[str, Any] | None = None
) -> None:
    """Check what a command asks for before torch is imported, and before another process is started for it.

    Arguments of components are left to the check that can ask them, see `medseg.bundle.Bundle.resolve`.

    Args:
        root: the folder of the bundle.
        use: the config.
        overlays: files or names.
        overrides: values by path.

    Raises:
        ConfigError: no such overlay, a key that means nothing, a value that its key does not take.
    """
    recipe = root / "configs" / f"{use}.json"
    if recipe.is_file():
        config = merge([recipe, *(find_overlay(overlay, root) for overlay in overlays)], overrides or {})
        check_keys(read_config(recipe), config, list(overrides or {}), lambda *_: None)
        check_values(config, read_config(root / METADATA))
