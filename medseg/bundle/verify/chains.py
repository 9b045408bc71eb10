"""Read from a config what is done to the image before the network: the deterministic steps and their arguments.

The transforms are read and not run on a phantom: running cannot tell a crop (a note) from a change of values (an
error), cannot build steps that depend on the dataset, and shows only that two arrays differ, not which argument does.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform

from medseg.bundle.verify.bundle_files import BundleFiles, UnknownValueError
from medseg.bundle.verify.components import locate
from medseg.config.paths import at, resolved_path, walk
from medseg.config.references import SPECIAL_KEYS, is_component, is_expression, parse, references

# Transforms of types, devices and names, which change no value that the network gets.
_NO_VALUES = {"EnsureType", "CastToType", "ToTensor", "ToDevice", "ToNumpy", "Identity", "DeleteItems", "SelectItems",
              "CopyItems", "EnsureChannelFirst", "AsChannelFirst", "AddChannel", "FromMetaTensor", "ToMetaTensor",
              "DataStats", "SimulateDelay", "Lambda", "FlattenSubKeys", "Contiguous"}  # fmt: skip
_CROPS = ("Crop", "Pad", "Resized")
# Arguments that say how a step works, not what comes out of it.
_NO_RESULT = {"keys", "allow_missing_keys", "image_only", "overwriting", "simple_keys", "prune_meta_pattern", "labels",
              "prune_meta_sep", "meta_keys", "meta_key_postfix", "lazy", "ensure_channel_first", "expanded", "warn",
              "lazy_evaluation", "start_coord_key", "end_coord_key", "recompute_affine", "source_key"}  # fmt: skip
# Arguments that have a value for each key, where a list is given.
_PER_KEY = {"mode", "padding_mode", "align_corners", "dtype", "anti_aliasing", "reader", "sigma", "value"}
_EXACT = 2**53  # below it an int and a float of the same value are equal


class Unknown(str):
    """An argument that cannot be computed, as it is written."""

    __slots__ = ()


@dataclass(frozen=True)
class Step:
    """One transform of the image.

    Args:
        name: its class, without module and the `d` of dictionary transforms.
        path: where it is in the config.
        arguments: all its arguments, defaults included, in the form that JSON has.
        optional: True if the data decide whether it is switched on.
    """

    name: str
    path: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    optional: bool = False

    @property
    def key(self) -> str:
        """The same text for two steps that do the same."""
        return f"{self.name} {json.dumps(self.arguments, sort_keys=True, default=str)}"

    @property
    def only_crops(self) -> bool:
        """True if it removes or adds margins and leaves values as they are."""
        return any(word in self.name for word in _CROPS)


def chain(bundle: BundleFiles, config: str, dataset: str, engine: str = "") -> list[Step]:
    """Return the deterministic steps that are done to the image; empty where the config does not show them.

    Args:
        bundle: the bundle.
        config: the name of one of its configs.
        dataset: path of the dataset whose transforms come first.
        engine: path of the engine whose `prepare_batch` may do more to whole batches.
    """
    content = bundle.expanded(config)
    path = resolved_path(content, dataset)
    holder = at(content, path)
    while isinstance(holder, Mapping) and "transform" not in holder and "dataset" in holder:  # a dataset in another
        path = resolved_path(content, f"{path}#dataset")
        holder = at(content, path)
    if not isinstance(holder, Mapping) or "transform" not in holder:
        return []
    parts = list(_transforms(content, f"{path}#transform", set()))
    keys = next((names for part in parts if (names := _keys(bundle, config, part))), ())
    image = "image" if "image" in keys or not keys else keys[0]
    steps = (_step(bundle, config, part, image) for part in parts)
    return [*(step for step in steps if step is not None), *_batch_steps(bundle, config, f"{engine}#prepare_batch")]


def _transforms(content: Mapping[str, Any], path: str, visited: set[str]) -> Iterator[str]:
    """Yield the paths of the transforms in a chain, in their order, however the chain is put together."""
    path = resolved_path(content, path)
    if path in visited:
        return
    visited = {*visited, path}
    value = at(content, path)
    if isinstance(value, list):
        for index, _ in enumerate(value):
            yield from _transforms(content, f"{path}#{index}", visited)
    elif is_component(value):
        if str(value["_target_"]).rpartition(".")[2] == "Compose":
            yield from _transforms(content, f"{path}#transforms", visited)
        elif _is_transform(str(value["_target_"])):
            yield path
        else:  # a function that puts a chain together from those it is given
            for key in value:
                yield from _transforms(content, f"{path}#{key}", visited)
    elif is_expression(value):
        for target in references(value):
            yield from _transforms(content, target, visited)


def _is_transform(target: str, default: bool = True) -> bool:
    """Return True for a class that can be called; `default` for a target that cannot be found."""
    located, _ = locate(target)
    if located is None:
        return default
    return isinstance(located, type) and any("__call__" in vars(base) for base in located.__mro__)


def _name(target: str) -> str:
    """Return the name of a transform, without its module and the `d` or `Dict` of dictionary transforms.

    >>> _name("monai.transforms.Spacingd"), _name("SpatialPad"), _name("CropForeground")
    ('Spacing', 'SpatialPad', 'CropForeground')
    """
    short = target.rpartition(".")[2].removesuffix("Dict")
    located, _ = locate(target)
    is_map_transform = issubclass(located, MapTransform) if isinstance(located, type) else short.endswith("d")
    return short[:-1] if is_map_transform and short.endswith(("d", "D")) else short


def _keys(bundle: BundleFiles, config: str, path: str) -> tuple[str, ...]:
    try:
        keys = bundle.value(config, f"{path}#keys")
    except UnknownValueError:
        return ()
    return (keys,) if isinstance(keys, str) else tuple(keys) if isinstance(keys, list | tuple) else ()


def _step(bundle: BundleFiles, config: str, path: str, image: str) -> Step | None:
    """Return the step at a path; None for one that is random, of other keys, switched off, or changes no value."""
    component = at(bundle.expanded(config), path)
    name = _name(str(component["_target_"]))
    keys = _keys(bundle, config, path)
    if name.startswith("Rand") or name in _NO_VALUES or (keys and image not in keys):
        return None
    optional, disabled = False, component.get("_disabled_", False)
    if isinstance(disabled, str):
        try:
            disabled = bundle.value(config, f"{path}#_disabled_")
        except UnknownValueError:
            optional, disabled = True, False
    if disabled is True or str(disabled).strip().lower() == "true":
        return None
    step_arguments = {}
    for key, value in arguments(bundle, config, path).items():
        if key in _PER_KEY and isinstance(value, list) and keys and len(value) == len(keys):
            value = value[keys.index(image)]
        if key not in _NO_RESULT:
            step_arguments[key] = value
    return Step(name, path, step_arguments, optional)


def arguments(bundle: BundleFiles, config: str, path: str) -> dict[str, Any]:
    """Return a component's arguments, defaults included, in JSON's form; `Unknown` for those that need the data."""
    component = at(bundle.expanded(config), path)
    if not isinstance(component, Mapping):
        return {"": plain(component)}
    values = _defaults(str(component.get("_target_")))
    for key, value in component.items():
        if key in SPECIAL_KEYS:
            continue
        if not isinstance(value, str | list | Mapping) or is_component(value):
            values[key] = plain(value)
            continue
        try:
            values[key] = plain(bundle.value(config, f"{path}#{key}"))
        except UnknownValueError:
            values[key] = Unknown(json.dumps(value, sort_keys=True, default=str))
    return values


def _parameters(target: str) -> list[inspect.Parameter]:
    located, _ = locate(target)
    try:
        return list(inspect.signature(located).parameters.values()) if located is not None else []
    except (TypeError, ValueError):
        return []


def _defaults(target: str) -> dict[str, Any]:
    return {
        parameter.name: plain(parameter.default)
        for parameter in _parameters(target)
        if parameter.default is not inspect.Parameter.empty
    }


def _batch_steps(bundle: BundleFiles, config: str, path: str) -> Iterator[Step]:
    """Yield what is done to whole batches: the transforms that expressions in `prepare_batch` make or refer to."""
    content = bundle.expanded(config)
    path = resolved_path(content, path)
    for location, value in walk({path: at(content, path)}):
        for reference in references(value) if is_expression(value) else ():
            transform = resolved_path(content, reference)
            component = at(content, transform)
            if is_component(component) and _is_transform(str(component["_target_"]), default=False):
                step = _step(bundle, config, transform, "image")
                if step is not None:
                    yield step
        tree, names = parse(value) if is_expression(value) else (None, {})
        for node in ast.walk(tree) if tree is not None else ():
            if not isinstance(node, ast.Call) or not _is_transform(target := ast.unparse(node.func), default=False):
                continue
            written = {keyword.arg: keyword.value for keyword in node.keywords if keyword.arg}
            if not any(isinstance(argument, ast.Starred) for argument in node.args):
                positions = [parameter.name for parameter in _parameters(target)]
                written = {**dict(zip(positions, node.args, strict=False)), **written}
            computed = {name: _argument(bundle, config, value, names) for name, value in written.items()}
            values = {name: value for name, value in (_defaults(target) | computed).items() if name not in _NO_RESULT}
            yield Step(_name(target), location, values)


def _argument(bundle: BundleFiles, config: str, node: ast.expr, names: Mapping[str, str]) -> Any:
    try:
        if isinstance(node, ast.Name) and node.id in names:
            return plain(bundle.value(config, resolved_path(bundle.expanded(config), names[node.id])))
        return plain(ast.literal_eval(node))
    except (UnknownValueError, ValueError):
        return Unknown(ast.unparse(node))


def plain(value: Any) -> Any:
    """Return a value in JSON's form, so that two values that mean the same are equal."""
    if isinstance(value, bool | str | None):
        return value
    if isinstance(value, int | float):
        return float(value) if abs(value) < _EXACT else value
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | torch.Tensor):
        return plain(value.tolist())
    if isinstance(value, Sequence | set | frozenset):
        return [plain(entry) for entry in value]
    if isinstance(value, Path):
        return str(value)
    return str(getattr(value, "value", value)) if not callable(value) else getattr(value, "__qualname__", str(value))
