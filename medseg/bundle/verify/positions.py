"""Components that are addressed by their place in a list: one more before them, and another is meant."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

from medseg.bundle.verify.opened import Opened
from medseg.config.paths import at, resolved_path, walk
from medseg.config.references import is_component, is_expression, key_path, macro, parse, references
from medseg.findings import Finding, warning

_NUMBER = re.compile(r"#\d+(#|$)")
_REMEDY = "Give each a name in a dictionary, and refer to it by that."


def check(bundle: Opened) -> Iterator[Finding]:
    """Findings on keys, references and expressions that count on the order of a list of components."""
    contents = {**bundle.configs, **{name: bundle.files[name] for name in bundle.overlays}}
    for config, content in contents.items():
        whole = {**_base(bundle, config), **content}
        for key in content:
            if _NUMBER.search(key_path(key)):
                yield warning("position", bundle.location(config, key), "the key names an entry by its place", _REMEDY)
        for path, value in walk(content):
            if not isinstance(value, str):
                continue
            copied = macro(value)
            for one in [copied[1]] if copied else references(value):
                if _NUMBER.search(one):
                    yield warning(
                        "position", bundle.location(config, path), f"'{one}' names an entry by its place", _REMEDY
                    )
            if is_expression(value) and (name := _sliced(value, whole)):
                yield warning(
                    "position",
                    bundle.location(config, path),
                    f"'{value[:80]}' takes entries of '{name}' by their place",
                    _REMEDY,
                )


def _base(bundle: Opened, config: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for base in bundle.overlays.get(config, ()):
        found.update(bundle.files[base])
    return found


def _sliced(value: str, content: Mapping[str, Any]) -> str | None:
    """The list of components of which an expression takes some by number."""
    tree, names = parse(value)
    for node in ast.walk(tree) if tree is not None else ():
        if not (isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in names):
            continue
        if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
            continue
        path = names[node.value.id]
        entries = at(content, resolved_path(content, path))
        if isinstance(entries, list) and any(is_component(one) or macro(one) for one in entries):
            return path
    return None
