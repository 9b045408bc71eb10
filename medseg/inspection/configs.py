"""What the configs of a bundle would run: every `_target_` and every expression, and why it is known or not."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from medseg.findings import Finding, error
from medseg.inspection.expressions import UNSAFE_KEY, Expression, Refusal
from medseg.inspection.known import known, modules
from medseg.inspection.names import printable
from medseg.inspection.places import Places
from medseg.inspection.references import LONGEST, imported, is_plain, macro, referred
from medseg.inspection.rules import Rules, ruled
from medseg.inspection.universe import Entry, Universe

_CALLED = ("monai.handlers.CheckpointLoader",)  # once made, they are called with an engine
META = "_meta_"  # where MONAI puts metadata.json, expressions and all
_SHAPE = re.compile(r"[0-9pn*+ ]{1,24}")
_NAME = re.compile(r"\w[\w .+-]{0,99}")
_TRUST = "Read it; if you trust who made the bundle, give --trust."
_PLAIN = "Write it without, or give --trust if you trust who made the bundle."


@dataclass(frozen=True)
class Part:
    """One thing that a bundle would run.

    Args:
        kind: `target` or `expression`.
        text: as it stands in the file.
        location: file and path in it.
        known: whether all that it can do is known and harmless.
        why: why it is not known; empty where it is.
    """

    kind: str
    text: str
    location: str
    known: bool
    why: str = ""


@dataclass
class Judged:
    """The parts of some configs, and what was found about them."""

    parts: list[Part] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def judge(contents: Mapping[str, Mapping[str, Any]], metadata: str | None = None) -> Judged:
    """Judge configs that may be laid over each other in any order.

    Args:
        contents: the configs, by file.
        metadata: which of them MONAI keeps under `_meta_`.

    Raises:
        UnreadableError: one is too deep.
    """
    universe = Universe()
    for file, content in contents.items():
        universe.add(file, content, f"{META}::" if file == metadata else "")
    return _Judge(universe).run()


class _Judge:
    def __init__(self, universe: Universe) -> None:
        self.universe, self.found = universe, Judged()
        single = {
            name: next(iter(found)) for name, found in universe.names.items() if len(found) == 1 and not _is_taken(name)
        }
        self._place, self._said = "", set[Finding]()
        self.expression = Expression(single, self._refers, self._calls, ruled, self._invokes)
        self.places = Places(universe, self.expression)
        self.rules = Rules(universe, self.places, self._sends)

    def run(self) -> Judged:
        for name, found in sorted(self.universe.names.items()):
            if len(found) > 1:
                said = f"'{name}' stands for {' and for '.join(sorted(found))} in one bundle"
                self._error("import-alias", "imports", said, "Give each module a name of its own.")
            if _is_taken(name):
                self._error("import-alias", "imports", f"'{name}' is a name of Python's own", "Give it another name.")
        for entry in self.universe.misplaced:
            said = f"'{entry.value}' is an import within a component, which would get the module as a value"
            self._error("config-import", entry.location, said, "Import at the top, as the others do.")
        for entry in self.universe:
            self._place = entry.location
            last = entry.path.rpartition("::")[2]
            if last.startswith("/") or "../" in last or "..\\" in last:
                said = f"the key '{last}' is a path, and files are called by keys"
                self._error("argument-unsafe", entry.location, said, "Rename it.")
            if last == UNSAFE_KEY:
                self._error(
                    "argument-unsafe", entry.location, f"'{UNSAFE_KEY}' moves what MONAI saves to another place"
                )
            if last == "_target_":
                self._target(entry)
            elif last == "_mode_":
                self._mode(entry)
            elif isinstance(entry.value, str):
                self._string(entry)
        return self.found

    def _error(self, code: str, location: str, message: str, fix: str = _TRUST) -> None:
        finding = error(code, printable(location), printable(message, 400), fix)
        if finding not in self._said:
            self._said.add(finding)
            self.found.findings.append(finding)

    def _string(self, entry: Entry) -> None:
        text = entry.value
        if len(text) > LONGEST and text[:1] in ("$", "@", "%"):
            self._error("expression-unknown", entry.location, f"it has more than {LONGEST} characters")
        elif text.startswith("$"):
            self._expression(entry)
        elif text.startswith("%"):
            self._macro(entry)
        elif text.startswith("@"):
            self._refers_plainly(entry)
            for path in referred(text):
                if self.universe.holds_import(path):
                    self._error("config-import", entry.location, f"'{text}' takes an imported module as a value")
        if entry.path.startswith(META) and entry.path.split("::")[-2] == "spatial_shape" and not _SHAPE.fullmatch(text):
            self._error("metadata-shape", entry.location, f"'{text}' is no size; MONAI would evaluate it", _PLAIN)
        if entry.path == f"{META}::name" and not _NAME.fullmatch(text):
            said = f"'{text}' is no plain name, and folders are called by it"
            self._error("metadata-name", entry.location, said, "Use letters, digits, '-' and '_'.")

    def _refers_plainly(self, entry: Entry) -> None:
        """What MONAI finds by a reference must be what is looked at here."""
        for path in referred(entry.value):
            if path and not is_plain(path):
                self._error(
                    "config-reference", entry.location, f"'@{path}' may mean another place than it says", _PLAIN
                )

    def _expression(self, entry: Entry) -> None:
        self._refers_plainly(entry)
        bound = imported(entry.value)
        try:
            if bound is None:
                self.expression.judge(entry.value)
            elif bound[1] not in modules() and (not entry.value.startswith("$from ") or known(bound[1]) is None):
                raise Refusal(f"'{bound[1]}' is not known")
        except Refusal as refusal:
            self._part("expression", entry, str(refusal))
            self._error(
                "config-import" if bound is not None else "expression-unknown",
                entry.location,
                f"{refusal}: {entry.value}",
            )
        else:
            self._part("expression", entry)

    def _macro(self, entry: Entry) -> None:
        file, path = macro(entry.value)
        if file:
            self._error("config-macro", entry.location, f"'{entry.value}' would read another file as a config", _PLAIN)
        elif not is_plain(path):
            self._error("config-macro", entry.location, f"'{entry.value}' may mean another place than it says", _PLAIN)
        elif self.universe.holds_import(path):
            self._error("config-import", entry.location, f"'{entry.value}' copies an import")
        elif self.universe.holds_relative(path):
            self._error(
                "config-macro", entry.location, f"'{entry.value}' copies references that go by where they stand"
            )

    def _target(self, entry: Entry) -> None:
        name = known(entry.value) if isinstance(entry.value, str) else None
        if name is None:
            why = "it is put together when it runs" if str(entry.value)[:1] in "$@%" else "it is not known"
            self._part("target", entry, why)
            self._error("target-unknown", entry.location, f"{why}: {entry.value}")
            return
        faults = self.rules.component(name, entry.path.rpartition("::")[0])
        self._part("target", entry, "; ".join(faults.values()))
        for location, why in faults.items():
            self._error("argument-unsafe", location, why)

    def _mode(self, entry: Entry) -> None:
        holder = entry.path.rpartition("::")[0]
        targets = [known(str(one.value)) for one in self.universe.at(f"{holder}::_target_")]
        if entry.value == "callable":
            for name in targets:
                if name is not None and ruled(name):
                    said = f"{name} would be called with arguments of somebody else"
                    self._error("argument-unsafe", entry.location, said)
        elif entry.value != "default":
            self._error(
                "mode-unsafe", entry.location, f"'{entry.value}' starts a debugger, or is only known when it runs"
            )

    def _part(self, kind: str, entry: Entry, why: str = "") -> None:
        self.found.parts.append(Part(kind, str(entry.value).replace("::", "#"), entry.location, not why, why))

    def _refers(self, path: str) -> None:
        if self.universe.holds_import(path):
            raise Refusal("it takes an imported module as a value")

    def _invokes(self, path: str) -> None:
        """A component that was made may be called where it is of a kind that takes nothing but an engine."""
        here = self.universe.at(path)
        targets = [known(str(one.value)) for one in self.universe.at(f"{path}::_target_")]
        modes = [one.value for one in self.universe.at(f"{path}::_mode_")]
        made = all(isinstance(one.value, dict) and "_target_" in one.value for one in here)
        if not (here and made and all(one in _CALLED for one in targets) and all(one == "default" for one in modes)):
            raise Refusal("it calls what is only known when it runs")

    def _calls(self, name: str, node: Any) -> None:
        self.rules.call(name, node)

    def _sends(self, said: str) -> None:
        self._error("sends-elsewhere", self._place, said)


def _is_taken(name: str) -> bool:
    """Whether an import may not bind a name: expressions are judged by what the name means without it."""
    return hasattr(builtins, name) or name.startswith("_")


def strings(content: Any) -> Iterator[str]:
    """Every string in a value, keys included."""
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
    """Whether JSON that lies outside of `configs` says something that MONAI would run, were it given it."""
    return any(text == "_target_" or text[:1] == "$" for text in strings(content))
