"""List the files of folders and compare names, in one way for training, checks, prediction and evaluation.

Names are compared composed (NFC) and without regard to case, because one file system writes an accent as one
letter, another as two, and many take `Case.nii.gz` and `case.nii.gz` for the same file. Files that operating systems
leave behind are never listed.
"""

from __future__ import annotations

import functools
import os
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from medseg.errors import DataError
from medseg.findings import Finding, error, warning

NIFTI = (".nii.gz", ".nii")
VOLUMES = (*NIFTI, ".nrrd", ".nhdr", ".mha", ".mhd")
_LEFT_BEHIND = {"thumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "system volume information"}
# Pictures that are not read: compressed with loss or for the web, of several images, or of cameras.
_UNREAD_WEB = (".webp", ".gif", ".jp2", ".j2k", ".jpx", ".jxl", ".avif", ".heic", ".heif", ".tga", ".psd", ".svg")
UNREAD_PICTURES = (*_UNREAD_WEB, ".pgm", ".ppm", ".pnm", ".pcx", ".apng", ".jfif", ".exr")
_VOLUME_LIKE = (*VOLUMES, ".hdr", ".img", ".dcm")
Value = TypeVar("Value")


def is_clutter(name: str) -> bool:
    """Return whether a name is hidden, or one that macOS, Windows or a network drive leaves behind.

    Example:
        >>> is_clutter("._liver.nii.gz"), is_clutter("Thumbs.db"), is_clutter("liver.nii.gz")
        (True, True, False)
    """
    return name.startswith(".") or name.lower() in _LEFT_BEHIND


def composed(name: str) -> str:
    """Return a name with each accent and its letter as one sign (NFC), as most file systems write it."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


@functools.lru_cache(maxsize=1 << 14)  # a set has 145,000 masks, of 117 names
def name_key(name: str) -> str:
    r"""Return what equal names have in common, however accents and upper and lower case are written.

    Example:
        >>> name_key("Jose\u0301") == name_key("jos\u00e9")
        True
    """
    return composed(composed(name).casefold())


def has_suffix(path: str | Path, suffixes: Sequence[str]) -> bool:
    """Return whether a name ends in one of the suffixes, in upper or lower case."""
    return str(path).lower().endswith(tuple(suffixes))


def stem(path: str | Path) -> str:
    """Return the composed name of a file without the suffix of a volume, or else without its last suffix.

    Example:
        >>> stem("scans/patient.1.NII.GZ"), stem("scans/patient.1.nrrd")
        ('patient.1', 'patient.1')
    """
    name = composed(path if isinstance(path, str) and "/" not in path and "\\" not in path else Path(path).name)
    suffix = next((suffix for suffix in VOLUMES if name.lower().endswith(suffix)), None)
    return Path(name).stem if suffix is None else name[: -len(suffix)]


def entries(folder: Path) -> list[Path]:
    """Return what lies in a folder, without clutter, sorted by composed name; nothing if there is no such folder."""
    return [folder / entry.name for entry in _scan(folder)]


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    """Return the entries of a folder, which say without another access to the disk whether they are files."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as scanned:
        listed = [entry for entry in scanned if not is_clutter(entry.name)]
    return sorted(listed, key=lambda entry: composed(entry.name))


def walk(folder: Path) -> list[Path]:
    """Return the files in a folder and below it, without clutter and what lies in hidden folders."""
    files = []
    for path in entries(folder):
        files += [path] if path.is_file() else walk(path) if path.is_dir() and not path.is_symlink() else []
    return files


def list_files(folder: Path, suffixes: Sequence[str] = NIFTI) -> tuple[dict[str, Path], list[Finding]]:
    """Return the files of a folder by their names without suffix.

    Args:
        folder: the folder.
        suffixes: of the files to list, in lower case.

    Returns:
        The files, and findings: a name that two files have (`x.nii` and `x.nii.gz`), and volumes, or beside pictures
        other pictures, that are not listed.
    """
    files: dict[str, Path] = {}
    findings = []
    first: dict[str, Path] = {}
    for entry in _scan(folder):
        path = folder / entry.name
        if entry.is_dir():
            if has_suffix(entry.name, suffixes):  # so archives of single files are unpacked on some systems
                message = "this is a folder with the name of a file, and is not read"
                findings.append(warning("file-ignored", path, message, "Move the file in it to its place."))
            continue
        if not has_suffix(entry.name, suffixes):
            unread = (*_VOLUME_LIKE, *(UNREAD_PICTURES if ".png" in suffixes else ()))
            if has_suffix(entry.name, unread) or ".nii" in entry.name.lower():
                message = f"the file is not read, because its name does not end in {' or '.join(suffixes)}"
                findings.append(warning("file-ignored", path, message, "Convert or rename it, or move it elsewhere."))
            continue
        name = stem(entry.name)
        namesake = first.setdefault(name_key(name), path)
        if namesake is not path:
            message = f"{namesake.name} has the same name, up to suffix, accents and upper and lower case"
            findings.append(error("same-id", path, message, "Remove or rename one of them."))
        else:
            files[name] = path
    return files, findings


def files_by_name(folder: Path, suffixes: Sequence[str] = NIFTI) -> dict[str, Path]:
    """Return the files of a folder by their names without suffix.

    Raises:
        DataError: two files have one name, see `list_files`.
    """
    files, findings = list_files(folder, suffixes)
    for finding in findings:
        if finding.severity == "error":
            raise DataError(finding.location, finding.message, "", finding.fix)
    return files


def spelled_as(values: Mapping[str, Value], names: Iterable[str]) -> dict[str, Value]:
    """Return a dictionary whose keys are spelled as in `names`, where they are equal by `name_key`.

    Example:
        >>> spelled_as({"CASE1": 1, "other": 2}, ["case1", "case2"])
        {'case1': 1, 'other': 2}
    """
    exact = set(names)
    spelling = {name_key(name): name for name in exact}
    return {name if name in exact else spelling.get(name_key(name), name): value for name, value in values.items()}


def existing(path: Path) -> Path:
    """Return the path as the file system spells it, see `name_key`; unchanged if nothing of that name is there.

    Raises:
        DataError: the system cannot have a file of that name.
    """
    try:
        if path.exists() or path == path.parent:
            return path
    except (OSError, ValueError) as error:  # too long, or with a NUL
        shown = f"{str(path)[:60]}..."
        raise DataError(shown, "no file can have this name", error.__class__.__name__, "Correct the name.") from error
    parent = existing(path.parent)
    alike = [entry for entry in entries(parent) if name_key(entry.name) == name_key(path.name)]
    return alike[0] if len(alike) == 1 else path


def is_link(path: Path) -> bool:
    """Return True for a link, and for a Windows junction where Python knows those (3.12)."""
    return path.is_symlink() or bool(getattr(os.path, "isjunction", lambda _: False)(path))
