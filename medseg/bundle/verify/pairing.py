"""Images and labels that are paired by their order: where one is missing, every later pair is wrong."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from medseg.bundle.verify.opened import Opened
from medseg.config.paths import at, resolved_path, walk
from medseg.config.references import is_expression, parse
from medseg.findings import Finding, error

_LISTING = {"glob", "iglob", "rglob", "listdir", "scandir", "iterdir", "walk"}


def check(bundle: Opened) -> Iterator[Finding]:
    """Findings on lists of files that are put together with `zip`, `map` or by a running number."""
    for config, content in bundle.configs.items():
        for path, value in walk(content):
            if is_expression(value) and (how := _paired(value, content)):
                yield error(
                    "pairing",
                    bundle.location(config, path),
                    f"lists of files are paired by {how}: one file without a partner, and every later pair is wrong",
                    "Pair files by their names.",
                )


def _paired(value: str, content: Mapping[str, Any]) -> str | None:
    tree, names = parse(value)
    if tree is None:
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"zip", "map"}:
            if sum(_lists(one, names, content) for one in node.args) > 1:
                return f"their order ({node.func.id})"
        elif isinstance(node, ast.ListComp | ast.GeneratorExp):
            counters = {
                name.id for one in node.generators for name in ast.walk(one.target) if isinstance(name, ast.Name)
            }
            taken = {
                ast.dump(one.value) for one in ast.walk(node.elt)
                if isinstance(one, ast.Subscript) and isinstance(one.slice, ast.Name) and one.slice.id in counters
                and _lists(one.value, names, content)
            }  # fmt: skip
            if len(taken) > 1:
                return "a running number"
    return None


def _lists(node: ast.AST, names: Mapping[str, str], content: Mapping[str, Any]) -> bool:
    """Whether an expression, or what it refers to, lists the files of a folder."""
    for one in ast.walk(node):
        if isinstance(one, ast.Call):
            called = one.func.attr if isinstance(one.func, ast.Attribute) else getattr(one.func, "id", "")
            if called in _LISTING:
                return True
        if isinstance(one, ast.Name) and one.id in names:
            entry = at(content, resolved_path(content, names[one.id]))
            if is_expression(entry):
                tree, inner = parse(entry)
                if tree is not None and _lists(tree, inner, content):
                    return True
    return False
