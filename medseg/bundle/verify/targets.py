"""Components: whether each `_target_` is there and takes the arguments that it is given."""

from __future__ import annotations

import functools
import importlib
import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from monai.bundle import ComponentLocator, ConfigComponent

from medseg.bundle.verify.opened import Opened, cause
from medseg.config.paths import components
from medseg.config.references import SPECIAL_KEYS
from medseg.errors import MedsegError, did_you_mean
from medseg.findings import Finding, error

_LOCATOR = ComponentLocator()


def check(bundle: Opened) -> Iterator[Finding]:
    """Findings on components that cannot be made as they stand."""
    seen: set[tuple[str, str]] = set()
    for config in bundle.configs:
        for path, component in components(bundle.expanded(config)):
            target = component["_target_"]
            if component.get("_disabled_") is True or not isinstance(target, str) or target[:1] in "$@%":
                continue
            for finding in component_findings(bundle.location(config, path), component):
                key = (config, str(component))  # a macro's copy is the same component once more
                if key not in seen:
                    yield finding
            seen.add((config, str(component)))
    for name, content in bundle.files.items():
        for path, component in components(content) if name not in bundle.configs or name in bundle.overlays else ():
            if isinstance(component["_target_"], str) and component["_target_"][:1] not in ("$", "@", "%", ""):
                yield from component_findings(bundle.location(name, path), component)


def component_findings(location: str, component: Mapping[str, Any]) -> Iterator[Finding]:
    """Findings on one component, in itself."""
    target = str(component["_target_"])
    found, why = locate(target)
    if found is None:
        yield error("target-missing", location, f"'{target}' cannot be had: {why[0]}", why[1])
        return
    given = [str(key) for key in component if key not in SPECIAL_KEYS]
    try:
        parameters = inspect.signature(found).parameters
    except (TypeError, ValueError):
        return  # some that are written in C do not say what they take
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    names = [name for name, one in parameters.items() if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
    for name in given:
        if name not in names and not takes_any:
            fix = did_you_mean(name, names, f"It takes {', '.join(names) or 'nothing'}.")
            yield error("argument-unknown", f"{location}#{name}", f"{target} takes no '{name}'", fix)
    if component.get("_mode_", "default") == "callable":
        return
    for name in names:
        if parameters[name].default is inspect.Parameter.empty and name not in given:
            yield error("argument-missing", location, f"{target} needs '{name}'", "Give it.")


@functools.cache
def locate(target: str) -> tuple[Callable[..., Any] | None, tuple[str, str]]:
    """What a `_target_` names, as MONAI finds it; without it, why not and what to do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = str(ConfigComponent({"_target_": target}, locator=_LOCATOR).resolve_module_name())
        parts = path.split(".")
        found: Any = None
        for length in range(len(parts) - 1, 0, -1):
            module = ".".join(parts[:length])
            try:
                found = importlib.import_module(module)
            except ModuleNotFoundError as fault:
                if fault.name is not None and (module == fault.name or module.startswith(f"{fault.name}.")):
                    continue
                return None, (cause(fault), "Install what it needs.")
            except Exception as fault:  # whatever a module does when it is imported
                return None, (cause(fault), "Install what it needs.")
            for name in parts[length:]:
                try:
                    found = getattr(found, name)
                except AttributeError:
                    known = [one for one in dir(found) if not one.startswith("_")]
                    otherwise = f"'{'.'.join(parts[:length])}' has nothing of that name."
                    return None, (f"there is no '{name}' in it", did_you_mean(name, known, otherwise))
                except MedsegError as fault:
                    return None, (str(fault), "")
                except ImportError as fault:
                    return None, (cause(fault), "Install what it needs.")
            break
    if not callable(found):
        if len(parts) == 1:
            known = list(_LOCATOR._components_table or ())
            otherwise = "Write its full name, with its module."
            return None, ("MONAI has nothing of that name", did_you_mean(target, known, otherwise))
        why = "there is no such module" if found is None else "it cannot be called"
        return None, (why, "Install the package that has it, or correct the name.")
    return found, ("", "")
