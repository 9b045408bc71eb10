"""List what a pickle imports, by its opcodes; nothing of it is loaded.

medseg reads weights with torch's `weights_only`, which refuses all but these imports. Another program may load the file
as it is, so whoever looks at a bundle is told what that would run. Not torch's own
`get_unsafe_globals_in_checkpoint`: it needs torch, and reads one pickle of torch's zip format alone.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterator
from typing import IO, BinaryIO

MAX_BYTES = 64 * 2**20
_MAX_OPCODES = 200_000  # of all pickles of a bundle; the weights of a network have some thousands
_HARMLESS = re.compile(
    r"collections\.(OrderedDict|Counter)|builtins\.(set|complex|bytearray)|_codecs\.encode"
    r"|torch\.(Size|Tensor|device|\w*Storage|b?float\w*|u?int\d+|bool|complex\d+|q?u?int\w+)"
    r"|torch\.storage\.(Typed|Untyped)Storage|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2"
    r"|torch\.nn\.parameter\.Parameter|torch\.serialization\._get_layout"
)
_TEXTS = ("str", "bytes_or_str")


class DamagedError(ValueError):
    """Bytes that are no pickle; the message says why."""


class PickleReader:
    """Read the pickles of one bundle; together they have a budget of opcodes and bytes, so that no file takes long."""

    def __init__(self) -> None:
        self._remaining, self._bytes = _MAX_OPCODES, MAX_BYTES

    @property
    def is_exhausted(self) -> bool:
        """Whether the budget is spent: what is looked at from now on is not known to be harmless."""
        return self._remaining < 0 or self._bytes < 0

    def spend(self, opcodes: int) -> None:
        """Take opcodes, or what takes as long, from the budget.

        Raises:
            DamagedError: they are more than are left.
        """
        self._remaining -= opcodes
        if self._remaining < 0:
            raise DamagedError("it is longer than any pickle of weights")

    def unpack(self, file: IO[bytes], size: int) -> bytes:
        """Return the first bytes of a compressed record.

        Raises:
            DamagedError: all that was unpacked of the bundle is more than any pickle of weights.
        """
        data = file.read(min(size, max(0, self._bytes) + 1))
        self._bytes -= len(data)
        if self._bytes < 0:
            raise DamagedError("its records unpack to more than any pickle of weights")
        return data

    def imports(self, file: BinaryIO) -> Iterator[str]:
        """Yield what one pickle imports that is not known to be harmless, from the file's position to its end.

        Raises:
            DamagedError: it is cut short, no pickle, or longer than any pickle of weights.
        """
        memo: dict[int, str | None] = {}
        texts: list[str | None] = []  # the values that were pushed last, as far as they are texts
        try:
            for opcode, argument, _ in pickletools.genops(file):
                self.spend(1)
                name, pushed = opcode.name, [kind.name for kind in opcode.stack_after]
                if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                    memo[len(memo) if name == "MEMOIZE" else int(str(argument))] = texts[-1] if texts else None
                elif name in ("GET", "BINGET", "LONG_BINGET"):
                    texts.append(memo.get(int(str(argument))))
                elif name in ("GLOBAL", "INST"):
                    yield from _unknown(str(argument).replace(" ", ".", 1))
                    texts.append(None)
                elif name == "STACK_GLOBAL":
                    parts = texts[-2:]
                    if len(parts) < 2 or None in parts:
                        yield "a name that is put together when it is loaded"
                    else:
                        yield from _unknown(".".join(str(part) for part in parts))
                    texts.append(None)
                elif name.startswith("EXT"):
                    yield f"an extension (opcode {name})"
                elif pushed or opcode.stack_before:
                    texts.append(str(argument) if pushed and pushed[0] in _TEXTS else None)
                del texts[:-2]
        except (ValueError, IndexError, KeyError, OverflowError, MemoryError, UnicodeError, AttributeError) as problem:
            if isinstance(problem, DamagedError):
                raise
            raise DamagedError(f"it is no whole pickle ({problem})") from problem


def _unknown(name: str) -> Iterator[str]:
    if not _HARMLESS.fullmatch(name):
        yield name
