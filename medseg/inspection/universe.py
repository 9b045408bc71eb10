"""All configs of a bundle at once: what may stand at each path, whichever files are laid over each other.

Overlays change single paths of other files, and anybody may be told to lay one over another. So a path has as many
values as there are files that say something of it, and each of them is judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from medseg.inspection.references import absolute, imported, macro, normal

_DEEPEST = 60
_MOST, _MOST_ADDED = 20_000, 100  # entries, and lists that something is added to


class UnreadableError(ValueError):
    """Text that is no config; the message says why."""


def parse(data: bytes) -> dict[str, Any]:
    """A config from its bytes.

    Raises:
        UnreadableError: no JSON object in UTF-8, too deep, or a key twice in one place, of which readers take another.
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
        raise UnreadableError("it is no JSON object")
    return content


@dataclass(frozen=True)
class Entry:
    """A value at a path, and the file that puts it there. Relative ids in strings are absolute."""

    path: str
    value: Any
    file: str

    @property
    def place(self) -> str:
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
    """

    entries: dict[str, list[Entry]] = field(default_factory=dict)
    names: dict[str, set[str]] = field(
        default_factory=lambda: {"monai": {"monai"}, "torch": {"torch"}, "np": {"numpy"}, "numpy": {"numpy"}}
    )
    imports: set[str] = field(default_factory=set)
    relative: set[str] = field(default_factory=set)
    below: dict[str, dict[str, None]] = field(default_factory=dict)
    added: dict[str, list[str]] = field(default_factory=dict)
    _count: int = 0

    def add(self, file: str, content: Mapping[str, Any], prefix: str = "") -> None:
        """Add what a file says.

        Raises:
            UnreadableError: it is too deep, too much, or has keys that mean another place.
        """
        for number, (key, value) in enumerate(content.items()):
            plain = normal(key)
            parts = plain.removeprefix("+").split("::")
            if "" in parts or any(_is_strange_index(part) for part in parts):
                raise UnreadableError(f"the key '{key[:40]}' has a part that means another place")
            if plain.startswith("+") and isinstance(value, list):  # goes behind what is there
                if len(self.added) > _MOST_ADDED:
                    raise UnreadableError(f"more than {_MOST_ADDED} lists are added to")
                for index, one in enumerate(value):
                    path = f"{prefix}{plain[1:]}::+{file}.{number}.{index}"
                    self.added.setdefault(prefix + plain[1:], []).append(path)
                    self._put(file, path, one, 0)
                continue
            self._put(file, prefix + plain.removeprefix("+"), value, 0)

    def _put(self, file: str, path: str, value: Any, depth: int) -> None:
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
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, one in children:
            if (not key and key != 0) or "::" in normal(str(key)):
                raise UnreadableError(f"the key '{str(key)[:40]}' has another meaning as a path")
            self._put(file, f"{path}::{normal(str(key))}", one, depth + 1)

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
                for place in places:
                    found += self.entries.get(f"{place}::{rest}" if rest else place, ())
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


def _is_strange_index(part: str) -> bool:
    """Whether MONAI takes a part of a key for a number in a list, and it is not written as one from 0 on."""
    try:
        return part != str(abs(int(part)))
    except ValueError:
        return False
