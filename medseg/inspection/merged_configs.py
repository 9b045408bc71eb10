"""All configs of a bundle at once: what may be at each path, whichever files are laid over each other.

Overlays change single paths of other files, and any file may be given as an overlay to another. So a path has as many
values as there are files that set it, and each of them is judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from medseg.config.references import META, absolute, import_binding, is_plain, key_path, macro

_MAX_DEPTH = 60
_MAX_ENTRIES, _MAX_EXTENDED_LISTS, _MAX_IMPORTS = 20_000, 100, 500
_RENAMED = {"optional_packages_version": "required_packages_version"}  # MONAI renames this top-level key
_MODULES = {"monai": "monai", "torch": "torch", "np": "numpy", "numpy": "numpy"}  # MONAI gives these to expressions


class UnreadableError(ValueError):
    """Text that is no config; the message says why."""


class NoObjectError(UnreadableError):
    """JSON that is no object, so no config."""


def parse_config(data: bytes) -> dict[str, Any]:
    """Return a config from its bytes.

    Raises:
        UnreadableError: no JSON in UTF-8, too deep, or a key twice in one object, of which readers take different ones.
        NoObjectError: it is a list or a single value.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) != len(pairs):
            keys = [key for key, _ in pairs]
            repeated = next(key for key in keys if keys.count(key) > 1)
            raise UnreadableError(f"the key '{repeated}' stands twice in one object")
        return content

    try:
        content = json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except RecursionError as problem:
        raise UnreadableError("it is too deep") from problem
    except UnreadableError:
        raise
    except ValueError as problem:
        raise UnreadableError(f"it is no JSON in UTF-8 ({problem})") from problem
    if not isinstance(content, dict):
        raise NoObjectError("it is no JSON object")
    return content


@dataclass(frozen=True)
class Entry:
    """A value at a path, and the file that sets it. Relative references in strings are absolute."""

    path: str
    value: Any
    file: str

    @property
    def location(self) -> str:
        """The file and the path in it."""
        return f"{self.file}, {self.path}" if self.path else self.file


@dataclass
class MergedConfigs:
    """Every value of every path, and what expressions can name.

    Args:
        entries: the values, by path.
        names: the modules that a name stands for in expressions.
        import_holders: the paths of import statements, and all paths above them.
        relative_holders: the same of strings with relative references.
        children: the paths right below each path.
        extensions: by the path of a list, where the entries are that a key with `+` adds to it.
        misplaced_imports: import statements that are not at the top of a config, nor in a list there.
    """

    entries: dict[str, list[Entry]] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=lambda: {name: {module} for name, module in _MODULES.items()})
    import_holders: set[str] = field(default_factory=set)
    relative_holders: set[str] = field(default_factory=set)
    children: dict[str, dict[str, None]] = field(default_factory=dict)
    extensions: dict[str, list[str]] = field(default_factory=dict)
    misplaced_imports: list[Entry] = field(default_factory=list)
    _indexed: dict[str, str] = field(default_factory=dict)
    _count: int = 0

    def add(self, file: str, content: Mapping[str, Any], prefix: str = "") -> None:
        """Add the content of a file.

        Args:
            file: its name.
            content: what it holds.
            prefix: a key and `#`, below which MONAI puts it.

        Raises:
            UnreadableError: it is too deep, too large, or has keys that mean another path than they say.
        """
        for number, (key, value) in enumerate(content.items()):
            path = key_path(key).removeprefix("+")
            if not is_plain(path):
                raise UnreadableError(f"the key '{key[:40]}' has a part that may mean another path")
            first, separator, below = path.partition("#")
            for name in dict.fromkeys((first, _RENAMED.get(first, first))):
                extension = number if key.startswith("+") else None
                self._add(file, f"{prefix}{name}{separator}{below}", value, extension)
        self._require_unindexed()

    def _add(self, file: str, path: str, value: Any, extension: int | None) -> None:
        """Add one key of a file; with a number, its value extends the list that is at the path."""
        for part in _lineage(path):
            holder, _, last = part.rpartition("#")
            if last.isdigit():
                self._indexed.setdefault(holder, path)
        if extension is None or not isinstance(value, list):
            self._put(file, path, value, 0)
            return
        if len(self.extensions) > _MAX_EXTENDED_LISTS:
            raise UnreadableError(f"more than {_MAX_EXTENDED_LISTS} lists are extended")
        self.entries.setdefault(path, []).append(Entry(path, value, file))
        for index, item in enumerate(value):
            location = f"{path}#+{file.replace('#', '_')}.{extension}.{index}"
            self.extensions.setdefault(path, []).append(location)
            self._put(file, location, item, 0, in_top_list="#" not in path)

    def _require_unindexed(self) -> None:
        """Refuse a number in a list that is extended: which entry it means depends on the files that are laid over.

        Raises:
            UnreadableError: there is one.
        """
        for holder in self.extensions:
            if holder in self._indexed:
                counted = f"'{self._indexed[holder][:80]}' counts in the list '{holder[:80]}'"
                raise UnreadableError(f"{counted}, which a key with '+' extends")

    def _put(self, file: str, path: str, value: Any, depth: int, in_top_list: bool = False) -> None:
        """Put a value and all that is below it."""
        if depth > _MAX_DEPTH:
            raise UnreadableError("it is too deep")
        self._count += 1
        if self._count > _MAX_ENTRIES:
            raise UnreadableError(f"the configs have more than {_MAX_ENTRIES} entries")
        if isinstance(value, str):
            raw, value = value, absolute(path, value)
            if value != raw.replace("#", "::"):
                self.relative_holders.update(_lineage(path))
        entry = Entry(path, value, file)
        self.entries.setdefault(path, []).append(entry)
        self.children.setdefault(path.rpartition("#")[0], {})[path] = None
        if isinstance(value, str) and value.startswith("$"):
            self._bind(entry, "#" not in path or in_top_list)
        elif isinstance(value, dict):
            for key, item in value.items():
                # The table of keys in metadata names paths, and nothing is laid over by it.
                is_path = "#" in key_path(key) and path != f"{META}#keys"
                if key != key.strip() or not key.isprintable() or not key or is_path:
                    raise UnreadableError(f"the key '{key[:40]}' has another meaning as a path")
                self._put(file, f"{path}#{key}", item, depth + 1)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                self._put(file, f"{path}#{index}", item, depth + 1, depth == 0 and "#" not in path)

    def _bind(self, entry: Entry, at_top: bool) -> None:
        """Bind the name of an import statement."""
        binding = import_binding(entry.value)
        if binding is None:
            return
        self.import_holders.update(_lineage(entry.path))
        self.names.setdefault(binding[0], set()).add(binding[1])
        if len(self.import_holders) > _MAX_IMPORTS:
            raise UnreadableError(f"it has more than {_MAX_IMPORTS} imports")
        if not at_top:
            self.misplaced_imports.append(entry)

    def __iter__(self) -> Iterator[Entry]:
        """Yield every entry."""
        for entries in self.entries.values():
            yield from entries

    def at(self, path: str, depth: int = 0) -> list[Entry]:
        """Return what may be at a path, also what only a macro or a reference above it leads to."""
        entries = list(self.entries.get(path, ()))
        for holder, locations in self.extensions.items():  # each of them may come to any number
            index, _, below = path.removeprefix(f"{holder}#").partition("#")
            if path.startswith(f"{holder}#") and index.isdigit():
                for location in locations:
                    entries += self.entries.get(f"{location}#{below}" if below else location, ())
        above = path.rpartition("#")[0]
        while above and depth < 8:
            for entry in self.entries.get(above, ()):
                target = target_path(entry.value)
                if target is not None:
                    entries += self.at(target + path[len(above) :], depth + 1)
            above = above.rpartition("#")[0]
        return entries

    def holds_relative(self, path: str) -> bool:
        """Return True if a string at that path or below it would mean something else elsewhere."""
        return path in self.relative_holders

    def holds_import(self, path: str) -> bool:
        """Return True if an import statement is at that path or below it, so that its value holds a module."""
        return path == "" or path in self.import_holders


def target_path(value: Any) -> str | None:
    """Return the path that a whole string refers to with `@` or copies with `%`; None for any other value.

    Example:
        >>> target_path("@a#b"), target_path("%a::c"), target_path("$@a"), target_path("@a b")
        ('a#b', 'a#c', None, 'a b')
    """
    if not isinstance(value, str) or value[:1] not in ("@", "%"):
        return None
    copied = macro(value)
    return copied[1] if copied is not None else key_path(value[1:])


def _lineage(path: str) -> list[str]:
    """Return a path and all paths above it."""
    parts = path.split("#")
    return ["#".join(parts[:count]) for count in range(1, len(parts) + 1)]
