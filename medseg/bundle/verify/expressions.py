"""Check the strings of configs: expressions and their names, lists paired by order, paths. Nothing is evaluated."""

from __future__ import annotations

import ast
import builtins
import importlib
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any

from medseg.bundle.run_identity import HARMLESS_KEYS
from medseg.bundle.verify.bundle_files import BundleFiles, root_cause
from medseg.bundle.verify.components import may_import
from medseg.config.paths import at, resolved_path, walk
from medseg.config.references import import_binding, is_expression, parse
from medseg.errors import did_you_mean
from medseg.findings import Finding, error, warning

_PROVIDED = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy"}  # MONAI gives these to expressions
_LIST_FILES = {"glob", "iglob", "rglob", "listdir", "scandir", "iterdir", "walk"}
_ABSOLUTE = re.compile(r"^(/(?!/)[\w.~-]+(/|$)|[A-Za-z]:[\\/]|\\\\|~[\w]*[\\/])")
_PARENT = re.compile(r"(^|[\\/])\.\.([\\/]|$)")
_DATA_KEYS = {"dataset_dir", "data_dir", "datalist", "data_list_file_path", "data_file_base_dir", "backup"}
_MISSING = object()


def check_expressions(bundle: BundleFiles) -> Iterator[Finding]:
    """Find expressions that are not Python, and names in them that mean nothing."""
    for config, content in _contents(bundle).items():
        names: dict[str, Any] = {alias: _imported(module) for alias, module in _PROVIDED.items()}
        for source in [content, *(bundle.files[base] for base in bundle.overlays.get(config, ()))]:
            bindings = [import_binding(value) for _, value in walk(source) if is_expression(value)]
            names |= {binding[0]: _imported(binding[1]) for binding in bindings if binding is not None}
        for path, value in walk(content):
            if not is_expression(value):
                continue
            tree, references = parse(value)
            location = bundle.location(config, path)
            if tree is None:
                yield error("expression-syntax", location, f"'{value[:80]}' is not valid Python", "Correct it.")
            elif isinstance(tree, ast.Import | ast.ImportFrom):
                yield from _failed_imports(location, tree)
            else:
                yield from _unknown_names(location, tree, names, references)


def _contents(bundle: BundleFiles) -> dict[str, Mapping[str, Any]]:
    return {**bundle.configs, **{name: bundle.files[name] for name in bundle.overlays}}


def _failed_imports(location: str, tree: ast.Import | ast.ImportFrom) -> Iterator[Finding]:
    prefix = f"{tree.module}." if isinstance(tree, ast.ImportFrom) else ""
    for entry in tree.names:
        result = _imported(prefix + entry.name)
        if isinstance(result, Exception):
            message = f"'{prefix}{entry.name}' cannot be imported: {root_cause(result)}"
            yield error("expression-name", location, message, "Install it.")


def _imported(name: str) -> Any:
    """Return a module or a member of one; the exception where importing fails, None where it is not tried."""
    if not may_import(name) and not may_import(name.rpartition(".")[0]):
        return None
    try:
        return importlib.import_module(name)
    except Exception as problem:  # whatever a module does when it is imported
        module, _, attribute = name.rpartition(".")
        try:
            return getattr(importlib.import_module(module), attribute) if module else problem
        except Exception:
            return problem


def _unknown_names(
    location: str, tree: ast.AST, names: Mapping[str, Any], references: Mapping[str, str]
) -> Iterator[Finding]:
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if not (node.id in bound or node.id in names or node.id in references or hasattr(builtins, node.id)):
                fix = did_you_mean(node.id, names, "Import it in 'imports', or write '@' before a key of the config.")
                yield error("expression-name", location, f"the name '{node.id}' is not defined", fix)
        elif isinstance(node, ast.Attribute) and id(node) not in inner:
            yield from _unknown_attribute(location, node, names, bound)


def _unknown_attribute(
    location: str, node: ast.Attribute, names: Mapping[str, Any], bound: set[str]
) -> Iterator[Finding]:
    """Follow modules and classes as far as they go; attributes of values are not known without evaluating."""
    parts: list[str] = []
    inner: ast.expr = node
    while isinstance(inner, ast.Attribute):
        parts.insert(0, inner.attr)
        inner = inner.value
    if not isinstance(inner, ast.Name) or inner.id in bound or inner.id not in names:
        return
    owner, path = names[inner.id], inner.id
    for part in parts:
        if not isinstance(owner, types.ModuleType | type):
            return
        try:
            member = getattr(owner, part, _MISSING)
        except ImportError as problem:
            message = f"'{path}.{part}' cannot be imported: {root_cause(problem)}"
            yield error("expression-name", location, message, "Install it.")
            return
        if member is _MISSING and isinstance(owner, types.ModuleType):
            member = _imported(f"{path}.{part}")
        if member is _MISSING or isinstance(member, Exception):
            fix = did_you_mean(part, dir(owner), f"Look up what '{path}' offers.")
            yield error("expression-name", location, f"'{path}.{part}' does not exist", fix)
            return
        owner, path = member, f"{path}.{part}"


def check_pairing(bundle: BundleFiles) -> Iterator[Finding]:
    """Find lists of files put together with `zip`, `map` or a running index: one missing file shifts every pair."""
    for config, content in bundle.configs.items():
        for path, value in walk(content):
            method = _pairing_method(value, content) if is_expression(value) else None
            if method is not None:
                message = f"lists of files are paired by {method}: one missing file shifts every later pair"
                yield error("pairing", bundle.location(config, path), message, "Pair files by their names.")


def _pairing_method(value: str, content: Mapping[str, Any]) -> str | None:
    tree, names = parse(value)
    if tree is None:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"zip", "map"}:
            if sum(_lists_files(argument, names, content) for argument in node.args) > 1:
                return f"their order ({node.func.id})"
        elif isinstance(node, ast.ListComp | ast.GeneratorExp):
            targets = [name for loop in node.generators for name in ast.walk(loop.target)]
            counters = {name.id for name in targets if isinstance(name, ast.Name)}
            indexed = set()
            for part in ast.walk(node.elt):
                if (
                    isinstance(part, ast.Subscript)
                    and isinstance(part.slice, ast.Name)
                    and part.slice.id in counters
                    and _lists_files(part.value, names, content)
                ):
                    indexed.add(ast.dump(part.value))
            if len(indexed) > 1:
                return "a running index"
    return None


def _lists_files(node: ast.AST, names: Mapping[str, str], content: Mapping[str, Any]) -> bool:
    """Return True if an expression, or what it refers to, lists the files of a folder."""
    for part in ast.walk(node):
        if isinstance(part, ast.Call):
            function = part.func.attr if isinstance(part.func, ast.Attribute) else getattr(part.func, "id", "")
            if function in _LIST_FILES:
                return True
        if isinstance(part, ast.Name) and part.id in names:
            entry = at(content, resolved_path(content, names[part.id]))
            if is_expression(entry):
                tree, inner = parse(entry)
                if tree is not None and _lists_files(tree, inner, content):
                    return True
    return False


def check_paths(bundle: BundleFiles) -> Iterator[Finding]:
    """Find paths of one machine, or out of the bundle; a run's folder may name its data and its backup."""
    contents = {name: bundle.files[name] for name in [*bundle.configs, *bundle.overlays]}
    for config, content in contents.items():
        for path, value in walk(content):
            key = path.split("#")[0]
            if not isinstance(value, str) or not value or (bundle.is_run and key in HARMLESS_KEYS):
                continue
            report, fix = error, "Begin it with @bundle_root."
            if key in _DATA_KEYS:
                report, fix = warning, "Leave it empty: who runs the bundle says where the data are."
            for text in _path_texts(value):
                if _ABSOLUTE.match(text):
                    message = f"'{text[:80]}' is a path on one machine"
                    yield report("path-absolute", bundle.location(config, path), message, fix)
                elif _PARENT.search(text):
                    message = f"'{text[:80]}' leads out of the bundle"
                    yield report("path-leaves", bundle.location(config, path), message, fix)


def _path_texts(value: str) -> Iterator[str]:
    """Yield the strings that may be a path: the value, or the strings of an expression that can begin one."""
    if value.startswith(("@", "%")):
        return
    if not is_expression(value):
        if " " not in value.strip():
            yield value
        return
    tree, _ = parse(value)
    if tree is None:
        return
    appended = {id(node.right) for node in ast.walk(tree) if isinstance(node, ast.BinOp)}
    appended |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values[1:]}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            if id(node) not in appended:
                yield node.value
            elif _PARENT.search(node.value):
                yield node.value.lstrip("/\\")
