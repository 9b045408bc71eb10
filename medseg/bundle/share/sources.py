"""Fetching a packed bundle: a file, a URL of the web, the Hugging Face Hub, or any place that fsspec reaches."""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

from medseg.bundle.share import hub
from medseg.bundle.verify.manifest import sha256_of
from medseg.errors import ConfigError, DataError, MedsegError, OutputError
from medseg.remote import open_filesystem as open_place
from medseg.remote import run_with_timeout

SUM = ".sha256"  # beside a zip: its SHA-256 and its name, as sha256sum writes it
SECONDS = 30.0  # that a place is given to answer
_HOUR = 3600.0
_CHUNK = 1 << 20
_LONGEST = 120  # letters of a file's name; file systems allow some 255 bytes
_NONE = (403, 404, 410)  # what a server says where there is no such file
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
T = TypeVar("T")


def fetch(source: str | Path, folder: Path, sha256: str | None = None) -> Path:
    """Bring a packed bundle into a folder, or leave it where it is where that is a file of this machine.

    Args:
        source: a file; `https://...`; `hf://owner/model`, also with `@revision` and `/file.zip`; a URL of fsspec
            (`s3://`, `sftp://`, ...). Of a folder, here or there, the one zip in it.
        folder: where it is brought.
        sha256: what its SHA-256 must be; without it that in `<zip>.sha256` beside it, where there is such a file.

    Returns:
        The zip.

    Raises:
        DataError: no such file, several of them, or another SHA-256.
        ConfigError, OutputError: a place that cannot be, or cannot be reached.
    """
    if sha256 is not None and not _SHA256.fullmatch(sha256.strip()):
        raise ConfigError("sha256", "must be the 64 hexadecimal digits of a SHA-256", f"'{sha256[:80]}'")
    text = str(source)
    protocol = text.partition("://")[0].lower()
    if "://" in text:
        text = protocol + text[len(protocol) :]
    folder.mkdir(parents=True, exist_ok=True)
    if text.startswith("hf://"):
        path, beside = hub.fetch(text, folder)
    elif text.startswith(("http://", "https://")):
        path, beside = _from_web(text, folder)
    elif "://" in text or "::" in text:
        path, beside = _from_place(text, folder)
    else:
        path = _one_zip(Path(text).expanduser())
        beside = path.with_name(path.name + SUM)
    said = sha256 if sha256 is not None else _said(beside, f"{text}{SUM}" if "://" in text else None)
    if said is not None:
        found = sha256_of(path)
        if found.lower() != said.strip().lower():
            raise DataError(source, f"must have the SHA-256 {said}", found, "It is damaged, or another file.")
    return path


def sum_line(path: Path) -> str:
    """What stands in the file beside a zip.

    Raises:
        OSError: the zip cannot be read.
    """
    return f"{sha256_of(path)}  {path.name}\n"


def _said(beside: Path | None, url: str | None) -> str | None:
    if beside is None or not beside.is_file():
        return None
    words = beside.read_text(encoding="utf-8", errors="replace").split()
    if not words or not _SHA256.fullmatch(words[0]):
        raise DataError(url or beside, "must begin with a SHA-256", words[0][:80] if words else "nothing")
    return words[0]


def _one_zip(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(path, "must be a packed bundle", "no such file")
    found = sorted(path.glob("*.zip"))
    if len(found) == 1:
        return found[0]
    if (path / "configs" / "metadata.json").is_file():
        raise DataError(
            path, "must be a packed bundle", "a folder", "medseg bundle pack makes one; or use it as it is."
        )
    names = ", ".join(one.name for one in found[:5]) or "none"
    raise DataError(path, "must hold one packed bundle", names, "Name the zip.")


def name_in(url: str) -> str:
    """The file's name at the end of a URL.

    >>> name_in("https://example.org/a/unet%202d.zip?download=1")
    'unet 2d.zip'
    """
    last = PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name
    return PureWindowsPath(last).name.strip(".")[-_LONGEST:]


def _from_web(url: str, folder: Path) -> tuple[Path, Path | None]:
    path = folder / (name_in(url) or "bundle.zip")
    _download(url, path)
    beside = path.with_name(path.name + SUM)
    parts = urllib.parse.urlsplit(url)
    url = urllib.parse.urlunsplit(parts._replace(path=parts.path + SUM))
    try:
        _download(url, beside)
    except OutputError as error:
        if not isinstance(error.__cause__, urllib.error.HTTPError) or error.__cause__.code not in _NONE:
            raise
    if beside.is_file() and beside.read_bytes()[:_CHUNK].lstrip().startswith(b"<"):
        beside.unlink()  # a page that says that there is none
    return path, beside


def _download(url: str, path: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer, path.open("wb") as file:
            shutil.copyfileobj(answer, file, _CHUNK)
            expected = answer.headers.get("Content-Length")
        if expected is not None and int(expected) != path.stat().st_size:
            raise OSError(f"{path.stat().st_size} of {expected} bytes came")
    except (OSError, ValueError, http.client.HTTPException) as error:  # among them URLError and HTTPError
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        reason = getattr(error, "reason", None) or error
        raise OutputError(
            url, "must be within reach", f"{type(error).__name__}: {reason}", "Is there a network?"
        ) from error


def _from_place(url: str, folder: Path) -> tuple[Path, Path | None]:
    location, path = asked(url, lambda: open_place(url))

    def look() -> str:
        if not path.endswith(".zip") and location.isdir(path):
            found = sorted(one for one in location.ls(path, detail=False) if str(one).endswith(".zip"))
            if len(found) != 1:
                names = ", ".join(PurePosixPath(one).name for one in found[:5]) or "none"
                raise DataError(url, "must hold one packed bundle", names, "Name the zip.")
            return str(found[0])
        if not location.isfile(path):
            raise DataError(url, "must be a packed bundle", "no such file")
        return path

    remote = asked(url, look)
    target = folder / PurePosixPath(remote).name
    beside = target.with_name(target.name + SUM)

    def bring() -> None:
        location.get_file(remote, str(target))
        if location.isfile(remote + SUM):
            location.get_file(remote + SUM, str(beside))

    asked(url, bring, _HOUR)
    return target, beside


def asked(url: str, work: Callable[[], T], seconds: float = SECONDS) -> T:
    """What a piece of work with a place gives; errors name the place.

    Raises:
        ConfigError, OutputError: it cannot be, cannot be reached, or does not answer in time.
    """
    try:
        return run_with_timeout(seconds, work, url)
    except MedsegError as error:
        if error.thing != f"backup={url}":
            raise
        said: Any = type(error)
        fix = error.fix.replace("Mend it, or leave out backup.", "Look at its spelling, the network and your login.")
        raise said(url, error.problem, error.came, fix.replace(", or leave out backup", "")) from error
