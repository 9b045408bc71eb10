"""Follow a pickle by its opcodes to what it would import, call and build; nothing of it is loaded.

The opcodes are followed with a stack of what is known of each value, the way `pickle` follows them, and what they do is
compared with what torch's `weights_only` reader allows. `torch.serialization.get_unsafe_globals_in_checkpoint` does not
replace this: it needs torch, reads `data.pkl` of torch's zip format alone (no older format, no `.npy`, no plain pickle,
no protocol but 2) and lists names, not that a text is called or a class is built from the stack.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from medseg.inspection.allowlist import pickle_globals

MAX_BYTES = 64 * 2**20
_MAX_OPCODES = 1_000_000
_MAX_PROBLEMS = 20
# What opcodes push, by pickletools' names. An opcode that pushes something else may run something.
_TEXTS = {"str", "bytes_or_str"}
_CONTAINERS = {"list", "dict", "set", "tuple"}
_PLAIN = (
    _TEXTS | _CONTAINERS | {"int", "int_or_bool", "float", "bool", "None", "bytes", "bytearray", "buffer", "frozenset"}
)
_DICTS = {"dict", "called collections.OrderedDict", "called collections.Counter"}
_CHANGES = {
    **{"APPEND": {"list"}, "APPENDS": {"list"}, "ADDITEMS": {"set"}},
    **{"SETITEM": _DICTS, "SETITEMS": _DICTS},
}
_MARK = object()


class DamagedError(ValueError):
    """Bytes that are no pickle; the message says why."""


@dataclass
class Scan:
    """The effects of loading a pickle.

    Args:
        names: what it would import, in its order.
        problems: what is not known to be harmless, in words.
        end: where in the file it ends.
        root: what its value is: `dict`, `list`, `value`, `called NAME`.
    """

    names: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    end: int = 0
    root: Any = "value"


@dataclass(frozen=True)
class _Text:
    text: str


@dataclass(frozen=True)
class _Import:
    name: str


def scan(file: BinaryIO) -> Scan:
    """Follow one pickle from the file's position on.

    Raises:
        DamagedError: it is cut short, no pickle, or longer than any pickle of weights.
    """
    machine = _Machine()
    start = file.tell()
    try:
        for count, (opcode, argument, position) in enumerate(pickletools.genops(file)):
            if count >= _MAX_OPCODES or (position or 0) - start > MAX_BYTES:
                raise DamagedError("it is longer than any pickle of weights")
            machine.step(opcode, argument)
        machine.scan.root = machine.stack[-1] if machine.stack else "value"
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError, UnicodeError, AttributeError) as problem:
        # A pickle that breaks later has run by then what came before.
        if not machine.scan.problems:
            if isinstance(problem, DamagedError):
                raise
            raise DamagedError(f"it is no whole pickle ({problem})") from problem
    machine.scan.end = file.tell()
    return machine.scan


class _Machine:
    """The stack and the memo of an unpickler, with the kind of each value in place of the value."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.scan = Scan()

    def step(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        name, stack = opcode.name, self.stack
        before, after = ([kind.name for kind in kinds] for kinds in (opcode.stack_before, opcode.stack_after))
        if name in _CHANGES:
            self._change(name)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else int(argument)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[int(argument)])
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in ("PERSID", "BINPERSID"):
            self._pop(len(before))
            stack.append("storage")
        elif name in ("POP", "POP_MARK") or (after and set(after) <= _PLAIN):
            if "mark" in before:
                self._pop_to_mark()
            else:
                self._pop(len(before))
            for kind in after:
                stack.append(_Text(str(argument)) if kind in _TEXTS else kind if kind in _CONTAINERS else "value")
        elif name not in ("PROTO", "FRAME", "STOP"):
            self._run(name, argument)

    def _pop(self, count: int = 1) -> None:
        for _ in range(count):
            self.stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _change(self, opcode: str) -> None:
        count = 2
        if opcode in ("APPENDS", "SETITEMS", "ADDITEMS"):
            count = len(self._pop_to_mark())
        else:
            self._pop(2 if opcode == "SETITEM" else 1)
        if self.stack[-1] not in _CHANGES[opcode] or (opcode == "SETITEMS" and count % 2):
            self._problem(f"it changes {_described(self.stack[-1])}")

    def _run(self, opcode: str, argument: Any) -> None:
        """Follow an opcode that imports, calls or builds."""
        if opcode == "GLOBAL":
            self._import(str(argument).replace(" ", ".", 1))
        elif opcode == "STACK_GLOBAL":
            name, module = self.stack.pop(), self.stack.pop()
            if isinstance(module, _Text) and isinstance(name, _Text):
                self._import(f"{module.text}.{name.text}")
            else:
                self._problem("it imports by a name that is put together when it is loaded")
                self.stack.append("value")
        elif opcode == "INST":
            self._pop_to_mark()
            self._import(str(argument).replace(" ", "."))
            self._call(self.stack.pop())
        elif opcode == "OBJ":
            self._call(self._pop_to_mark()[0])
        elif opcode in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
            self._pop(2 if opcode == "NEWOBJ_EX" else 1)
            self._call(self.stack.pop())
        elif opcode == "BUILD":
            self._pop()
            target = self.stack[-1]
            if not (isinstance(target, str) and target.startswith("called ")):
                self._problem(f"it gives a state to {_described(target)}")
        else:  # EXT1, EXT2, EXT4 and whatever a later Python adds
            self._problem(f"it holds the opcode {opcode}")
            self.stack.append("value")

    def _import(self, name: str) -> None:
        if name not in self.scan.names:
            self.scan.names.append(name)
        if name not in pickle_globals():
            self._problem(f"it imports {name}")
        self.stack.append(_Import(name))

    def _call(self, target: Any) -> None:
        if isinstance(target, _Import):
            self.stack.append(f"called {target.name}")
        else:
            self._problem(f"it calls {_described(target)}")
            self.stack.append("value")

    def _problem(self, text: str) -> None:
        if text not in self.scan.problems and len(self.scan.problems) < _MAX_PROBLEMS:
            self.scan.problems.append(text)


def _described(value: Any) -> str:
    if isinstance(value, _Import):
        return f"{value.name} itself"
    return "a text" if isinstance(value, _Text) else f"a {value}" if isinstance(value, str) else "a mark"
