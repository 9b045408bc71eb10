"""The check of a bundle's keys, with the arguments that MONAI's and other components take."""

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from monai.bundle import ComponentLocator, ConfigComponent

from medseg.bundle.evaluation_context import BundleParser
from medseg.config.check import check_keys
from medseg.config.keys import check_values, keys_of
from medseg.config.references import is_expression
from medseg.errors import ConfigError

_LOCATOR = ComponentLocator()


def check(
    recipe: Mapping[str, Any],
    config: Mapping[str, Any],
    keys: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Check keys and values of a config with overlays and overrides.

    Args:
        recipe: the config as it is in the bundle.
        config: the same with overlays and overrides.
        keys: those that were overridden, see `medseg.config.check.check_keys`.
        metadata: of the bundle, see `medseg.config.keys.check_values`.

    Raises:
        ConfigError: a key that nothing uses; names the nearest that exists. A value that its key does not take.
    """
    check_keys(recipe, config, keys, _arguments)
    check_values(config, metadata or {})


def check_derived(
    config: Mapping[str, Any], recipe: Mapping[str, Any], metadata: Mapping[str, Any], root: Path, name: str
) -> None:
    """Check that a key which follows from others, such as `in_channels`, was not set to something else.

    Raises:
        ConfigError: it was; names the key to change instead.
    """
    for key, schema in keys_of(config, metadata).items():
        if "follows" in schema and isinstance(config[key], int) and is_expression(recipe.get(key)):
            expected = BundleParser({**config, key: recipe[key]}, root, name).get_parsed_content(key)
            if config[key] != expected:
                source = schema["follows"]
                problem = f"it follows from {source} and is {expected}"
                raise ConfigError(key, problem, f"got {config[key]}", f"Leave it out, and change {source} instead.")


def _arguments(component: Mapping[str, Any], argument: str = "") -> set[str] | None:
    """Return the names that a component takes, or that an argument of it takes as settings of a class.

    None where it takes any, cannot be found, or where the argument is no such set of settings (an argument is one
    that is annotated with `Annotated[..., Class]`, see `medseg.bundle.default_handlers`).
    """
    try:
        target: Any = pydoc.locate(str(ConfigComponent(component, "", _LOCATOR).resolve_module_name()))
        if argument:
            metadata = getattr(get_type_hints(target, include_extras=True).get(argument), "__metadata__", ())
            if not metadata:
                return None
            target = metadata[0]
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError, NameError, pydoc.ErrorDuringImport):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name for parameter in parameters}
