"""Files that bring objects along, recognized by their first bytes, not by name: weights, arrays, programs."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
import struct
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

from medseg.errors import printable
from medseg.findings import Finding, error, note
from medseg.inspection.archive import READ_ERRORS
from medseg.inspection.pickles import MAX_BYTES, DamagedError, PickleReader

_HEAD = 512  # bytes that tell the kind
_PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".p", ".bin", ".th", ".tar", ".joblib", ".dill")
_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_LEGACY_PICKLES = 5  # magic number, protocol, system, content, keys; behind them torch reads bytes of tensors
# A pickle of protocol 0 or 1 has no mark of its own: these opcodes can begin one. It counts if it is whole.
_OLD_PICKLE = re.compile(rb"[\](}){cdlIJKLMNSTUVXFGgp0]")
_ARRAY_HEADER = 10_000  # bytes; NumPy reads no longer one
_MAX_HEADER = 100 * 2**20
_MAX_RECORDS = 5000
_FIX = "Do not load it; ask for the weights alone, as safetensors or saved by torch.save(network.state_dict())."
_COPY_FIX = "Ask for another copy."
_DTYPES = {
    *("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "I16", "U16", "F16", "BF16"),
    *("I32", "U32", "F32", "F64", "I64", "U64"),
}


def check_file(file: BinaryIO, location: str, size: int, pickles: PickleReader) -> Iterator[Finding]:
    """Find what loading a file would do, as far as its bytes show.

    Args:
        file: the file, to be read and sought in.
        location: its name in the bundle.
        size: bytes.
        pickles: reads the pickles of the bundle.
    """
    name = location.lower()
    head = file.read(_HEAD)
    file.seek(0)
    shown = printable(location)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        yield from _zip(file, shown, pickles)
    elif head[:6] == b"\x93NUMPY":
        yield from _numpy(file, shown, pickles)
    elif name.endswith(".safetensors"):
        yield from _safetensors(file, shown, size)
    elif head.startswith(_LEGACY):
        yield from _pickles(file.read(MAX_BYTES), shown, pickles, _LEGACY_PICKLES)
    elif size and (_is_pickle(head) or name.endswith(_PICKLES)):
        yield from _pickles(file.read(MAX_BYTES + 1), shown, pickles)
    elif _OLD_PICKLE.match(head):
        data = file.read(MAX_BYTES)
        with contextlib.suppress(DamagedError):
            if [*pickles.imports(io.BytesIO(data))]:
                yield from _pickles(data, shown, pickles, 1)
        if pickles.is_exhausted:
            yield error(
                "pickle-unreadable", shown, "it, or a file before it, is longer than any pickle of weights", _FIX
            )


def _is_pickle(head: bytes) -> bool:
    return len(head) > 2 and head[0] == 0x80 and head[1] in (2, 3, 4, 5) and head[2:3] in b"\x95}]cX\x8c(K\x8a\x80"


def _pickles(
    data: bytes, location: str, pickles: PickleReader, count: int = 0, is_program: bool = False
) -> Iterator[Finding]:
    """Follow pickles one behind the other, so that none hides behind the first.

    Args:
        data: what holds them.
        location: the name of the file as it is shown.
        pickles: reads them.
        count: how many there are; 0 for as many as there are bytes for.
        is_program: whether they belong to a program of torch, which names classes of its own.
    """
    stream, number = io.BytesIO(data), 0
    names: dict[str, None] = {}
    try:
        while number < count or (not count and (number == 0 or stream.tell() < len(data))):
            for name in pickles.imports(stream):
                if not (is_program and name.startswith(("__torch__.", "torch.jit._pickle."))):
                    names[name] = None
            number += 1
        if len(data) > MAX_BYTES:
            raise DamagedError("it is longer than any pickle of weights")
    except DamagedError as problem:
        if not names:  # a pickle that breaks later has run by then what came before
            yield error("pickle-unreadable", location, f"what loading it would do cannot be told: {problem}", _FIX)
    if names:
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        listed = printable(", ".join([*names][:4]), 500) + more
        yield error("pickle-unsafe", location, f"loading it as a pickle could run code: it imports {listed}", _FIX)


def _numpy(file: BinaryIO, location: str, pickles: PickleReader) -> Iterator[Finding]:
    """Check an array; one of objects is a pickle behind the header of an array."""
    try:
        head = file.read(12)
        start = 10 if head[6] == 1 else 12
        length = struct.unpack("<H" if start == 10 else "<I", head[8:start])[0]
        file.seek(start)
        pickles.spend(length * length // 10_000)  # parsing a long one takes long
        described = ast.literal_eval(file.read(min(length, _ARRAY_HEADER)).decode("latin-1").strip())
        dtype = str(described["descr"])
    except (ValueError, SyntaxError, LookupError, TypeError, struct.error, RecursionError, MemoryError) as problem:
        yield error("pickle-unreadable", location, f"it is no whole array: {type(problem).__name__}", _FIX)
        return
    if "O" in dtype:
        file.seek(start + length)
        yield from _pickles(file.read(MAX_BYTES + 1), location, pickles)


def _zip(file: BinaryIO, location: str, pickles: PickleReader) -> Iterator[Finding]:
    """Check what torch.save, torch.jit.save, torch.export.save and numpy.savez write, or any other zip."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            if len(names) > _MAX_RECORDS:
                yield error("weights-damaged", location, f"it has more than {_MAX_RECORDS} records", _COPY_FIX)
                return
            marks = ("constants.pkl", "archive_format", "/model.json")
            is_program = any(name.endswith(marks) or "code/" in name for name in names)
            if is_program:
                message = "it is a program for torch; medseg never loads it, and another program that does may run it"
                yield note("program-in-bundle", location, message, "Take the weights instead.")
            if len(set(names)) != len(names):
                message = "a record is in it twice, and readers differ in which they take"
                yield error("pickle-unsafe", location, message, _FIX)
            for info in archive.infolist():
                if not (info.is_dir() or not info.file_size or "/data/" in info.filename):  # bytes of a tensor
                    yield from _member(archive, info, location, pickles, is_program)
                elif info.compress_type != zipfile.ZIP_STORED and any(name.endswith("/data.pkl") for name in names):
                    message = f"{printable(info.filename)} is compressed, as torch never does"
                    yield error("weights-damaged", location, message, _COPY_FIX)
                    return
    except (*READ_ERRORS, ValueError) as problem:
        yield error("weights-damaged", location, f"it cannot be read: {printable(str(problem))}", _COPY_FIX)


def _member(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, location: str, pickles: PickleReader, is_program: bool
) -> Iterator[Finding]:
    location = f"{location}, {printable(info.filename)}"
    with archive.open(info) as raw:
        data = pickles.unpack(raw, _HEAD)
        is_array = data[:6] == b"\x93NUMPY"
        if not (is_array or info.filename.endswith((".pkl", ".pickle")) or _is_pickle(data)):
            return
        data += pickles.unpack(raw, _ARRAY_HEADER if is_array else MAX_BYTES)
    if is_array:
        yield from _numpy(io.BytesIO(data), location, pickles)
    else:
        yield from _pickles(data, location, pickles, is_program=is_program)


def _safetensors(file: BinaryIO, location: str, size: int) -> Iterator[Finding]:
    """Check the table of names, types, shapes and bytes; it must cover the file and nothing else."""
    try:
        length = struct.unpack("<Q", file.read(8))[0]
        if length > min(_MAX_HEADER, size - 8):
            raise ValueError("the table is longer than the file")
        table = json.loads(file.read(length).decode("utf-8"))
        spans = []
        for name, entry in table.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            if entry["dtype"] not in _DTYPES or not 0 <= begin <= end <= size - 8 - length:
                raise ValueError(f"tensor {printable(name)} is not in it")
            spans.append((begin, end))
        ends = [0, *(end for _, end in sorted(spans))]
        if any(begin != before for (begin, _), before in zip(sorted(spans), ends, strict=False)):
            raise ValueError("tensors overlap, or bytes belong to none")
        if ends[-1] != size - 8 - length:
            raise ValueError("the file has another length than the table says")
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as problem:
        message = f"it is no whole safetensors file: {printable(str(problem))}"
        yield error("weights-damaged", location, message, _COPY_FIX)
