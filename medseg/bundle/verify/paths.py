"""Paths: what is written for one machine, or leads out of the bundle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from medseg.bundle.resuming import PLACES
from medseg.bundle.verify.opened import Opened
from medseg.config.paths import walk
from medseg.config.references import is_expression, parse
from medseg.findings import Finding, error, warning

_ABSOLUTE = re.compile(r"^(/(?!/)[\w.~-]+(/|$)|[A-Za-z]:[\\/]|\\\\|~[\w]*[\\/])")
_UP = re.compile(r"(^|[\\/])\.\.([\\/]|$)")
_DATA = {"dataset_dir", "data_dir", "datalist", "data_list_file_path", "data_file_base_dir", "backup"}


def check(bundle: Opened) -> Iterator[Finding]:
    """Findings on paths in configs; a run's folder may say where its data and its backup lie."""
    contents = {
        **{name: bundle.files[name] for name in bundle.configs},
        **{n: bundle.files[n] for n in bundle.overlays},
    }
    for config, content in contents.items():
        for path, value in walk(content):
            if not isinstance(value, str) or not value:
                continue
            key = path.split("#")[0]
            if bundle.is_run and key in PLACES:
                continue
            for text in _texts(value):
                yield from _one(bundle.location(config, path), text, key in _DATA)


def _one(location: str, text: str, is_data: bool) -> Iterator[Finding]:
    say = warning if is_data else error
    fix = "Leave it empty, and let whoever runs it say where the data lie." if is_data else "Begin with @bundle_root."
    if _ABSOLUTE.match(text):
        yield say("path-absolute", location, f"'{text[:80]}' is a place on one machine", fix)
    elif _UP.search(text):
        yield say("path-leaves", location, f"'{text[:80]}' leads out of the bundle", fix)


def _texts(value: str) -> Iterator[str]:
    """The strings in which a path may stand: the value, or those of an expression that begin one."""
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
    appended |= {id(one) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for one in node.values[1:]}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
            if id(node) not in appended:
                yield node.value
            elif _UP.search(node.value):
                yield node.value.lstrip("/\\")
