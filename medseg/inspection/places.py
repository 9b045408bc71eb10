"""Where a config would write: what strings and expressions come to, as far as that can be said without running them.

A place is text in which one sign stands for the bundle's or the run's own folder. Only what can be worked out counts
as safe; whatever else an expression may be, its place is unknown.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import Any

from medseg.inspection.expressions import Expression, Refusal, parsed, reference
from medseg.inspection.known import known
from medseg.inspection.names import fault
from medseg.inspection.references import macro, referred
from medseg.inspection.universe import Universe

OWN = "\0"  # the bundle's or the run's own folder
_MOST = 64
_OWN_FOLDERS = {"medseg.bundle.bundle_root", "medseg.bundle.runs_dir"}
_SAME = {"str", "os.path.abspath", "os.path.normpath"}
_JOIN = {"os.path.join", "pathlib.Path"}
_RUN = "medseg.bundle.start_run"
_CODE = re.compile(
    r"\.(py[a-z]?|so|pyd|dll|dylib|pth|exe|bat|cmd|ps1|sh|conf|ini|cfg|toml|ya?ml|lnk)(\.|$)", re.IGNORECASE
)
_NAME = re.compile(r"[\w.,:=@{}% -]*")


class Places:
    """Works out places in the configs of one bundle.

    Args:
        universe: the configs.
        expression: what resolves names in expressions.
    """

    def __init__(self, universe: Universe, expression: Expression) -> None:
        self.universe, self.expression = universe, expression
        self._found: dict[str, set[str] | None] = {}

    def fault(self, value: Any) -> str | None:
        """Why a place to write to is not within the bundle, its run or the working directory; None where it is.

        Args:
            value: as it stands in a config, or a node of an expression.
        """
        found = self.texts(value)
        if found is None:
            return "where it would write cannot be worked out"
        return next((why for why in map(_place_fault, sorted(found)) if why), None)

    def name_fault(self, value: Any, extension: bool = False) -> str | None:
        """Why a value may not be the name of a file that is written, or its extension; None where it may."""
        found = self.texts(value)
        if found is None:
            return "what it would be called cannot be worked out"
        for text in found:
            if not _NAME.fullmatch(text) or ".." in text or (text.startswith(".") and not extension):
                return "it is no plain name of a file"
            if _CODE.search(text):
                return "it is the name of a file that is run or read as settings"
        return None

    def texts(self, value: Any, depth: int = 0) -> set[str] | None:
        """All texts that a value may come to; None where that is not known. Nothing (null) comes to no text."""
        if depth > 12:
            return None
        if isinstance(value, ast.AST):
            return self._node(value, depth)
        if value is None or isinstance(value, bool):
            return set()
        if isinstance(value, (int, float)):
            return {str(value)}
        if not isinstance(value, str):
            return None
        if value.startswith("$"):
            try:
                return self._node(parsed(value), depth)
            except Refusal:
                return None
        if value.startswith("@") and referred(value):
            return self._at(value[1:], depth)
        if value.startswith("%"):
            file, path = macro(value)
            return None if file else self._at(path, depth)
        return {value}

    def _at(self, path: str, depth: int) -> set[str] | None:
        if path not in self._found:
            self._found[path] = None  # while it is being looked for: what refers to itself is not known
            entries = self.universe.at(path)
            if entries:
                self._found[path] = self._union([self.texts(entry.value, depth + 1) for entry in entries])
        return self._found[path]

    def _union(self, found: Iterable[set[str] | None]) -> set[str] | None:
        every: set[str] = set()
        for one in found:
            if one is None or len(every | one) > _MOST:
                return None
            every |= one
        return every

    def _node(self, node: ast.AST, depth: int) -> set[str] | None:
        if depth > 40:
            return None
        path = reference(node)
        if path is not None:
            return self._at(path, depth)
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):  # text, whatever its first letter would mean in a config
                return {node.value}
            return None if isinstance(node.value, (bytes, complex)) else self.texts(node.value)
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Div)):
            join = "/" if isinstance(node.op, ast.Div) else ""
            return self._joined([self._node(node.left, depth + 1), self._node(node.right, depth + 1)], join)
        if isinstance(node, ast.JoinedStr):
            return self._joined([self._node(part, depth + 1) for part in node.values], "")
        if isinstance(node, ast.FormattedValue):
            return self._node(node.value, depth + 1) if node.conversion == -1 and node.format_spec is None else None
        if isinstance(node, ast.IfExp):
            return self._union([self._node(node.body, depth + 1), self._node(node.orelse, depth + 1)])
        if isinstance(node, ast.BoolOp):
            return self._union([self._node(one, depth + 1) for one in node.values])
        if isinstance(node, ast.Attribute):
            return self._of_run(node)
        return self._call(node, depth) if isinstance(node, ast.Call) else None

    def _call(self, node: ast.Call, depth: int) -> set[str] | None:
        name = self.expression.dotted(node.func)
        found = known(name) if name is not None else None
        if found is None and isinstance(node.func, ast.Name) and node.func.id == "str":
            found = "str"
        if found == "os.getcwd":
            return {"."}
        if found in _OWN_FOLDERS:  # they go by a bundle's folder or name, which may not be any other
            safe = len(node.args) == 1 and not node.keywords
            root = found.endswith("runs_dir")
            return {OWN} if safe and not (self.fault if root else self.name_fault)(node.args[0]) else None
        if len(node.args) == 1 and (found == "time.strftime" or self._is_time(node.func)):
            said = node.args[0]  # of a time, digits and words stand where a letter with % does
            plain = isinstance(said, ast.Constant) and isinstance(said.value, str)
            return {re.sub("%.", "0", str(getattr(said, "value", "")))} if plain else None
        if node.keywords or not node.args or any(isinstance(one, ast.Starred) for one in node.args):
            return None
        if found in _JOIN or (found in _SAME and len(node.args) == 1):
            return self._joined([self._node(one, depth + 1) for one in node.args], "/")
        return None

    def _is_time(self, func: ast.AST) -> bool:
        """Whether it is `datetime.datetime.now().strftime`; of any other object it could be a function of its own."""
        now = func.value if isinstance(func, ast.Attribute) and func.attr == "strftime" else None
        name = self.expression.dotted(now.func) if isinstance(now, ast.Call) else None
        return known(name or "") in ("datetime.datetime.now", "datetime.datetime.today")

    def _of_run(self, node: ast.Attribute) -> set[str] | None:
        """`@this_run.folder`, where `this_run` is what `start_run` gave in every config."""
        path = reference(node.value)
        entries = self.universe.at(path) if path is not None else []
        if not entries or node.attr not in ("folder", "backup"):
            return None
        for entry in entries:
            if not (
                isinstance(entry.value, dict) or (isinstance(entry.value, str) and entry.value[:1] in ("$", "@", "%"))
            ):
                continue  # a list or a plain value has no such attribute
            try:
                tree = parsed(entry.value) if isinstance(entry.value, str) and entry.value.startswith("$") else None
            except Refusal:
                return None
            if not isinstance(tree, ast.Call) or self.expression.dotted(tree.func) != _RUN:
                return None
        return {OWN} if node.attr == "folder" else set()

    def _joined(self, parts: list[set[str] | None], join: str) -> set[str] | None:
        made = {""}
        for number, part in enumerate(parts):
            if part is None:
                return None
            made = {self._two(one, other, join) if number else other for one in made for other in part}
            if len(made) > _MOST:
                return None
        return made

    def _two(self, one: str, other: str, join: str) -> str:
        absolute = other.startswith(("/", "\\", OWN)) or re.match(r"[A-Za-z]:", other)
        return other if join and absolute else one + join + other


def _place_fault(text: str) -> str | None:
    rest = text
    if text.startswith(OWN):
        rest = text[1:]
        if rest and not rest.startswith("/"):
            return f"it would write to '<bundle>{rest}', beside the bundle"
        rest = rest.lstrip("/")
    parts = [part for part in rest.split("/") if part not in ("", ".")]
    if rest.startswith("/") or "://" in rest or OWN in rest:
        return f"it would write to '{rest.replace(OWN, '<bundle>')}', outside of the bundle"
    if not parts:
        return None
    why = fault("/".join(parts))
    if why is not None:
        return f"it would write to '{rest}': {why}"
    if any(part.startswith(".") and part != ".cache" for part in parts) or "configs" in parts:
        return f"it would write to '{rest}', where settings lie"
    return f"it would write '{rest}', which is run or read as settings" if _CODE.search(parts[-1]) else None
