"""Expressions: whether each is Python, and every name in it means something. Nothing is evaluated."""

from __future__ import annotations

import ast
import builtins
import importlib
import types
from collections.abc import Iterator, Mapping
from typing import Any

from medseg.bundle.verify.opened import Opened, cause
from medseg.config.paths import walk
from medseg.config.references import is_expression, parse
from medseg.errors import did_you_mean
from medseg.findings import Finding, error

_GIVEN = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy"}  # MONAI gives these to every expression


def check(bundle: Opened) -> Iterator[Finding]:
    """Findings on expressions that cannot be evaluated."""
    contents = {**bundle.configs, **{name: bundle.files[name] for name in bundle.overlays}}
    for config, content in contents.items():
        known: dict[str, Any] = {}
        everything = [content, *(bundle.files[base] for base in bundle.overlays.get(config, ()))]
        for alias, module in [*_GIVEN.items(), *(one for whole in everything for one in imports(whole))]:
            known[alias] = _imported(module)
        for path, value in walk(content):
            if not is_expression(value):
                continue
            tree, references = parse(value)
            location = bundle.location(config, path)
            if tree is None:
                yield error("expression-syntax", location, f"'{value[:80]}' is no Python expression", "Correct it.")
            elif isinstance(tree, ast.Import | ast.ImportFrom):
                yield from _import(location, tree)
            else:
                yield from _names(location, tree, known, references)


def imports(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The names that a config imports, each with what it is the name of."""
    for _, value in walk(content):
        if not (is_expression(value) and "import" in value):
            continue
        tree, _ = parse(value)
        if isinstance(tree, ast.Import):
            for one in tree.names:
                yield one.asname or one.name.partition(".")[0], one.name if one.asname else one.name.partition(".")[0]
        elif isinstance(tree, ast.ImportFrom):
            for one in tree.names:
                yield one.asname or one.name, f"{tree.module}.{one.name}"


def _import(location: str, tree: ast.Import | ast.ImportFrom) -> Iterator[Finding]:
    names = [f"{tree.module}.{one.name}" for one in tree.names] if isinstance(tree, ast.ImportFrom) else [
        one.name for one in tree.names
    ]  # fmt: skip
    for name in names:
        found = _imported(name)
        if isinstance(found, Exception):
            yield error("expression-name", location, f"'{name}' cannot be imported: {cause(found)}", "Install it.")


def _imported(name: str) -> Any:
    """A module, or something in one; the exception that stands in the way."""
    try:
        return importlib.import_module(name)
    except Exception as fault:  # whatever a module does when it is imported
        module, _, attribute = name.rpartition(".")
        try:
            return getattr(importlib.import_module(module), attribute) if module else fault
        except Exception:
            return fault


def _names(location: str, tree: ast.AST, known: Mapping[str, Any], references: Mapping[str, str]) -> Iterator[Finding]:
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if not (node.id in bound or node.id in known or node.id in references or hasattr(builtins, node.id)):
                fix = did_you_mean(node.id, known, "Import it in 'imports', or write '@' for a key of the config.")
                yield error("expression-name", location, f"nothing is called '{node.id}' there", fix)
        elif isinstance(node, ast.Attribute) and id(node) not in inner:
            yield from _attribute(location, node, known, bound)


def _attribute(location: str, node: ast.Attribute, known: Mapping[str, Any], bound: set[str]) -> Iterator[Finding]:
    """Modules and classes are followed as far as they go; what a value has is not known here."""
    parts: list[str] = []
    inner: ast.expr = node
    while isinstance(inner, ast.Attribute):
        parts.insert(0, inner.attr)
        inner = inner.value
    if not isinstance(inner, ast.Name) or inner.id in bound or inner.id not in known:
        return
    found, path = known[inner.id], inner.id
    for name in parts:
        if not isinstance(found, types.ModuleType | type):
            return
        try:
            found = getattr(found, name)
        except AttributeError:
            submodule = _imported(f"{path}.{name}") if isinstance(found, types.ModuleType) else fault_of(name)
            if isinstance(submodule, Exception):
                fix = did_you_mean(name, dir(found), f"'{path}' has nothing of that name.")
                yield error("expression-name", location, f"there is no '{path}.{name}'", fix)
                return
            found = submodule
        except ImportError as fault:
            yield error("expression-name", location, f"'{path}.{name}' cannot be had: {cause(fault)}", "Install it.")
            return
        path = f"{path}.{name}"


def fault_of(name: str) -> Exception:
    """What says that a class has nothing of that name."""
    return AttributeError(name)
