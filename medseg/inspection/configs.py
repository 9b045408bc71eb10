"""Judge what the configs of a bundle would run: every `_target_` and every expression."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from medseg.config.references import LONGEST, META, import_binding, is_plain, macro, references
from medseg.findings import Finding, error, printable
from medseg.inspection.allowlist import canonical_name, importable_modules
from medseg.inspection.expressions import UNSAFE_KEY, ExpressionJudge, Refusal
from medseg.inspection.merged_configs import Entry, MergedConfigs
from medseg.inspection.rules import Rules, has_rules
from medseg.inspection.write_targets import WriteTargets

TRUST_FIX = "Read it, and give --trust if you trust the bundle's maker."
_CALLABLE_COMPONENTS = ("monai.handlers.CheckpointLoader",)  # these objects are called with an engine
_SIZE = re.compile(r"[0-9pn*+ ]{1,24}")
_BUNDLE_NAME = re.compile(r"\w[\w .+-]{0,99}")
_PLAIN_FIX = "Write it without, or give --trust if you trust the bundle's maker."


@dataclass(frozen=True)
class Part:
    """One thing that a bundle would run.

    Args:
        kind: `target` or `expression`.
        text: as it is in the file.
        location: the file and the path in it.
        allowed: True if all that it can do is known to be harmless.
        reason: why it is not allowed; empty where it is.
    """

    kind: str
    text: str
    location: str
    allowed: bool
    reason: str = ""


@dataclass
class Judgement:
    """The parts of some configs, and the findings on them."""

    parts: list[Part] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def judge_configs(contents: Mapping[str, Mapping[str, Any]], metadata: str | None = None) -> Judgement:
    """Judge configs that may be laid over each other in any order.

    Args:
        contents: the configs, by file.
        metadata: the file among them that MONAI keeps under `_meta_`.

    Raises:
        UnreadableError: a config is too deep.
    """
    configs = MergedConfigs()
    for file, content in contents.items():
        configs.add(file, content, f"{META}#" if file == metadata else "")
    return _ConfigJudge(configs).run()


class _ConfigJudge(ExpressionJudge):
    """Judge all entries of configs, and their expressions by what the configs around them allow."""

    def __init__(self, configs: MergedConfigs) -> None:
        super().__init__(
            {
                name: next(iter(modules))
                for name, modules in configs.names.items()
                if len(modules) == 1 and not _is_reserved(name)
            }
        )
        self.configs = configs
        self.judgement = Judgement()
        self._location = ""
        self._reported = set[Finding]()
        self.rules = Rules(configs, WriteTargets(configs, self), self._report_address)

    def run(self) -> Judgement:
        self._imports()
        for entry in self.configs:
            self._location = entry.location
            key = entry.path.rpartition("#")[2]
            self._key(entry, key)
            if key == "_target_":
                self._target(entry)
            elif key == "_mode_":
                self._mode(entry)
            elif isinstance(entry.value, str):
                self._string(entry)
        return self.judgement

    def _report(self, code: str, location: str, message: str, fix: str = TRUST_FIX) -> None:
        finding = error(code, printable(location), printable(message, 400), fix)
        if finding not in self._reported:
            self._reported.add(finding)
            self.judgement.findings.append(finding)

    def _report_address(self, message: str) -> None:
        self._report("sends-elsewhere", self._location, message)

    def _part(self, kind: str, entry: Entry, reason: str = "") -> None:
        text = str(entry.value).replace("::", "#")
        self.judgement.parts.append(Part(kind, text, entry.location, not reason, reason))

    def _imports(self) -> None:
        """Refuse names that mean several things, and modules that become values."""
        for name, modules in sorted(self.configs.names.items()):
            if len(modules) > 1:
                message = f"'{name}' stands for {' and for '.join(sorted(modules))} in one bundle"
                self._report("import-alias", "imports", message, "Give each module a name of its own.")
            if _is_reserved(name):
                message = f"'{name}' is a name that Python uses itself"
                self._report("import-alias", "imports", message, "Give it another name.")
        for entry in self.configs.misplaced_imports:
            message = f"'{entry.value}' is an import within a component, which would get the module as a value"
            self._report("config-import", entry.location, message, "Import at the top of the config.")

    def _key(self, entry: Entry, key: str) -> None:
        if key.startswith("/") or "../" in key or "..\\" in key:
            message = f"the key '{key}' is a path, and files are named by keys"
            self._report("argument-unsafe", entry.location, message, "Rename it.")
        if key == UNSAFE_KEY:
            message = f"'{UNSAFE_KEY}' moves what MONAI saves to another folder"
            self._report("argument-unsafe", entry.location, message)

    def _string(self, entry: Entry) -> None:
        text = entry.value
        if len(text) > LONGEST and text[:1] in ("$", "@", "%"):
            self._report("expression-unknown", entry.location, f"it has more than {LONGEST} characters")
        elif text.startswith("$"):
            self._expression(entry)
        elif text.startswith("%"):
            self._macro(entry)
        elif text.startswith("@"):
            self._require_plain_references(entry)
            if any(self.configs.holds_import(path) for path in references(text)):
                self._report("config-import", entry.location, f"'{text}' takes an imported module as a value")
        if entry.path.startswith(META):
            self._metadata(entry)

    def _metadata(self, entry: Entry) -> None:
        *_, holder, _ = ["", *entry.path.split("#")]
        if holder == "spatial_shape" and not _SIZE.fullmatch(entry.value):
            message = f"'{entry.value}' is no size, and MONAI would evaluate it"
            self._report("metadata-shape", entry.location, message, _PLAIN_FIX)
        if entry.path == f"{META}#name" and not _BUNDLE_NAME.fullmatch(entry.value):
            message = f"'{entry.value}' is no plain name, and folders are named by it"
            self._report("metadata-name", entry.location, message, "Use letters, digits, '-' and '_'.")

    def _require_plain_references(self, entry: Entry) -> None:
        """Refuse a reference that MONAI may follow to another entry than the one that is judged here."""
        for path in references(entry.value):
            if path and not is_plain(path):
                message = f"'@{path}' may mean another entry than it says"
                self._report("config-reference", entry.location, message, _PLAIN_FIX)

    def _expression(self, entry: Entry) -> None:
        self._require_plain_references(entry)
        binding = import_binding(entry.value)
        try:
            if binding is None:
                self.judge(entry.value)
            elif not _is_importable(entry.value, binding[1]):
                raise Refusal(f"'{binding[1]}' is not on the list of modules")
        except Refusal as refusal:
            self._part("expression", entry, str(refusal))
            code = "config-import" if binding is not None else "expression-unknown"
            self._report(code, entry.location, f"{refusal}: {entry.value}")
        else:
            self._part("expression", entry)

    def _macro(self, entry: Entry) -> None:
        file, path = macro(entry.value) or ("", "")
        if file:
            message = f"'{entry.value}' would read another file as a config"
            self._report("config-macro", entry.location, message, _PLAIN_FIX)
        elif not is_plain(path):
            message = f"'{entry.value}' may mean another entry than it says"
            self._report("config-macro", entry.location, message, _PLAIN_FIX)
        elif self.configs.holds_import(path):
            self._report("config-import", entry.location, f"'{entry.value}' copies an import")
        elif self.configs.holds_relative(path):
            message = f"'{entry.value}' copies relative references, which would mean other entries"
            self._report("config-macro", entry.location, message)

    def _target(self, entry: Entry) -> None:
        name = canonical_name(entry.value) if isinstance(entry.value, str) else None
        if name is None:
            computed = str(entry.value)[:1] in ("$", "@", "%")
            reason = "it is put together when it runs" if computed else "it is not on the list of callables"
            self._part("target", entry, reason)
            self._report("target-unknown", entry.location, f"{reason}: {entry.value}")
            return
        problems = self.rules.component_problems(name, entry.path.rpartition("#")[0])
        self._part("target", entry, "; ".join(problems.values()))
        for location, problem in problems.items():
            self._report("argument-unsafe", location, problem)

    def _mode(self, entry: Entry) -> None:
        holder = entry.path.rpartition("#")[0]
        if entry.value == "callable":
            for name in self._target_names(holder):
                if name is not None and has_rules(name):
                    message = f"{name} would be called with arguments that are not in the config"
                    self._report("argument-unsafe", entry.location, message)
        elif entry.value != "default":
            message = f"'{entry.value}' starts a debugger, or is only known when it runs"
            self._report("mode-unsafe", entry.location, message)

    def _target_names(self, path: str) -> list[str | None]:
        """Return the canonical names of the classes that a component may have."""
        return [canonical_name(str(entry.value)) for entry in self.configs.at(f"{path}#_target_")]

    def check_reference(self, path: str) -> None:
        """Refuse a reference to an imported module: a method of a module is not a method of a value."""
        if self.configs.holds_import(path):
            raise Refusal("it takes an imported module as a value")

    def check_invoked(self, path: str) -> None:
        """Allow to call a component of a class that is called with nothing but an engine; refuse anything else."""
        entries = self.configs.at(path)
        components = all(isinstance(entry.value, dict) and "_target_" in entry.value for entry in entries)
        modes = [entry.value for entry in self.configs.at(f"{path}#_mode_")]
        callables = all(name in _CALLABLE_COMPONENTS for name in self._target_names(path))
        if not (entries and components and callables and all(mode == "default" for mode in modes)):
            raise Refusal("it calls what is only known when it runs")

    def check_call(self, name: str, node: ast.Call | None) -> None:
        """Check a listed callable against the rules, if it has any."""
        if has_rules(name):
            self.rules.check_call(name, node)


def _is_importable(text: str, target: str) -> bool:
    """Return True if an import statement takes a module of the list, or `from` one a callable of the list."""
    return target in importable_modules() or (text.startswith("$from ") and canonical_name(target) is not None)


def _is_reserved(name: str) -> bool:
    """Return True for a name that an import may not bind, because expressions are judged by its usual meaning."""
    return hasattr(builtins, name) or name.startswith("_")


def strings(content: Any) -> Iterator[str]:
    """Yield every string in a value, keys included.

    Example:
        >>> list(strings({"a": ["b", {"c": 1}]}))
        ['a', 'b', 'c']
    """
    if isinstance(content, str):
        yield content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield str(key)
            yield from strings(value)
    elif isinstance(content, list):
        for value in content:
            yield from strings(value)


def is_config(content: Mapping[str, Any]) -> bool:
    """Return True if JSON outside of `configs` has something that MONAI would run, were it given this file."""
    return any(text == "_target_" or text[:1] == "$" for text in strings(content))
