"""The check of a bundle's keys, with the arguments that MONAI's and other components take."""

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

from monai.bundle import ComponentLocator, ConfigComponent

from medseg.config.check import check_keys

_LOCATOR = ComponentLocator()


def check(recipe: Mapping[str, Any], config: Mapping[str, Any], keys: Sequence[str] = ()) -> None:
    """Check that what overlays and overrides add to a recipe means something, see `medseg.config.check.check_keys`.

    Raises:
        ConfigError: a key that nothing uses; names the nearest that exists.
    """
    check_keys(recipe, config, keys, _arguments)


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
