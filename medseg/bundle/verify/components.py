"""Check components: whether each `_target_` exists and takes its arguments, and each metric's name is measured."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any

from monai.bundle import ComponentLocator, ConfigComponent

from medseg.bundle.verify.bundle_files import BundleFiles, root_cause
from medseg.config.paths import at, components, resolved_path
from medseg.config.references import SPECIAL_KEYS, references
from medseg.errors import MedsegError, did_you_mean
from medseg.findings import Finding, error

_LOCATOR = ComponentLocator()
# Set while a bundle from elsewhere is verified: importing a module runs it, and a bundle may name any.
ONLY_KNOWN_MODULES: ContextVar[bool] = ContextVar("medseg_only_known_modules", default=False)
_LIBRARIES = ("monai", "ignite", "medseg")
_METRIC_ARGUMENTS = ("key_train_metric", "key_val_metric", "additional_metrics")
_METRIC_NAMES = {"MetricsSaver": ("metrics", "metric_details"), "CheckpointSaver": ("key_metric_name",)}
_INSTALL = "Install what it needs."


def check_components(bundle: BundleFiles) -> Iterator[Finding]:
    """Find components that cannot be built as they are written."""
    reported: set[tuple[str, str]] = set()
    for config in bundle.configs:
        for path, component in components(bundle.expanded(config)):
            key = (config, str(component))  # the copy that a macro makes is the same component again
            if not _is_located(component) or key in reported:
                continue
            yield from component_findings(bundle.location(config, path), component)
            reported.add(key)
    for name, content in bundle.files.items():
        if name in bundle.configs and name not in bundle.overlays:
            continue
        for path, component in components(content):
            if _is_located(component):
                yield from component_findings(bundle.location(name, path), component)


def _is_located(component: Mapping[str, Any]) -> bool:
    target = component["_target_"]
    is_name = isinstance(target, str) and target[:1] not in ("$", "@", "%", "")
    return is_name and may_import(target.rpartition(".")[0]) and component.get("_disabled_") is not True


def may_import(module: str) -> bool:
    """Return True if a module that a bundle names may be imported: any of a bundle that is trusted."""
    is_library = module.partition(".")[0] in _LIBRARIES and "__" not in module
    return not ONLY_KNOWN_MODULES.get() or not module or is_library or module in sys.modules


def component_findings(location: str, component: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what is wrong with one component by itself."""
    target = str(component["_target_"])
    function, (reason, fix) = locate(target)
    if function is None:
        yield error("target-missing", location, f"'{target}' cannot be used: {reason}", fix)
        return
    arguments = [str(key) for key in component if key not in SPECIAL_KEYS]
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return  # some that are written in C do not say what they take
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    names = [
        name
        for name, parameter in parameters.items()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    for name in arguments:
        if name not in names and not takes_any:
            fix = did_you_mean(name, names, f"It takes {', '.join(names) or 'no arguments'}.")
            yield error("argument-unknown", f"{location}#{name}", f"{target} takes no argument '{name}'", fix)
    if component.get("_mode_", "default") == "callable":
        return
    for name in names:
        if parameters[name].default is inspect.Parameter.empty and name not in arguments:
            yield error("argument-missing", location, f"{target} needs the argument '{name}'", "Add it.")


def locate(target: str) -> tuple[Callable[..., Any] | None, tuple[str, str]]:
    """Return what a `_target_` names, as MONAI finds it; with None come the reason and what to do."""
    if not may_import(target.rpartition(".")[0]):
        return None, ("it is not looked up without trust", "")
    return _locate(target)


@functools.cache
def _locate(target: str) -> tuple[Callable[..., Any] | None, tuple[str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = str(ConfigComponent({"_target_": target}, locator=_LOCATOR).resolve_module_name())
        parts = path.split(".")
        member: Any = None
        for length in range(len(parts) - 1, 0, -1):
            module = ".".join(parts[:length])
            try:
                member = importlib.import_module(module)
            except ModuleNotFoundError as problem:
                if problem.name is not None and (module == problem.name or module.startswith(f"{problem.name}.")):
                    continue
                return None, (root_cause(problem), _INSTALL)
            except Exception as problem:  # whatever a module does when it is imported
                return None, (root_cause(problem), _INSTALL)
            for name in parts[length:]:
                try:
                    member = getattr(member, name)
                except AttributeError:
                    names = [existing for existing in dir(member) if not existing.startswith("_")]
                    return None, (f"it has no member '{name}'", did_you_mean(name, names, f"Look into '{module}'."))
                except MedsegError as problem:
                    return None, (str(problem), "")
                except ImportError as problem:
                    return None, (root_cause(problem), _INSTALL)
            break
    if not callable(member):
        if len(parts) == 1:
            names = list(_LOCATOR._components_table or ())
            fix = did_you_mean(target, names, "Write its full name, with its module.")
            return None, ("MONAI has no component of this name", fix)
        reason = "the module does not exist" if member is None else "it cannot be called"
        return None, (reason, "Install the package that has it, or correct the name.")
    return member, ("", "")


def check_metric_names(bundle: BundleFiles) -> Iterator[Finding]:
    """Find names of metrics, to be saved or to choose checkpoints by, that no engine of the config measures."""
    for config, content in bundle.configs.items():
        measured = _measured(bundle.expanded(config))
        if measured is None:
            continue
        for path, component in components(content):
            for argument in _METRIC_NAMES.get(str(component["_target_"]).rpartition(".")[2], ()):
                value = component.get(argument)
                for name in [value] if isinstance(value, str) else value if isinstance(value, list) else ():
                    if isinstance(name, str) and name[:1] not in ("*", "$", "@", "%", "") and name not in measured:
                        message = f"no engine measures '{name}', and MONAI would not say so"
                        fix = did_you_mean(name, measured, f"Measured are: {', '.join(sorted(measured)) or 'none'}.")
                        yield error("metric-unknown", bundle.location(config, f"{path}#{argument}"), message, fix)


def _measured(content: Mapping[str, Any]) -> set[str] | None:
    """Return the names of all metrics of all engines; None where an expression makes some of them."""
    names: set[str] = set()
    for _, component in components(content):
        for argument in _METRIC_ARGUMENTS:
            value = component.get(argument)
            if isinstance(value, str) and value.startswith("@"):
                value = at(content, resolved_path(content, references(value)[0]))
            if isinstance(value, Mapping):
                names |= {str(name) for name in value}
            elif value is not None:
                return None
    return names
