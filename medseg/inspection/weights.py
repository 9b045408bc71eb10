"""Files that bring objects along, told apart by their first bytes, not by name: weights, arrays, programs."""

from __future__ import annotations

import ast
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from medseg.findings import Finding, error, note
from medseg.inspection.names import printable
from medseg.inspection.pickles import LONGEST, DamagedError, scan, torch_legacy

MAGIC = 512  # bytes that tell the kind
_PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".p", ".bin", ".th", ".tar", ".joblib", ".dill", ".npy", ".npz")
_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_HEADER = 100 * 2**20
_REMEDY = "Do not load it; ask for the weights alone, as safetensors or saved by torch.save(network.state_dict())."
_DANGEROUS = {"save", "load", "from_file", "_save", "open", "exec", "eval", "system"}
_DTYPES = {
    "BOOL",
    "U8",
    "I8",
    "F8_E5M2",
    "F8_E4M3",
    "I16",
    "U16",
    "F16",
    "BF16",
    "I32",
    "U32",
    "F32",
    "F64",
    "I64",
    "U64",
}


def check(file: BinaryIO, location: str, size: int) -> Iterator[Finding]:
    """What a file would do to whoever loads it, as far as its bytes say.

    Args:
        file: its bytes, to be read and sought in.
        location: its name in the bundle.
        size: bytes.
    """
    name = location.lower()
    head = file.read(MAGIC)
    file.seek(0)
    where = printable(location)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        yield from _zip(file, where)
    elif head[:6] == b"\x93NUMPY":
        yield from _numpy(file, where)
    elif name.endswith(".safetensors"):
        yield from _safetensors(file, where, size)
    elif head.startswith(_LEGACY):
        yield from _legacy(io.BytesIO(file.read(LONGEST)), where)
    elif size and (_is_pickle(head) or name.endswith(_PICKLES)):
        yield from _pickle(io.BytesIO(file.read(LONGEST)), where)


def _is_pickle(head: bytes) -> bool:
    return len(head) > 2 and head[0] == 0x80 and head[1] in (2, 3, 4, 5) and head[2:3] in b"\x95}]cX\x8c(K\x8a\x80"


def _pickle(file: BinaryIO, location: str) -> Iterator[Finding]:
    try:
        found = scan(file)
    except DamagedError as problem:
        yield error("pickle-unreadable", location, f"what loading it would do cannot be said: {problem}", _REMEDY)
    else:
        yield from _faults(found.faults, location)


def _legacy(file: BinaryIO, location: str) -> Iterator[Finding]:
    try:
        for found in torch_legacy(file):
            yield from _faults(found.faults, location)
    except DamagedError as problem:
        yield error("pickle-unreadable", location, f"what loading it would do cannot be said: {problem}", _REMEDY)


def _faults(faults: list[str], location: str) -> Iterator[Finding]:
    if faults:
        more = f" and {len(faults) - 4} more" if len(faults) > 4 else ""
        said = printable("; ".join(faults[:4]), 500) + more
        yield error("pickle-unsafe", location, f"loading it as a pickle could run code: {said}", _REMEDY)


def _numpy(file: BinaryIO, location: str) -> Iterator[Finding]:
    """An array of objects is a pickle behind the head of an array."""
    try:
        head = file.read(12)
        short = head[6] == 1
        length = struct.unpack("<H" if short else "<I", head[8 : 10 if short else 12])[0]
        file.seek(10 if short else 12)
        described = ast.literal_eval(file.read(min(length, 2**20)).decode("latin-1").strip())
        kind = str(described["descr"])
    except (
        ValueError,
        SyntaxError,
        KeyError,
        TypeError,
        IndexError,
        struct.error,
        RecursionError,
        MemoryError,
    ) as problem:
        yield error("pickle-unreadable", location, f"it is no whole array: {type(problem).__name__}", _REMEDY)
        return
    if "O" in kind:
        file.seek((10 if short else 12) + length)
        yield from _pickle(io.BytesIO(file.read(LONGEST)), location)


def _zip(file: BinaryIO, location: str) -> Iterator[Finding]:
    """What torch.save, torch.jit.save and numpy.savez write, or any other zip."""
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            tops = {info.filename.split("/")[0] for info in infos}
            names = [info.filename for info in infos]
            program = any(name.endswith("constants.pkl") or "/code/" in name for name in names)
            for info in infos:
                yield from _member(archive, info, location, program)
            if len(set(names)) != len(names):
                yield error(
                    "pickle-unsafe", location, "a record stands in it twice; readers differ in which they take", _REMEDY
                )
            if len(tops) == 1 and any(name.endswith("/data.pkl") for name in names):
                yield from _storages(archive, location)
    except (
        OSError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        RuntimeError,
        ValueError,
        EOFError,
    ) as problem:
        yield error(
            "weights-damaged",
            location,
            f"it cannot be read: {printable(str(problem))}",
            "Ask for another copy.",
        )
        return
    if program:
        yield note("torchscript", location, "it is a program for torch.jit; medseg takes the weights and never runs it")


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, location: str, program: bool) -> Iterator[Finding]:
    name = info.filename
    inner = f"{location}, {printable(name)}"
    if program and name.endswith(".py"):
        yield from _program(archive.read(info) if info.file_size < _HEADER else b"", inner)
        return
    if info.is_dir() or not info.file_size or "/data/" in name:
        return  # the last: a record of a tensor, bytes and nothing else
    with archive.open(info) as raw:
        data = io.BytesIO(raw.read(MAGIC))
        array = data.getvalue()[:6] == b"\x93NUMPY"
        if not (array or name.endswith((".pkl", ".pickle")) or _is_pickle(data.getvalue())):
            return
        data = io.BytesIO(data.getvalue() + raw.read(LONGEST))
    if array:
        yield from _numpy(data, inner)
    elif program:
        yield from _pickle_of_program(data, inner)
    else:
        yield from _pickle(data, inner)


def _pickle_of_program(data: BinaryIO, location: str) -> Iterator[Finding]:
    """A program's own pickle names its own classes (`__torch__...`), which torch.jit reads without importing them."""
    try:
        found = scan(data)
    except DamagedError as problem:
        yield error("pickle-unreadable", location, f"what loading it would do cannot be said: {problem}", _REMEDY)
        return
    own = ("it imports __torch__", "it imports torch.jit._pickle.", "it gives a state to", "it calls")
    yield from _faults([fault for fault in found.faults if not fault.startswith(own)], location)


def _program(source: bytes, location: str) -> Iterator[Finding]:
    """Operators of torch that read or write files, in the source of a TorchScript program."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        yield error("torchscript-unsafe", location, "its source cannot be read", _REMEDY)
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            root = ast.unparse(node.func).split(".")[0]
            if root in ("torch", "ops") and node.func.attr in _DANGEROUS:
                yield error("torchscript-unsafe", location, f"it calls {printable(ast.unparse(node.func))}", _REMEDY)


def _storages(archive: zipfile.ZipFile, location: str) -> Iterator[Finding]:
    """A record of a tensor may not be shared, packed or encrypted: torch reads it as it lies."""
    for info in archive.infolist():
        if "/data/" in info.filename and info.compress_type != zipfile.ZIP_STORED:
            yield error(
                "weights-damaged",
                location,
                f"{printable(info.filename)} is compressed, as torch never does",
                _REMEDY,
            )
            return


def _safetensors(file: BinaryIO, location: str, size: int) -> Iterator[Finding]:
    """A table of names, types, shapes and bytes; it must cover the file and nothing else."""
    try:
        length = struct.unpack("<Q", file.read(8))[0]
        if length > min(_HEADER, size - 8):
            raise ValueError("the table is longer than the file")
        table = json.loads(file.read(length).decode("utf-8"))
        spans = []
        for name, entry in table.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            if entry["dtype"] not in _DTYPES or not 0 <= begin <= end <= size - 8 - length:
                raise ValueError(f"tensor {printable(name)} does not lie in it")
            spans.append((begin, end))
        ends = [0, *(end for _, end in sorted(spans))]
        if any(begin != before for (begin, _), before in zip(sorted(spans), ends, strict=False)):
            raise ValueError("tensors overlap, or bytes belong to none")
        if ends[-1] != size - 8 - length:
            raise ValueError("the file has another length than the table says")
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as problem:
        yield error(
            "weights-damaged",
            location,
            f"it is no whole safetensors file: {printable(str(problem))}",
            "Ask for another copy.",
        )
