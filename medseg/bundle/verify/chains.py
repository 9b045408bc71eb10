"""What is done to the image before the network, step by step and without chance, as a config says it."""

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

from medseg.bundle.verify import targets
from medseg.bundle.verify.opened import Opened, UnknownValueError
from medseg.config.paths import at, resolved_path, walk
from medseg.config.references import SPECIAL_KEYS, is_component, is_expression, parse, references

# Their type, place, company and name change no value that the network is given.
_NO_VALUES = {"EnsureType", "CastToType", "ToTensor", "ToDevice", "ToNumpy", "Identity", "DeleteItems", "SelectItems",
              "CopyItems", "EnsureChannelFirst", "AsChannelFirst", "AddChannel", "FromMetaTensor", "ToMetaTensor",
              "DataStats", "SimulateDelay", "Lambda", "FlattenSubKeys", "Contiguous"}  # fmt: skip
_CROPS = ("Crop", "Pad", "Resized")
# What says how a step goes about it, not what comes out.
_ASIDE = {"keys", "allow_missing_keys", "image_only", "overwriting", "simple_keys", "prune_meta_pattern", "labels",
          "prune_meta_sep", "meta_keys", "meta_key_postfix", "lazy", "ensure_channel_first", "expanded", "warn",
          "lazy_evaluation", "start_coord_key", "end_coord_key", "recompute_affine", "source_key"}  # fmt: skip
# One value for each key, where a list is given.
_PER_KEY = {"mode", "padding_mode", "align_corners", "dtype", "anti_aliasing", "reader", "sigma", "value"}


class Unknown(str):
    """A value that cannot be had, as it is written."""

    __slots__ = ()


_EXACT = 2**53  # below it a whole number and a floating one are the same


@dataclass(frozen=True)
class Step:
    """One transform of the image.

    Args:
        name: its class, without module and the `d` of dictionaries.
        path: where it stands in the config.
        arguments: all that it is given, defaults too, as what JSON can hold.
        optional: whether it is on or off hangs on the data.
    """

    name: str
    path: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    optional: bool = False

    @property
    def key(self) -> str:
        """What two steps that do the same have in common."""
        return f"{self.name} {json.dumps(self.arguments, sort_keys=True, default=str)}"

    @property
    def only_crops(self) -> bool:
        """Whether it takes away or adds margins, and leaves values as they are."""
        return any(word in self.name for word in _CROPS)


def chain(bundle: Opened, config: str, dataset: str, engine: str = "") -> list[Step]:
    """The deterministic steps that are done to the image; empty where they cannot be told.

    Args:
        bundle: the bundle.
        config: which of its configs.
        dataset: the path of the dataset whose transforms come first.
        engine: the path of the engine whose `prepare_batch` may do more to whole batches.
    """
    content = bundle.expanded(config)
    path = resolved_path(content, dataset)
    holder = at(content, path)
    while isinstance(holder, Mapping) and "transform" not in holder and "dataset" in holder:  # one dataset in another
        path = resolved_path(content, f"{path}#dataset")
        holder = at(content, path)
    if not isinstance(holder, Mapping) or "transform" not in holder:
        return []
    parts = list(_components(content, f"{path}#transform", set()))
    keys = next((one for part in parts if (one := _keys(bundle, config, part))), ())
    image = "image" if "image" in keys or not keys else keys[0]
    steps = (_step(bundle, config, part, image) for part in parts)
    return [*(step for step in steps if step is not None), *_of_batches(bundle, config, f"{engine}#prepare_batch")]


def _of_batches(bundle: Opened, config: str, path: str) -> Iterator[Step]:
    """What is done to whole batches: the transforms that an expression within `prepare_batch` makes."""
    content = bundle.expanded(config)
    path = resolved_path(content, path)
    for location, value in walk({path: at(content, path)}):
        tree, names = parse(value) if is_expression(value) else (None, {})
        for node in ast.walk(tree) if tree is not None else ():
            if isinstance(node, ast.Call) and _is_transform(target := ast.unparse(node.func), sure=True):
                given = {} if any(isinstance(one, ast.Starred) for one in node.args) else _given(target, node)
                found = {name: _argument(bundle, config, one, names) for name, one in given.items()}
                kept = {name: one for name, one in {**_defaults(target), **found}.items() if name not in _ASIDE}
                yield Step(_name(target), location, kept)


def _given(target: str, call: ast.Call) -> dict[str, ast.expr]:
    found, _ = targets.locate(target)
    names = list(inspect.signature(found).parameters) if found is not None else []
    return {**dict(zip(names, call.args, strict=False)), **{one.arg: one.value for one in call.keywords if one.arg}}


def _argument(bundle: Opened, config: str, node: ast.expr, names: Mapping[str, str]) -> Any:
    try:
        if isinstance(node, ast.Name) and node.id in names:
            return plain(bundle.value(config, resolved_path(bundle.expanded(config), names[node.id])))
        return plain(ast.literal_eval(node))
    except (UnknownValueError, ValueError):
        return Unknown(ast.unparse(node))


def _components(content: Mapping[str, Any], path: str, seen: set[str]) -> Iterator[str]:
    """The paths of the transforms in a chain, in their order, however it is put together."""
    path = resolved_path(content, path)
    if path in seen:
        return
    seen = {*seen, path}
    value = at(content, path)
    if isinstance(value, list):
        for number, _ in enumerate(value):
            yield from _components(content, f"{path}#{number}", seen)
    elif is_component(value):
        if str(value["_target_"]).rpartition(".")[2] == "Compose":
            yield from _components(content, f"{path}#transforms", seen)
        elif _is_transform(str(value["_target_"])):
            yield path
    elif is_expression(value):
        for one in references(value):
            yield from _components(content, one, seen)


def _is_transform(target: str, sure: bool = False) -> bool:
    """Whether a component can stand in a chain; one that cannot be found might, unless it must be sure."""
    found, _ = targets.locate(target)
    if found is None:
        return not sure
    return isinstance(found, type) and any("__call__" in vars(one) for one in found.__mro__)


def _name(target: str) -> str:
    """The name of a transform, without its module and the `d` or `Dict` of those that work on dictionaries.

    >>> _name("monai.transforms.Spacingd"), _name("SpatialPad"), _name("CropForeground")
    ('Spacing', 'SpatialPad', 'CropForeground')
    """
    short = target.rpartition(".")[2].removesuffix("Dict")
    found, _ = targets.locate(target)
    of_dictionaries = issubclass(found, MapTransform) if isinstance(found, type) else short.endswith("d")
    return short[:-1] if of_dictionaries and short.endswith(("d", "D")) else short


def _keys(bundle: Opened, config: str, path: str) -> tuple[str, ...]:
    try:
        keys = bundle.value(config, f"{path}#keys")
    except UnknownValueError:
        return ()
    return (keys,) if isinstance(keys, str) else tuple(keys) if isinstance(keys, list | tuple) else ()


def _step(bundle: Opened, config: str, path: str, image: str) -> Step | None:
    """The step at a path; None for one of chance, of other keys, switched off, or that changes no value."""
    component = at(bundle.expanded(config), path)
    target = str(component["_target_"])
    name = _name(target)
    keys = _keys(bundle, config, path)
    if name.startswith("Rand") or name in _NO_VALUES or (keys and image not in keys):
        return None
    optional, off = False, component.get("_disabled_", False)
    if isinstance(off, str):
        try:
            off = bundle.value(config, f"{path}#_disabled_")
        except UnknownValueError:
            optional, off = True, False
    if off is True or str(off).strip().lower() == "true":
        return None
    found = arguments(bundle, config, path)
    number = keys.index(image) if keys else 0
    kept = {
        key: value[number] if key in _PER_KEY and isinstance(value, list) and len(value) == len(keys) else value
        for key, value in found.items()
        if key not in _ASIDE
    }
    return Step(name, path, kept, optional)


def arguments(bundle: Opened, config: str, path: str) -> dict[str, Any]:
    """What a component is given, defaults too, as what JSON can hold; as it is written where it hangs on the data."""
    component = at(bundle.expanded(config), path)
    if not isinstance(component, Mapping):
        return {"": plain(component)}
    found = _defaults(str(component.get("_target_")))
    for key, value in component.items():
        if key in SPECIAL_KEYS:
            continue
        if not isinstance(value, str | list | Mapping) or is_component(value):
            found[key] = plain(value)
            continue
        try:
            found[key] = plain(bundle.value(config, f"{path}#{key}"))
        except UnknownValueError:
            found[key] = Unknown(json.dumps(value, sort_keys=True, default=str))
    return found


def _defaults(target: str) -> dict[str, Any]:
    found, _ = targets.locate(target)
    try:
        parameters = inspect.signature(found).parameters.values() if found is not None else ()
    except (TypeError, ValueError):
        return {}
    return {one.name: plain(one.default) for one in parameters if one.default is not inspect.Parameter.empty}


def plain(value: Any) -> Any:
    """A value as JSON can hold it, so that two that mean the same are equal."""
    if isinstance(value, bool | str | None):
        return value
    if isinstance(value, int | float):
        return float(value) if abs(value) < _EXACT else value
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | torch.Tensor):
        return plain(value.tolist())
    if isinstance(value, Sequence | set | frozenset):
        return [plain(one) for one in value]
    if isinstance(value, Path):
        return str(value)
    return str(getattr(value, "value", value)) if not callable(value) else getattr(value, "__qualname__", str(value))
