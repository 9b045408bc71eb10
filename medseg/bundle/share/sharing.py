"""Bringing a packed bundle to a place where others find it, and fetching it from there."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

from medseg.atomic import atomic_path, write_text
from medseg.bundle.share import hub
from medseg.bundle.share.sources import SUM, asked, fetch, sum_line
from medseg.bundle.share.staging import CARD
from medseg.bundle.verify.manifest import compare, sha256_of
from medseg.errors import DataError, OutputError
from medseg.remote import PARTIAL
from medseg.remote import open_filesystem as open_place

_HOUR = 3600.0
_CARD_MOST = 1 << 20


def push(path: str | Path, where: str | Path, private: bool = True) -> str:
    """Bring a packed bundle to another place, with a file beside it that has its SHA-256.

    Args:
        path: the zip, as `pack_bundle` wrote it; held against its manifest first.
        where: `hf://owner/model` (one commit, with the model card as its README), a folder, or a folder as a URL of
            fsspec; where it ends in `.zip`, it is the file's own name. There it is whole or not there.
        private: whether a repository that is made on the hub is seen by its owner alone.

    Returns:
        Where it can be fetched from.

    Raises:
        DataError: no packed bundle, or a damaged one.
        ConfigError, OutputError: a place that cannot be, cannot be reached or cannot be written.
    """
    path, text = Path(path), str(where)
    protocol, address, rest = text.partition("://")
    text = protocol.lower() + address + rest if address else text
    if not path.is_file():
        raise DataError(path, "must be a packed bundle", "no such file", "medseg bundle pack makes one.")
    wrong = compare(path)
    if wrong:
        raise DataError(path, "must be a whole packed bundle", str(wrong[0]), "Pack it again.")
    if text.startswith("hf://"):
        return hub.push(path, text, _card(path), sum_line(path), private)
    if "://" in text or "::" in text:
        return _to_place(path, text)
    folder = Path(text).expanduser()
    named = folder.suffix.lower() == ".zip" and not folder.is_dir()
    target = folder if named else folder / path.name
    if target.exists() and target.samefile(path):
        raise OutputError(folder, "must be another folder than the one it lies in", str(path.parent))
    _copy(path, target)
    return str(target)


def pull(source: str, folder: str | Path, sha256: str | None = None) -> Path:
    """Fetch a packed bundle into a folder, held against its SHA-256 and its manifest; whole or not there.

    Args:
        source: see `medseg.bundle.share.sources.fetch`.
        folder: where it goes.
        sha256: what its SHA-256 must be.

    Raises:
        DataError: no packed bundle, a damaged or another one.
        ConfigError, OutputError: a place that cannot be, or cannot be reached or written, or holds another file of
            that name.
    """
    with tempfile.TemporaryDirectory(prefix="medseg-pull-") as location:
        path = fetch(source, Path(location), sha256)
        wrong = [one for one in compare(path) if one.severity == "error"]
        if wrong:
            raise DataError(source, "must be a whole packed bundle", str(wrong[0]), "Fetch it again.")
        target = Path(folder) / path.name
        if not (target.exists() and target.samefile(path)):
            _copy(path, target)
    return target


def _copy(path: Path, target: Path) -> None:
    """Put a zip at a place, with the file that has its SHA-256; another file there stays as it is.

    Raises:
        OutputError: there is another file, or the place cannot be written.
    """
    line = f"{sha256_of(path)}  {target.name}\n"
    if not target.is_file() or sha256_of(target) != sha256_of(path):
        if target.exists():
            raise OutputError(
                target, "must be free, or hold the same file", "another one", "Remove it, or choose another folder."
            )
        with atomic_path(target) as partial:
            shutil.copyfile(path, partial)
    write_text(target.with_name(target.name + SUM), line)


def _to_place(path: Path, url: str) -> str:
    location, folder = asked(url, lambda: open_place(url))
    named = folder.lower().endswith(".zip")
    target = folder if named else f"{folder}/{path.name}"
    folder = target.rpartition("/")[0]
    name = target.rpartition("/")[2]
    partial = target + PARTIAL

    def send() -> None:
        if location.exists(target) and not _is_same(location, target, path):
            raise OutputError(
                url, "must not hold another file of that name", name, "Remove it, or choose another place."
            )
        location.makedirs(folder, exist_ok=True)
        try:
            location.put_file(str(path), partial)
            if location.size(partial) != path.stat().st_size:
                raise OSError(f"{location.size(partial)} of {path.stat().st_size} bytes are there")
            if location.exists(target):
                location.rm_file(target)
            location.mv(partial, target)
            location.pipe_file(target + SUM, f"{sha256_of(path)}  {name}\n".encode())
        finally:
            if location.exists(partial):
                location.rm_file(partial)

    asked(url, send, _HOUR)
    return url if named else f"{url.rstrip('/')}/{path.name}"


def _is_same(location: Any, target: str, path: Path) -> bool:
    """Whether a file at a place is this zip, by its size and the SHA-256 beside it."""
    if location.size(target) != path.stat().st_size:
        return False
    said = location.cat_file(target + SUM).split() if location.exists(target + SUM) else []
    return not said or said[0] == sha256_of(path).encode()


def _card(path: Path) -> str:
    """The model card in a zip, with the head that the hub reads."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if PurePosixPath(name).match(f"*/{CARD}")]
        text = ""
        if names:
            with archive.open(names[0]) as file:
                text = file.read(_CARD_MOST).decode(errors="replace")
    head = "---\ntags:\n- monai\n- medical\n- image-segmentation\nlibrary_name: monai\n---\n\n"
    return f"{head}{text}\nFetch and check it: `medseg bundle install hf://OWNER/MODEL`\n"
