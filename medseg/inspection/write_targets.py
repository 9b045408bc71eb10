"""Work out where a config would write: the texts that strings and expressions come to, without evaluating them.

A path is text in which one sign stands for the folder of the bundle or of its run. Only what can be worked out counts
as safe; whatever else an expression may be, its path is unknown.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from typing import Any

from medseg.config.references import key_path, macro, references
from medseg.inspection.archive import portability_problem
from medseg.inspection.expressions import ExpressionJudge, Refusal, parse_expression, referenced_path
from medseg.inspection.merged_configs import MergedConfigs

HOME = "\0"  # the folder of the bundle or of its run
_MAX_TEXTS = 64
_HOME_FUNCTIONS = {"medseg.bundle.bundle_root", "medseg.bundle.runs_dir"}
_IDENTITY = {"str", "os.path.abspath", "os.path.normpath"}
_JOIN = {"os.path.join", "pathlib.Path"}
_START_RUN = "medseg.bundle.start_run"
_RUN_FILE = re.compile(
    r"\.(py[a-z]?|so|pyd|dll|dylib|pth|exe|bat|cmd|ps1|sh|conf|ini|cfg|toml|ya?ml|lnk)(\.|$)", re.IGNORECASE
)
_FILE_NAME = re.compile(r"[\w.,:=@{}% -]*")
_DRIVE = re.compile(r"[A-Za-z]:")


class WriteTargets:
    """Work out the paths in the configs of one bundle.

    Args:
        configs: the configs.
        judge: what resolves names in expressions.
    """

    def __init__(self, configs: MergedConfigs, judge: ExpressionJudge) -> None:
        self.configs = configs
        self.judge = judge
        self._cache: dict[str, set[str] | None] = {}

    def path_problem(self, value: Any) -> str | None:
        """Return why a path that is written to is not within the bundle, its run or the working directory, or None.

        Args:
            value: as it is in a config, or a node of an expression.
        """
        texts = self.texts(value)
        if texts is None:
            return "where it would write cannot be worked out"
        return next((problem for problem in map(_path_problem, sorted(texts)) if problem), None)

    def name_problem(self, value: Any, extension: bool = False) -> str | None:
        """Return why a value may not be the name, or the extension, of a file that is written; None if it may."""
        texts = self.texts(value)
        if texts is None:
            return "what it would be called cannot be worked out"
        for text in texts:
            if not _FILE_NAME.fullmatch(text) or ".." in text or (text.startswith(".") and not extension):
                return "it is no plain name of a file"
            if _RUN_FILE.search(text):
                return "it is the name of a file that is run or read as settings"
        return None

    def texts(self, value: Any, depth: int = 0) -> set[str] | None:
        """Return all texts that a value may come to; None if that is unknown. Null and booleans come to no text."""
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
                return self._node(parse_expression(value), depth)
            except Refusal:
                return None
        if value.startswith("@") and references(value):
            return self._at(key_path(value[1:]), depth)
        copied = macro(value)
        if copied is not None:
            return None if copied[0] else self._at(copied[1], depth)
        return {value}

    def _at(self, path: str, depth: int) -> set[str] | None:
        if path not in self._cache:
            self._cache[path] = None  # while it is worked out: what refers to itself stays unknown
            entries = self.configs.at(path)
            if entries:
                self._cache[path] = _union([self.texts(entry.value, depth + 1) for entry in entries])
        return self._cache[path]

    def _node(self, node: ast.AST, depth: int) -> set[str] | None:
        if depth > 40:
            return None
        path = referenced_path(node)
        if path is not None:
            return self._at(path, depth)
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str):  # text, whatever its first letter would mean in a config
                return {node.value}
            return None if isinstance(node.value, (bytes, complex)) else self.texts(node.value)
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Add, ast.Div)):
            return self._joined([node.left, node.right], "/" if isinstance(node.op, ast.Div) else "", depth)
        if isinstance(node, ast.JoinedStr):
            return self._joined(node.values, "", depth)
        if isinstance(node, ast.FormattedValue):
            return self._node(node.value, depth) if node.conversion == -1 and node.format_spec is None else None
        if isinstance(node, ast.IfExp):
            return _union([self._node(branch, depth + 1) for branch in (node.body, node.orelse)])
        if isinstance(node, ast.BoolOp):
            return _union([self._node(branch, depth + 1) for branch in node.values])
        if isinstance(node, ast.Attribute):
            return self._run_folder(node)
        return self._call(node, depth) if isinstance(node, ast.Call) else None

    def _call(self, node: ast.Call, depth: int) -> set[str] | None:
        name = self.judge.callable_name(node.func)
        if name is None and isinstance(node.func, ast.Name) and node.func.id == "str":
            name = "str"
        if name == "os.getcwd":
            return {"."}
        argument = node.args[0] if len(node.args) == 1 else None
        if name in _HOME_FUNCTIONS:  # they go by a bundle's folder or name, which may not be any other
            problem = self.path_problem if name == "medseg.bundle.runs_dir" else self.name_problem
            return {HOME} if argument is not None and not node.keywords and not problem(argument) else None
        if argument is not None and (name == "time.strftime" or self._is_strftime(node.func)):
            # Of a time, digits and words stand where a letter with % is.
            plain = isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            return {re.sub("%.", "0", str(getattr(argument, "value", "")))} if plain else None
        if node.keywords or not node.args or any(isinstance(entry, ast.Starred) for entry in node.args):
            return None
        if name in _JOIN or (name in _IDENTITY and argument is not None):
            return self._joined(node.args, "/", depth)
        return None

    def _is_strftime(self, function: ast.AST) -> bool:
        """Return True for `datetime.datetime.now().strftime`; an object of the bundle may do anything."""
        now = function.value if isinstance(function, ast.Attribute) and function.attr == "strftime" else None
        name = self.judge.callable_name(now.func) if isinstance(now, ast.Call) else None
        return name in ("datetime.datetime.now", "datetime.datetime.today")

    def _run_folder(self, node: ast.Attribute) -> set[str] | None:
        """Work out `@current_run.folder`, where `current_run` is what `start_run` returned in every config."""
        path = referenced_path(node.value)
        entries = self.configs.at(path) if path is not None else []
        if not entries or node.attr not in ("folder", "backup"):
            return None
        for value in (entry.value for entry in entries):
            if not (isinstance(value, dict) or (isinstance(value, str) and value[:1] in ("$", "@", "%"))):
                continue  # a list or a plain value has no such attribute
            try:
                tree = parse_expression(value) if isinstance(value, str) and value.startswith("$") else None
            except Refusal:
                return None
            if not isinstance(tree, ast.Call) or self.judge.dotted_name(tree.func) != _START_RUN:
                return None
        return {HOME} if node.attr == "folder" else set()

    def _joined(self, nodes: Iterable[ast.AST], separator: str, depth: int) -> set[str] | None:
        """Work out a sum, or a path of several parts: there an absolute part replaces all before it."""
        texts: set[str] | None = None
        for node in nodes:
            parts = self._node(node, depth + 1)
            if parts is None:
                return None
            if texts is None:
                texts = parts
                continue
            texts = {
                part if separator and _is_absolute(part) else text + separator + part
                for text in texts
                for part in parts
            }
            if len(texts) > _MAX_TEXTS:
                return None
        return {""} if texts is None else texts


def _is_absolute(text: str) -> bool:
    return text.startswith(("/", "\\", HOME)) or _DRIVE.match(text) is not None


def _union(alternatives: Iterable[set[str] | None]) -> set[str] | None:
    union: set[str] = set()
    for texts in alternatives:
        if texts is None or len(union | texts) > _MAX_TEXTS:
            return None
        union |= texts
    return union


def _path_problem(text: str) -> str | None:
    inner = text
    if text.startswith(HOME):
        inner = text[1:]
        if inner and not inner.startswith("/"):
            return f"it would write to '<bundle>{inner}', beside the bundle"
        inner = inner.lstrip("/")
    parts = [part for part in inner.split("/") if part not in ("", ".")]
    if inner.startswith("/") or "://" in inner or HOME in inner:
        return f"it would write to '{inner.replace(HOME, '<bundle>')}', outside of the bundle"
    if not parts:
        return None
    problem = portability_problem("/".join(parts))
    if problem is not None:
        return f"it would write to '{inner}': {problem}"
    if any(part.startswith(".") and part != ".cache" for part in parts) or "configs" in parts:
        return f"it would write to '{inner}', among settings"
    return f"it would write '{inner}', which is run or read as settings" if _RUN_FILE.search(parts[-1]) else None
