"""Write a folder as a zip whose bytes depend only on the files and their names."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from medseg.atomic import atomic_path
from medseg.bundle.verify.manifest import files_of

_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can hold
_UNIX, _PLAIN_FILE = 3, 0o100644


def write_archive(folder: Path, path: Path, top: str = "") -> Path:
    """Write all files below a folder to a zip, complete or not at all; the same files always give the same bytes.

    Not `shutil.make_archive`: that one writes times, permissions and the order in which the system lists files.
    Files are stored uncompressed: weights and scans are compressed already or hardly get smaller, and another version
    of zlib compresses the same bytes differently.

    Args:
        folder: its files go in.
        path: the zip.
        top: the single folder in it that holds everything.

    Raises:
        OutputError: the zip cannot be written.
    """
    with atomic_path(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, file in files_of(folder).items():
            entry = zipfile.ZipInfo(f"{top}/{name}" if top else name, _TIME)
            entry.create_system = _UNIX
            entry.external_attr = _PLAIN_FILE << 16
            entry.file_size = file.stat().st_size
            with file.open("rb") as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    return path


def folder_name(name: str) -> str:
    """Return a name that is a single folder's, on every system.

    >>> folder_name("../unet 2d"), folder_name("..")
    ('unet_2d', 'bundle')
    """
    safe = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in name).strip("._-")
    return safe[:100] or "bundle"
