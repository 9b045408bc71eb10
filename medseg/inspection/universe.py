"""All configs of a bundle at once: what may stand at each path, whichever files are laid over each other.

Overlays change single paths of other files, and anybody may be told to lay one over another. So a path has as many
values as there are files that say something of it, and each of them is judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from medseg.inspection.references import absolute, imported, is_plain, macro, normal

_DEEPEST = 60
_MOST, _MOST_ADDED = 20_000, 100  # entries, and lists that something is added to
_MOST_IMPORTS = 500
_RENAMED = {"optional_packages_version": "required_packages_version"}  # MONAI does, at the top of a file


class UnreadableError(ValueError):
    """Text that is no config; the message says why."""


class NoObjectError(UnreadableError):
    """JSON that is no object, so no config."""


def parse(data: bytes) -> dict[str, Any]:
    """A config from its bytes.

    Raises:
        UnreadableError: no JSON in UTF-8, too deep, or a key twice in one place, of which readers take another.
        NoObjectError: it is a list or a single value.
    """

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in found]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UnreadableError(f"the key '{twice}' stands twice in one place")
        return dict(found)

    try:
        content = json.loads(data.decode("utf-8"), object_pairs_hook=pairs)
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
    """A value at a path, and the file that puts it there. Relative ids in strings are absolute."""

    path: str
    value: Any
    file: str

    @property
    def location(self) -> str:
        """File and path, as people write it."""
        return f"{self.file}, {self.path.replace('::', '#')}" if self.path else self.file


@dataclass
class Universe:
    """Every value of every path, and what expressions can name.

    Args:
        entries: the values, by path.
        names: the modules that a name stands for.
        imports: where import statements stand, and all that they stand below.
        relative: the same of strings that refer to where they stand.
        below: the paths right below each path.
        added: where the entries stand that overlays put behind those of a list.
        misplaced: where import statements stand that are no value of the top, and in no list there.
    """

    entries: dict[str, list[Entry]] = field(default_factory=dict)
    names: dict[str, set[str]] = field(
        default_factory=lambda: {"monai": {"monai"}, "torch": {"torch"}, "np": {"numpy"}, "numpy": {"numpy"}}
    )
    imports: set[str] = field(default_factory=set)
    relative: set[str] = field(default_factory=set)
    below: dict[str, dict[str, None]] = field(default_factory=dict)
    added: dict[str, list[str]] = field(default_factory=dict)
    misplaced: list[Entry] = field(default_factory=list)
    _counted: dict[str, str] = field(default_factory=dict)
    _count: int = 0

    def add(self, file: str, content: Mapping[str, Any], prefix: str = "") -> None:
        """Add what a file says.

        Raises:
            UnreadableError: it is too deep, too much, or has keys that mean another place.
        """
        for number, (key, value) in enumerate(content.items()):
            plain = normal(key)
            path = plain.removeprefix("+")
            if not is_plain(path):
                raise UnreadableError(f"the key '{key[:40]}' has a part that means another place")
            first, colons, rest = path.partition("::")
            for name in dict.fromkeys((first, _RENAMED.get(first, first))):
                self._add(file, f"{prefix}{name}{colons}{rest}", value, number if plain != path else None)
        self._require_uncounted()

    def _add(self, file: str, path: str, value: Any, number: int | None) -> None:
        """Put a value of the top of a file where it goes; with a number, behind what is there."""
        for part in _above(path):
            holder, _, last = part.rpartition("::")
            if last.isdigit():
                self._counted.setdefault(holder, path.replace("::", "#"))
        if number is None or not isinstance(value, list):
            self._put(file, path, value, 0)
            return
        if len(self.added) > _MOST_ADDED:
            raise UnreadableError(f"more than {_MOST_ADDED} lists are added to")
        self.entries.setdefault(path, []).append(Entry(path, value, file))
        for index, one in enumerate(value):
            location = f"{path}::+{file}.{number}.{index}"
            self.added.setdefault(path, []).append(location)
            self._put(file, location, one, 0, "::" not in path)

    def _require_uncounted(self) -> None:
        """Nothing may be called by its number in a list that grows: what stands there depends on the files laid over.

        Raises:
            UnreadableError: something is.
        """
        for holder in self.added:
            if holder in self._counted:
                said = f"'{self._counted[holder][:80]}' counts in the list '{holder.replace('::', '#')[:80]}'"
                raise UnreadableError(f"{said}, which a key with '+' extends")

    def _put(self, file: str, path: str, value: Any, depth: int, listed: bool = False) -> None:
        """Put a value and what is below it; `listed`: it stands in a list at the top of a file."""
        if depth > _DEEPEST:
            raise UnreadableError("it is too deep")
        if isinstance(value, str):
            raw, value = normal(value), absolute(path, value)
            if raw != value:
                self.relative.update(_above(path))
        entry = Entry(path, value, file)
        self._count += 1
        if self._count > _MOST:
            raise UnreadableError(f"the configs have more than {_MOST} entries")
        self.entries.setdefault(path, []).append(entry)
        self.below.setdefault(path.rpartition("::")[0], {})[path] = None
        if isinstance(value, str) and value.startswith("$"):
            found = imported(value)
            if found is not None:
                self.imports.update(_above(path))
                self.names.setdefault(found[0], set()).add(found[1])
                if len(self.imports) > _MOST_IMPORTS:
                    raise UnreadableError(f"it has more than {_MOST_IMPORTS} imports")
                if "::" in path and not listed:
                    self.misplaced.append(entry)
        if isinstance(value, dict):
            for key, one in value.items():
                if key != key.strip() or not key.isprintable() or not key or "::" in normal(key):
                    raise UnreadableError(f"the key '{key[:40]}' has another meaning as a path")
                self._put(file, f"{path}::{key}", one, depth + 1)
        elif isinstance(value, list):
            for index, one in enumerate(value):
                self._put(file, f"{path}::{index}", one, depth + 1, depth == 0 and "::" not in path)

    def __iter__(self) -> Iterator[Entry]:
        """Every entry."""
        for found in self.entries.values():
            yield from found

    def at(self, path: str, depth: int = 0) -> list[Entry]:
        """What may stand at a path, also where it is only reached through a macro or a reference above it."""
        found = list(self.entries.get(path, ()))
        for holder, places in self.added.items():  # any of them may come to stand at any number
            index, _, rest = path.removeprefix(f"{holder}::").partition("::")
            if path.startswith(f"{holder}::") and index.isdigit():
                for location in places:
                    found += self.entries.get(f"{location}::{rest}" if rest else location, ())
        above = path.rpartition("::")[0]
        while above and depth < 8:
            rest = path[len(above) :]
            for entry in self.entries.get(above, ()):
                if isinstance(entry.value, str) and entry.value[:1] in ("%", "@"):
                    found += self.at(macro(entry.value)[1] + rest, depth + 1)
            above = above.rpartition("::")[0]
        return found

    def holds_relative(self, path: str) -> bool:
        """Whether a string at that path or below it would mean something else elsewhere."""
        return path in self.relative

    def holds_import(self, path: str) -> bool:
        """Whether an import statement stands at that path or below it, so that its value holds a module."""
        return path == "" or path in self.imports


def _above(path: str) -> list[str]:
    """A path and all that it stands below."""
    parts = path.split("::")
    return ["::".join(parts[:count]) for count in range(1, len(parts) + 1)]
