"""What a pickle would import and call when it is loaded, by its opcodes; nothing of it is loaded.

The opcodes are followed with a stack of what is known of each value, the way `pickle` itself follows them. So it is
also seen which objects are called, built and changed, and held against what torch's `weights_only` reader allows.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from medseg.inspection.known import pickled

LONGEST = 64 * 2**20
_MOST = 1_000_000
_PUSHES = {
    "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "NEXT_BUFFER",
}  # fmt: skip
_TEXTS = {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_EMPTY = {"EMPTY_LIST": "list", "EMPTY_DICT": "dict", "EMPTY_SET": "set", "EMPTY_TUPLE": "tuple"}
_MARKED = {"LIST": "list", "DICT": "dict", "TUPLE": "tuple", "FROZENSET": "value"}
_DICTS = {"dict", "called collections.OrderedDict", "called collections.Counter"}


class DamagedError(ValueError):
    """Bytes that are no pickle; the message says why."""


@dataclass
class Scan:
    """What a pickle would do.

    Args:
        names: what it would import, in its order.
        faults: what is not known to be harmless, in words.
        end: where in the file it ends.
        root: what its value is: `dict`, `list`, `value`, `called NAME`, or the text or number itself.
    """

    names: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    end: int = 0
    root: Any = "value"


@dataclass(frozen=True)
class _Text:
    text: str


@dataclass(frozen=True)
class _Import:
    name: str


_MARK = object()


def scan(file: BinaryIO) -> Scan:
    """Follow one pickle from where the file stands.

    Raises:
        DamagedError: it is cut short, no pickle, or longer than any pickle of weights.
    """
    machine = _Machine()
    start = file.tell()
    count = 0
    try:
        for opcode, argument, location in pickletools.genops(file):
            count += 1
            if count > _MOST or (location or 0) - start > LONGEST:
                raise DamagedError("it is longer than any pickle of weights")
            machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError, UnicodeError, AttributeError) as problem:
        if machine.found.faults:
            machine.found.end = file.tell()
            return machine.found  # it ran so far
        raise (
            problem if isinstance(problem, DamagedError) else DamagedError(f"it is no whole pickle ({problem})")
        ) from problem
    machine.found.end = file.tell()
    machine.found.root = machine.stack[-1] if machine.stack else "value"
    return machine.found


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.found = Scan()

    def step(self, name: str, argument: Any) -> None:
        if name in _PUSHES:
            self.stack.append("value")
        elif name in _TEXTS:
            text = argument if isinstance(argument, str) else ""
            self.stack.append(_Text(text))
        elif name in _EMPTY:
            self.stack.append(_EMPTY[name])
        elif name in _MARKED:
            self._marked()
            self.stack.append(_MARKED[name])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            for _ in range(int(name[-1])):
                self.stack.pop()
            self.stack.append("tuple")
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name == "POP":
            self.stack.pop()
        elif name == "POP_MARK":
            self._marked()
        elif name == "DUP":
            self.stack.append(self.stack[-1])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[int(argument)] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[int(argument)])
        elif name in ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"):
            self._change(name)
        elif name in ("PERSID", "BINPERSID"):
            if name == "BINPERSID":
                self.stack.pop()
            self.stack.append("storage")
        elif name not in ("PROTO", "FRAME", "STOP", "READONLY_BUFFER"):
            self._runs(name, argument)

    def _marked(self) -> list[Any]:
        items: list[Any] = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _change(self, name: str) -> None:
        count = 1
        if name in ("APPENDS", "SETITEMS", "ADDITEMS"):
            count = len(self._marked())
        else:
            self.stack.pop()
            if name == "SETITEM":
                self.stack.pop()
        wanted = {"list"} if name.startswith("APPEND") else {"set"} if name == "ADDITEMS" else _DICTS
        if self.stack[-1] not in wanted or (name == "SETITEMS" and count % 2):
            self._fault(f"it changes {_said(self.stack[-1])}")

    def _runs(self, name: str, argument: Any) -> None:
        """Opcodes that import, call or build."""
        if name == "GLOBAL":
            module, _, what = str(argument).partition(" ")
            self._import(f"{module}.{what}")
        elif name == "STACK_GLOBAL":
            what, module = self.stack.pop(), self.stack.pop()
            if isinstance(module, _Text) and isinstance(what, _Text):
                self._import(f"{module.text}.{what.text}")
            else:
                self._fault("it imports by a name that is put together when it is loaded")
                self.stack.append("value")
        elif name in ("INST", "OBJ"):
            items = self._marked()
            if name == "INST":
                self._import(str(argument).replace(" ", "."))
            else:
                self.stack.append(items[0])
            self._call(self.stack.pop())
        elif name in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
            for _ in range(2 if name == "NEWOBJ_EX" else 1):
                self.stack.pop()
            self._call(self.stack.pop())
        elif name == "BUILD":
            self.stack.pop()
            built = self.stack[-1]
            if not (isinstance(built, str) and built.startswith("called ")):
                self._fault(f"it gives a state to {_said(built)}")
        else:  # EXT1, EXT2, EXT4 and whatever comes after this Python
            self._fault(f"it holds the opcode {name}")
            self.stack.append("value")

    def _import(self, name: str) -> None:
        if name not in self.found.names:
            self.found.names.append(name)
        if name not in pickled():
            self._fault(f"it imports {name}")
        self.stack.append(_Import(name))

    def _call(self, what: Any) -> None:
        if not isinstance(what, _Import):
            self._fault(f"it calls {_said(what)}")
            self.stack.append("value")
            return
        self.stack.append(f"called {what.name}")

    def _fault(self, text: str) -> None:
        if text not in self.found.faults and len(self.found.faults) < 20:
            self.found.faults.append(text)


def _said(value: Any) -> str:
    if isinstance(value, _Import):
        return f"{value.name} itself"
    return "a text" if isinstance(value, _Text) else f"a {value}" if isinstance(value, str) else "a mark"


def torch_legacy(file: BinaryIO) -> Iterator[Scan]:
    """The pickles at the head of a file of torch's older format: magic number, protocol, system, content, keys.

    Raises:
        DamagedError: see `scan`.
    """
    for _ in range(5):
        found = scan(file)
        file.seek(found.end)
        yield found
