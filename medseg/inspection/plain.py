"""Resolve parts of a config without running anything of it: literals, references, macros, listed components.

The tree is walked once, from the parts that are asked for, with a budget: what no part needs is never looked at, so
the handlers, savers and data of a bundle mean nothing here. MONAI's `ConfigParser` would evaluate them as Python.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from medseg.config.references import LONGEST, SPECIAL_KEYS, absolute, key_path, macro, references
from medseg.errors import ConfigError, UntrustedError, printable
from medseg.inspection.components import Component, find_component, target_of
from medseg.inspection.forms import Evaluator, Refusal, is_plain, limited, weight
from medseg.labels import LabelMap

LABEL_MAP = "label_map.json"
SAVERS = ("SaveImaged", "SaveImageD", "SaveImageDict")  # medseg itself writes every file
TRUST_FIX = "If you trust its maker, give --trust (trust=True in Python)."
LOADERS = ("LoadImaged", "LoadSlice2Dd")
_MAX_STEPS, _MAX_DEPTH, _LONGEST_PATH = 20_000, 60, 400
_LETTERS = 10  # of a text that are read in one step
ABSENT = object()
Part = TypeVar("Part")
Make = Callable[[Component, dict[str, Any]], Any]


def expanded(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config with its macros and relative references resolved, as MONAI does, within a budget.

    Raises:
        UntrustedError: it is too large then, or copies from another file.
    """

    class Written(PlainConfig):
        def _text(self, text: str, path: str, copied: bool) -> Any:
            if text.startswith("%"):
                return super()._text(text, path, copied)
            return absolute(path, text) if text[:1] in ("$", "@") and len(text) <= LONGEST else text

        def _component(self, node: Mapping[str, Any], path: str, copied: bool) -> Any:
            return {key: self._child(entry, f"{path}#{key}", copied) for key, entry in node.items()}

    written = Written(config, "config", lambda component, arguments: component, {})
    return {key: written.get_parsed_content(key) for key in config}


class PlainConfig:
    """A config whose keys are resolved one by one, as MONAI's `ConfigParser` does, but run nothing.

    Args:
        config: the merged config.
        bundle: names the bundle in errors.
        make: makes a component of the table from its arguments.
        values: what stands in place of some keys, whatever the config says: the folder of the bundle, the device.
        metadata: the bundle's, which references find under `_meta_`.
        label_map: content of the `label_map.json` beside the weights, if there is one.
    """

    source = "inference.json"

    def __init__(
        self,
        config: Mapping[str, Any],
        bundle: object,
        make: Make,
        values: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        label_map: Mapping[str, str] | None = None,
    ) -> None:
        self.config = {**config, "_meta_": dict(metadata or {})}
        self.bundle = bundle
        self.content = dict(config)
        self.make = make
        self.label_map = label_map
        self._values = dict(values)
        self._open: list[str] = []
        self._steps = 0
        self._components: dict[int, tuple[Any, str]] = {}  # with the objects, so that no id is used again

    def __contains__(self, key: str) -> bool:
        return key in self._values or self._node(key_path(key)) is not ABSENT

    def get_parsed_content(self, id: str = "", default: Any = ABSENT) -> Any:
        """Return what a key comes to.

        Raises:
            UntrustedError: something in it does not run without trust; names the key.
        """
        path = key_path(id)
        if default is not ABSENT and path not in self:
            return default
        with self._naming():
            return self._at(path)

    def part(self, id: str, kind: type[Part], default: Part | None = None) -> Part:
        """Return what a key comes to, which must be an object of this class.

        Raises:
            ConfigError: it is another, or it is missing and there is no default.
            UntrustedError: see `get_parsed_content`.
        """
        value = self.get_parsed_content(id, ABSENT if default is None else default)
        if not isinstance(value, kind):
            problem = f"it must give a {kind.__name__}"
            raise ConfigError(f"{self.source}: {id}", problem, f"got {type(value).__name__} {value!r}"[:160])
        return value

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        """Turn a refusal into an error that names the key, and forget where it was."""
        try:
            yield
        except (Refusal, RecursionError) as refusal:
            key = self._open[-1] if self._open else ""
            reason = str(refusal) if isinstance(refusal, Refusal) else "it is too deep"
            problem = f"without trust its key '{printable(key, 80)}' does not run: {printable(reason, 300)}"
            raise UntrustedError(f"bundle {self.bundle}", problem, fix=TRUST_FIX) from refusal
        finally:
            self._open.clear()

    def _count(self, steps: int = 1) -> None:
        self._steps += steps
        if self._steps > _MAX_STEPS:
            raise Refusal(f"it takes more than {_MAX_STEPS} steps to resolve")

    def _node(self, path: str) -> Any:
        """Return what is written at a path, `ABSENT` where there is nothing."""
        node: Any = self.config
        for part in path.split("#"):
            if isinstance(node, Mapping) and part in node:
                node = node[part]
            elif isinstance(node, list) and part.isascii() and part.isdigit() and int(part[:9]) < len(node):
                node = node[int(part)]
            else:
                return ABSENT
        return node

    def _referred(self, path: str) -> Any:
        """Return what a path comes to, at the cost of all that is in it: a row of rows may be shared 2**n times."""
        value = self._at(path)
        self._count(weight(value))
        return value

    def _at(self, path: str) -> Any:
        if path not in self._values:
            node = self._node(path)
            if node is ABSENT:
                raise Refusal(f"it refers to '{path}', which is not there")
            self._values[path] = self._resolved(node, path)
        return self._values[path]

    def _resolved(self, node: Any, path: str, copied: bool = False) -> Any:
        """Return what a value at a path comes to; of a copy by a macro, its parts are made anew."""
        self._count()
        if path in self._open and not copied:
            raise Refusal("it refers to itself")
        if len(self._open) > _MAX_DEPTH or len(path) > _LONGEST_PATH:
            raise Refusal("it is too deep")
        self._open.append(path)
        if isinstance(node, str):
            value = self._text(node, path, copied)
        elif isinstance(node, list):
            value = [self._child(entry, f"{path}#{index}", copied) for index, entry in enumerate(limited(node))]
        elif target_of(node) is not None:
            value = self._component(node, path, copied)
        elif isinstance(node, Mapping):
            value = {key: self._child(entry, f"{path}#{key}", copied) for key, entry in node.items()}
        else:
            value = limited(node)
        self._open.pop()
        return value

    def _child(self, node: Any, path: str, copied: bool) -> Any:
        if copied:
            return self._resolved(node, path, copied)
        if path not in self._values:
            self._values[path] = self._resolved(node, path)
        return self._values[path]

    def _text(self, text: str, path: str, copied: bool) -> Any:
        if text[:1] not in ("$", "@", "%"):
            return limited(text)
        self._count(len(limited(text)) // _LETTERS)
        written, text = text, absolute(path, text)
        if copied and text != written.replace("#", "::"):
            raise Refusal("a macro copies a relative reference, which would mean another key")
        if text.startswith("$"):
            return Evaluator(self._referred, self._count, self.trained_labels).evaluate(text)
        if text.startswith("@"):
            paths = references(text)
            return self._referred(paths[0]) if paths else text
        file, source = macro(text) or ("", "")
        node = self._node(source)
        if file or node is ABSENT:
            raise Refusal(f"'{written}' copies from another file, or from a key that is not there")
        return self._resolved(node, source, copied=True)

    def _component(self, node: Mapping[str, Any], path: str, copied: bool) -> Any:
        target = node["_target_"]
        if str(target).rpartition(".")[2] in SAVERS:
            return None
        component = find_component(target)
        if component is None:
            raise Refusal(f"the component '{target}' is not on the list of what runs without trust")
        if node.get("_mode_", "default") != "default" or node.get("_requires_") not in (None, [], ""):
            raise Refusal(f"'{target}' has a _mode_ or _requires_, which is not among what runs without trust")
        if self._child(node.get("_disabled_", False), f"{path}#_disabled_", copied) in (True, "true", "True"):
            return None
        arguments = {
            key: self._child(value, f"{path}#{key}", copied) for key, value in node.items() if key not in SPECIAL_KEYS
        }
        if component.name == "Compose" and isinstance(arguments.get("transforms"), list):
            arguments["transforms"] = [entry for entry in arguments["transforms"] if entry is not None]
            names = [self._components.get(id(entry), (entry, ""))[1] for entry in arguments["transforms"]]
            if any(name in ("", "Compose") or (index and name in LOADERS) for index, name in enumerate(names)):
                raise Refusal("a Compose holds listed transforms in one row, and loads the scan first and once")
        problem = component.problem(arguments, is_plain)
        if problem is not None:
            raise Refusal(f"the component '{target}' with these arguments is not on the list: {problem}")
        instance = self.make(component, arguments)
        self._components[id(instance)] = instance, component.name
        return instance

    def trained_labels(self, structures: Any = None) -> LabelMap:
        """Return the label map that lies beside the weights.

        Raises:
            Refusal: there is none, or it has other structures.
        """
        if self.label_map is None:
            raise Refusal(f"the bundle has no {LABEL_MAP}")
        self._count(len(self.label_map))
        labels = LabelMap.from_dict(self.label_map, LABEL_MAP)
        names = [structures] if isinstance(structures, str) else structures
        if names and "all" not in names and set(labels.select(names)) != set(labels.structures):
            raise Refusal("the structures are not those of its weights. Leave this setting out")
        return labels
