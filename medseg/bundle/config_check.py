"""The check of a bundle's keys, with the arguments that MONAI's and other components take."""

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Mapping, Sequence
from typing import Any

from monai.bundle import ComponentLocator, ConfigComponent

from medseg.config.check import check_keys

_LOCATOR = ComponentLocator()


def check(recipe: Mapping[str, Any], config: Mapping[str, Any], keys: Sequence[str] = ()) -> None:
    """Check that what overlays and overrides add to a recipe means something, see `medseg.config.check.check_keys`.

    Raises:
        ConfigError: a key that nothing uses; names the nearest that exists.
    """
    check_keys(recipe, config, keys, _arguments)


def _arguments(component: Mapping[str, Any]) -> set[str] | None:
    """Return the names that a component's class takes; None where it takes any, or cannot be found."""
    try:
        target = pydoc.locate(str(ConfigComponent(config=component, id="", locator=_LOCATOR).resolve_module_name()))
        parameters = inspect.signature(target).parameters.values()  # type: ignore[arg-type]
    except (TypeError, ValueError, pydoc.ErrorDuringImport):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name for parameter in parameters}
