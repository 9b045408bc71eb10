"""Hostile zips, each a clean bundle's with one thing wrong."""

from __future__ import annotations

import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

Write = Callable[[zipfile.ZipFile], None]
ALL: dict[str, tuple[str, Callable[[Path, Path], Path]]] = {}


def pack(root: Path, path: Path, more: Write | None = None) -> Path:
    """A bundle as a zip, with something added."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(one for one in root.rglob("*") if one.is_file()):
            archive.write(file, file.relative_to(root).as_posix())
        if more is not None:
            more(archive)
    return path


def entry(name: str, data: bytes = b"x", mode: int = 0) -> Write:
    """An entry of that name, as it stands: `ZipInfo` would turn some names into others."""

    def write(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo("placeholder")
        info.filename = info.orig_filename = name
        info.external_attr = mode << 16
        archive.writestr(info, data)

    return write


def zipped(more: Write) -> Callable[[Path, Path], Path]:
    return lambda root, canary: pack(root, root.with_suffix(".zip"), more)


def changed(change: Callable[[bytearray], bytearray]) -> Callable[[Path, Path], Path]:
    """The bytes of the zip changed."""

    def make(root: Path, canary: Path) -> Path:
        path = pack(root, root.with_suffix(".zip"))
        path.write_bytes(change(bytearray(path.read_bytes())))
        return path

    return make


def _central(data: bytearray, offset: int, value: bytes) -> bytearray:
    """Change the first entry of the table."""
    start = data.index(b"PK\x01\x02")
    data[start + offset : start + offset + len(value)] = value
    return data


def _shared(data: bytearray) -> bytearray:
    """Let the second entry lie where the first does."""
    first = data.index(b"PK\x01\x02")
    second = data.index(b"PK\x01\x02", first + 4)
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    return data


NAMES = {
    "climbs": "../../../evil.sh",
    "climbs-within": "configs/../../evil",
    "absolute": "/etc/cron.d/evil",
    "backslash": "..\\..\\evil",
    "drive": "C:/evil",
    "device": "configs/nul.json",
    "stream": "configs/train.json:evil",
    "dot-at-the-end": "configs/train.json.",
    "control": "a\nb",
    "home": "~/evil",
}
for _name, _written in NAMES.items():
    ALL[f"zip-name-{_name}"] = "zip-name", zipped(entry(_written))
ALL["zip-duplicate"] = "zip-duplicate", zipped(entry("configs/train.json", b"{}"))
ALL["zip-duplicate-case"] = "zip-duplicate", zipped(entry("Configs/TRAIN.json", b"{}"))
ALL["zip-duplicate-letters"] = (
    "zip-duplicate",
    zipped(entry("configs/tra\u0131n\u200b.json".replace("\u0131n\u200b", "\uff49n"))),
)
ALL["zip-file-as-folder"] = "zip-duplicate", zipped(entry("LICENSE/evil"))
ALL["zip-link"] = "zip-link", zipped(entry("models/model.pt", b"/etc/passwd", stat.S_IFLNK | 0o777))
ALL["zip-pipe"] = "zip-special", zipped(entry("models/pipe", b"", stat.S_IFIFO | 0o666))
ALL["zip-bomb"] = "zip-bomb", zipped(lambda archive: archive.writestr("big", bytes(2**25), zipfile.ZIP_DEFLATED))
ALL["zip-bomb-shared"] = "zip-bomb", changed(_shared)
ALL["zip-encrypted"] = "zip-encrypted", changed(lambda data: _central(data, 8, struct.pack("<H", 1)))
ALL["zip-method"] = "zip-method", zipped(lambda archive: archive.writestr("x", b"x" * 100, zipfile.ZIP_LZMA))
ALL["zip-sizes-contradict"] = "zip-contradiction", changed(lambda data: _central(data, 24, struct.pack("<I", 7)))
ALL["zip-names-contradict"] = "zip-contradiction", changed(lambda data: _central(data, 46, b"M"))
ALL["zip-cut-short"] = "zip-damaged", changed(lambda data: data[: len(data) // 2])
ALL["zip-of-nothing"] = "zip-damaged", changed(lambda data: bytearray(b"PK\x03\x04 nothing"))
ALL["zip-beyond-its-end"] = "zip-damaged", changed(lambda data: _central(data, 20, struct.pack("<I", 2**30)))
ALL["zip-of-a-hostile-bundle"] = "runs-nothing", zipped(entry("configs/z.json", b'{"a": "$open(1)"}'))
