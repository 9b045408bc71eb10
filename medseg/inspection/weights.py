"""Files that bring objects along, recognized by their first bytes, not by name: weights, arrays, programs."""

from __future__ import annotations

import ast
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from medseg.findings import Finding, error, note, printable
from medseg.inspection.allowlist import torchscript_operators
from medseg.inspection.pickles import MAX_BYTES, DamagedError, scan

_HEAD = 512  # bytes that tell the kind
_PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".p", ".bin", ".th", ".tar", ".joblib", ".dill", ".npy", ".npz")
_LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
_LEGACY_PICKLES = 5  # magic number, protocol, system, content, keys; behind them torch reads bytes of tensors
_METHOD = re.compile(r"forward|_")
_MAX_HEADER = 100 * 2**20
_FIX = "Do not load it; ask for the weights alone, as safetensors or saved by torch.save(network.state_dict())."
_COPY_FIX = "Ask for another copy."
_DTYPES = {
    *("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "I16", "U16", "F16", "BF16"),
    *("I32", "U32", "F32", "F64", "I64", "U64"),
}


def check_file(file: BinaryIO, location: str, size: int) -> Iterator[Finding]:
    """Find what loading a file would do, as far as its bytes show.

    Args:
        file: the file, to be read and sought in.
        location: its name in the bundle.
        size: bytes.
    """
    name = location.lower()
    head = file.read(_HEAD)
    file.seek(0)
    shown = printable(location)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        yield from _zip(file, shown)
    elif head[:6] == b"\x93NUMPY":
        yield from _numpy(file, shown)
    elif name.endswith(".safetensors"):
        yield from _safetensors(file, shown, size)
    elif head.startswith(_LEGACY):
        yield from _pickles(io.BytesIO(file.read(MAX_BYTES)), shown, _LEGACY_PICKLES)
    elif size and (_is_pickle(head) or name.endswith(_PICKLES)):
        yield from _pickles(file, shown)


def _is_pickle(head: bytes) -> bool:
    return len(head) > 2 and head[0] == 0x80 and head[1] in (2, 3, 4, 5) and head[2:3] in b"\x95}]cX\x8c(K\x8a\x80"


def _pickles(file: BinaryIO, location: str, count: int = 0, ignored: tuple[str, ...] = ()) -> Iterator[Finding]:
    """Follow the pickles of a file from its position on: `count` of them, or all, so that none hides behind the first.

    Args:
        file: the file.
        location: its name as it is shown.
        count: how many pickles there are; 0 for as many as the file has bytes for.
        ignored: how the problems begin that do not matter here.
    """
    data = file.read(MAX_BYTES + 1)
    stream = io.BytesIO(data)
    problems: list[str] = []
    number = 0
    try:
        while number < count or (not count and (number == 0 or stream.tell() < len(data))):
            result = scan(stream)
            stream.seek(result.end)
            problems += [problem for problem in result.problems if not problem.startswith(ignored)]
            number += 1
            if result.problems:
                break  # a pickle that runs something may be broken behind it
        if len(data) > MAX_BYTES and not count:
            raise DamagedError("it is longer than any pickle of weights")
    except DamagedError as problem:
        yield error("pickle-unreadable", location, f"what loading it would do cannot be worked out: {problem}", _FIX)
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        listed = printable("; ".join(problems[:4]), 500) + more
        yield error("pickle-unsafe", location, f"loading it as a pickle could run code: {listed}", _FIX)


def _numpy(file: BinaryIO, location: str) -> Iterator[Finding]:
    """Check an array; one of objects is a pickle behind the header of an array."""
    try:
        head = file.read(12)
        start = 10 if head[6] == 1 else 12
        length = struct.unpack("<H" if start == 10 else "<I", head[8:start])[0]
        file.seek(start)
        described = ast.literal_eval(file.read(min(length, 2**20)).decode("latin-1").strip())
        dtype = str(described["descr"])
    except (ValueError, SyntaxError, LookupError, TypeError, struct.error, RecursionError, MemoryError) as problem:
        yield error("pickle-unreadable", location, f"it is no whole array: {type(problem).__name__}", _FIX)
        return
    if "O" in dtype:
        file.seek(start + length)
        yield from _pickles(file, location)


def _zip(file: BinaryIO, location: str) -> Iterator[Finding]:
    """Check what torch.save, torch.jit.save, torch.export.save and numpy.savez write, or any other zip."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            exported = any(name.endswith(("archive_format", "/model.json")) for name in names)
            if exported or location.lower().endswith(".pt2"):
                message = (
                    "it is an exported program, or one for an old torch.jit, and loading it evaluates what is in it"
                )
                yield error("exported-program", location, message, _FIX)
            is_program = any(name.endswith("constants.pkl") or "code/" in name for name in names)
            if is_program:
                yield from _program(archive, location)
            for info in archive.infolist():
                yield from _member(archive, info, location, is_program)
            if len(set(names)) != len(names):
                yield error(
                    "pickle-unsafe", location, "a record is in it twice, and readers differ in which they take", _FIX
                )
            if len({name.split("/")[0] for name in names}) == 1 and any(name.endswith("/data.pkl") for name in names):
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
        yield error("weights-damaged", location, f"it cannot be read: {printable(str(problem))}", _COPY_FIX)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, location: str, is_program: bool) -> Iterator[Finding]:
    if info.is_dir() or not info.file_size or "/data/" in info.filename:
        return  # the last: the bytes of a tensor and nothing else
    location = f"{location}, {printable(info.filename)}"
    with archive.open(info) as raw:
        data = raw.read(_HEAD)
        is_array = data[:6] == b"\x93NUMPY"
        if not (is_array or info.filename.endswith((".pkl", ".pickle")) or _is_pickle(data)):
            return
        stream = io.BytesIO(data + raw.read(MAX_BYTES))
    if is_array:
        yield from _numpy(stream, location)
    elif is_program:
        # A program's pickle names classes of its own, which torch.jit reads without importing anything.
        expected = ("it imports __torch__", "it imports torch.jit._pickle.", "it gives a state to", "it calls")
        yield from _pickles(stream, location, ignored=expected)
    else:
        yield from _pickles(stream, location)


def _program(archive: zipfile.ZipFile, location: str) -> Iterator[Finding]:
    """Check that the source of a TorchScript program names no operator but those that compute."""
    trees: dict[str, ast.AST] = {}
    for info in archive.infolist():
        if info.filename.endswith(".py"):
            try:
                trees[info.filename] = ast.parse(archive.read(info) if info.file_size < _MAX_HEADER else b"\0")
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                message = f"the source of {printable(info.filename)} cannot be read"
                yield error("torchscript-unsafe", location, message, _FIX)
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    operators = torchscript_operators()
    # A method of the program may hide an operator of torch, which has none of these names that does more than compute.
    methods = {node.name for node in nodes if isinstance(node, ast.FunctionDef) and _METHOD.match(node.name)}
    unknown: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Attribute):
            root, parts = _chain(node)
            unlisted = root in ("torch", "ops") and node.attr not in operators and node.attr not in ("prim", "aten")
            if unlisted or (root == "__torch__" and parts[:2] == ["torch", "classes"]):
                unknown.add(".".join([root, *parts]))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            method = node.func.attr
            if method not in methods and method not in operators and _chain(node.func)[0] != "__torch__":
                unknown.add(method)
    if unknown:
        listed = printable(", ".join(sorted(unknown)[:8]))
        yield error("torchscript-unsafe", location, f"it is a program with operators off the list: {listed}", _FIX)
    yield note("torchscript", location, "it is a program for torch.jit; medseg takes the weights and never runs it")


def _chain(node: ast.AST) -> tuple[str, list[str]]:
    """Return the name that an attribute chain begins with, empty where it begins otherwise, and the attributes."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return node.id if isinstance(node, ast.Name) else "", parts[::-1]


def _storages(archive: zipfile.ZipFile, location: str) -> Iterator[Finding]:
    """Check that no tensor is compressed: torch reads its bytes as they are in the file."""
    for info in archive.infolist():
        if "/data/" in info.filename and info.compress_type != zipfile.ZIP_STORED:
            message = f"{printable(info.filename)} is compressed, as torch never does"
            yield error("weights-damaged", location, message, _FIX)
            return


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
