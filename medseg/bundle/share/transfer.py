"""Fetch packed bundles from anywhere, and push them: files, folders, the web, the Hugging Face Hub, other places."""

from __future__ import annotations

import contextlib
import http.client
import re
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

from medseg.atomic import atomic_path, write_text
from medseg.bundle.share.guards import refuse
from medseg.bundle.share.stage import CARD
from medseg.bundle.verify.manifest import compare, sha256_of
from medseg.errors import ConfigError, DataError, OutputError
from medseg.optional import require
from medseg.remote import PARTIAL, open_filesystem, run_with_timeout

T = TypeVar("T")
SUM = ".sha256"  # ends the file beside a zip with its SHA-256 and its name, as sha256sum writes it
SECONDS = 30.0  # that a place is given to answer
_TRANSFER_SECONDS = 3600.0
_CHUNK = 1 << 20
_LARGEST_CARD = 1 << 20
_LONGEST_NAME = 120  # letters of a file's name; file systems allow some 255 bytes
_NOT_THERE = (403, 404, 410)  # what a web server answers where there is no such file
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_HUB_URL = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w.%-]+))?(?:/(?P<file>[^@]+\.zip))?/?")
_FETCH_AGAIN = "Fetch it again: it is damaged, or another file."
_NETWORK = "Check the address and the network."
_HUB_NETWORK = "Check the name and the network. HF_TOKEN or `hf auth login` says who you are."


def fetch(source: str | Path, folder: Path, sha256: str | None = None) -> Path:
    """Fetch a packed bundle into a folder, or leave it where it is if it is a file of this machine.

    Args:
        source: a file; `https://...`; `hf://owner/model`, also with `@revision` and `/file.zip`; a URL of fsspec
            (`s3://`, `sftp://`, ...). A folder, here or there, stands for the one zip in it.
        folder: where it goes.
        sha256: what its SHA-256 must be; by default that in `<zip>.sha256` beside it, where there is one.

    Returns:
        The zip.

    Raises:
        DataError: the zip does not exist, there are several, or it has another SHA-256.
        ConfigError: an address that cannot be right.
        OutputError: a place that cannot be reached.
        MissingExtraError: `hf://` without huggingface_hub.
    """
    if sha256 is not None and not _SHA256.fullmatch(sha256.strip()):
        raise ConfigError("sha256", "a SHA-256 has 64 hexadecimal digits", f"got '{sha256[:80]}'", "Copy all of it.")
    address = _normalized(source)
    folder.mkdir(parents=True, exist_ok=True)
    if address.startswith(("http://", "https://")):
        path, sum_file = _from_web(address, folder)
    elif _is_remote(address):
        path, sum_file = _from_remote(address, folder)
    else:
        path = _single_zip(Path(address).expanduser())
        sum_file = path.with_name(path.name + SUM)
    expected = sha256
    if expected is None and sum_file.is_file():
        expected = _read_sum(sum_file, f"{address}{SUM}" if _is_remote(address) else str(sum_file))
    if expected is not None:
        actual = sha256_of(path)
        if actual.lower() != expected.strip().lower():
            raise DataError(source, f"its SHA-256 must be {expected}", f"got {actual}", _FETCH_AGAIN)
    return path


def _normalized(source: str | Path) -> str:
    """Return an address with its protocol in small letters."""
    protocol, separator, path = str(source).partition("://")
    return protocol.lower() + separator + path if separator else str(source)


def _is_remote(address: str) -> bool:
    return "://" in address or "::" in address  # fsspec chains protocols with ::


def sum_line(path: Path, name: str = "") -> str:
    """Return the text of the file beside a zip.

    Args:
        path: the zip.
        name: its name there; the same as here by default.

    Raises:
        OSError: the zip cannot be read.
    """
    return f"{sha256_of(path)}  {name or path.name}\n"


def _read_sum(file: Path, name: str) -> str:
    words = file.read_text(encoding="utf-8", errors="replace").split()
    if not words or not _SHA256.fullmatch(words[0]):
        begins = f"it begins with {words[0][:80]}" if words else "it is empty"
        raise DataError(name, "the file must begin with a SHA-256", begins, "Write it with sha256sum.")
    return words[0]


def _single_zip(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(path, "the file does not exist", "", "Give a packed bundle, or where to fetch it.")
    zips = sorted(path.glob("*.zip"))
    if len(zips) != 1 and (path / "configs" / "metadata.json").is_file():
        fix = "Pack it with medseg bundle pack, or use it as it is."
        raise DataError(path, "this is a folder and not a packed bundle", "", fix)
    return Path(_single([str(file) for file in zips], str(path)))


def _single(zips: list[str], address: str) -> str:
    """Return the only zip of a place.

    Raises:
        DataError: there is none, or more than one.
    """
    if not zips:
        raise DataError(address, "there is no zip here", "", "Give the address of a packed bundle.")
    if len(zips) > 1:
        names = ", ".join(PurePosixPath(Path(name).as_posix()).name for name in zips[:5])
        raise DataError(address, "there is more than one zip here", names, "Give the address of one of them.")
    return zips[0]


def name_in(url: str) -> str:
    """Return the file's name at the end of a URL, which may come from a stranger: never a path.

    >>> name_in("https://example.org/a/unet%202d.zip?download=1")
    'unet 2d.zip'
    """
    last = PurePosixPath(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name
    return PureWindowsPath(last).name.strip(".")[-_LONGEST_NAME:]


def _from_web(url: str, folder: Path) -> tuple[Path, Path]:
    path = folder / (name_in(url) or "bundle.zip")
    _download(url, path)
    sum_file = path.with_name(path.name + SUM)
    parts = urllib.parse.urlsplit(url)
    try:
        _download(urllib.parse.urlunsplit(parts._replace(path=parts.path + SUM)), sum_file)
    except OutputError as error:
        if not isinstance(error.__cause__, urllib.error.HTTPError) or error.__cause__.code not in _NOT_THERE:
            raise
    if sum_file.is_file() and sum_file.read_bytes()[:_CHUNK].lstrip().startswith(b"<"):
        sum_file.unlink()  # a page that says that there is no such file
    return path, sum_file


def _download(url: str, path: Path) -> None:
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer, path.open("wb") as file:
            shutil.copyfileobj(answer, file, _CHUNK)
            expected = answer.headers.get("Content-Length")
        if expected is not None and int(expected) != path.stat().st_size:
            raise OSError(f"{path.stat().st_size} of {expected} bytes arrived")
    except (OSError, ValueError, http.client.HTTPException) as error:  # among them URLError and HTTPError
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        reason = f"{type(error).__name__}: {getattr(error, 'reason', None) or error}"
        raise OutputError(url, "the address cannot be reached", reason, _NETWORK) from error


def _from_remote(url: str, folder: Path) -> tuple[Path, Path]:
    filesystem, path = _open(url)

    def find() -> str:
        filesystem.invalidate_cache()
        if not path.endswith(".zip") and (url.startswith("hf://") or filesystem.isdir(path)):
            names = [str(name) for name in filesystem.ls(path, detail=False)]
            return _single(sorted(name for name in names if name.endswith(".zip")), url)
        if not filesystem.isfile(path):
            raise DataError(url, "the file does not exist", "", "Check the address.")
        return path

    remote = _ask(url, find)
    target = folder / PurePosixPath(remote).name
    sum_file = target.with_name(target.name + SUM)

    def download() -> None:
        filesystem.get_file(remote, str(target))
        if filesystem.isfile(remote + SUM):
            filesystem.get_file(remote + SUM, str(sum_file))

    _ask(url, download, _TRANSFER_SECONDS)
    return target, sum_file


def _open(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and the path in it."""
    if url.startswith("hf:"):
        _require_hub(url)
    return _ask(url, lambda: open_filesystem(url))


def _require_hub(url: str) -> re.Match[str]:
    """Return the parts of an address on the hub, which may be asked."""
    match = _HUB_URL.fullmatch(url)
    if match is None:
        problem = "an address on the hub is hf://owner/model, with @revision and /file.zip if needed"
        raise ConfigError(url, problem, "", "Write `/` in a revision as %2F.")
    constants = require("huggingface_hub.constants", extra="share")
    if constants.HF_HUB_OFFLINE:
        raise OutputError(url, "HF_HUB_OFFLINE forbids to reach the hub", "", "Unset it.")
    return match


def _ask(url: str, work: Callable[[], T], seconds: float | None = None) -> T:
    """Return what a piece of work with a place returns; errors name the place.

    Raises:
        MedsegError: it cannot be reached, or does not answer in time.
    """
    fix = _HUB_NETWORK if url.startswith("hf://") else "Check its spelling, the network and your login."
    return run_with_timeout(SECONDS if seconds is None else seconds, work, url, fix)


def push(path: str | Path, target: str | Path, private: bool = True) -> str:
    """Copy a packed bundle to another place, with a file beside it that has its SHA-256.

    Args:
        path: the zip, as `pack_bundle` wrote it; it is compared with its manifest first.
        target: `hf://owner/model` (one commit, with the model card as README), a folder, or a folder as a URL of
            fsspec; if it ends in `.zip`, it is the file's own name. There the zip is complete or not there.
        private: True creates a repository on the hub that only its owner sees.

    Returns:
        Where it can be fetched from.

    Raises:
        DataError: the zip does not exist, or is damaged.
        ConfigError, OutputError: a place that cannot be right, reached or written.

    Example:
        >>> push("liver.zip", "hf://hospital/unet2d-liver")  # doctest: +SKIP
        'hf://hospital/unet2d-liver/liver.zip'
    """
    path, address = Path(path), _normalized(target)
    if not path.is_file():
        raise DataError(path, "the file does not exist", "", "Write it with medseg bundle pack.")
    findings = compare(path)
    refuse(path.name, "the packed bundle is not complete", findings, "Pack it again.", DataError)
    if findings:
        raise DataError(path, findings[0].message, "", "Pack it again with medseg bundle pack.")
    if _is_remote(address):
        return _to_hub(path, address, private) if address.startswith("hf:") else _to_remote(path, address)
    file = _file_at(Path(address).expanduser(), path.name)
    if file.exists() and file.samefile(path):
        raise OutputError(target, "the bundle is in this folder already", "", "Give another folder.")
    _copy(path, file)
    return str(file)


def pull(source: str, folder: str | Path, sha256: str | None = None) -> Path:
    """Fetch a packed bundle into a folder, compared with its SHA-256 and its manifest; complete or not there.

    Args:
        source: see `fetch`.
        folder: where it goes; if it ends in `.zip`, it is the file's own name.
        sha256: what its SHA-256 must be.

    Raises:
        DataError: no packed bundle, a damaged or another one.
        ConfigError, OutputError: a place that cannot be right, reached or written, or has another file of that name.

    Example:
        >>> pull("hf://hospital/unet2d-liver", "downloads")  # doctest: +SKIP
        PosixPath('downloads/liver.zip')
    """
    with tempfile.TemporaryDirectory(prefix="medseg-pull-") as location:
        path = fetch(source, Path(location), sha256)
        refuse(str(source), "the packed bundle is not complete", compare(path), "Fetch it again.", DataError)
        target = _file_at(Path(folder), path.name)
        if not (target.exists() and target.samefile(path)):
            _copy(path, target)
    return target


def _file_at(target: Path, name: str) -> Path:
    """Return the file that a target means: the target itself if it ends in `.zip`, else the name in that folder."""
    return target if target.suffix.lower() == ".zip" and not target.is_dir() else target / name


def _copy(path: Path, target: Path) -> None:
    """Copy a zip, and write the file with its SHA-256; another file of that name stays as it is.

    Raises:
        OutputError: there is another file, or the folder cannot be written.
    """
    if not target.is_file() or sha256_of(target) != sha256_of(path):
        if target.exists():
            raise OutputError(target, "another file has this name", "", "Remove it, or choose another folder.")
        with atomic_path(target) as partial:
            shutil.copyfile(path, partial)
    write_text(target.with_name(target.name + SUM), sum_line(path, target.name))


def _to_remote(path: Path, url: str) -> str:
    filesystem, folder = _open(url)
    is_file_name = folder.lower().endswith(".zip")
    target = folder if is_file_name else f"{folder}/{path.name}"
    folder, _, name = target.rpartition("/")
    partial = target + PARTIAL

    def upload() -> None:
        if filesystem.exists(target) and not _is_same(filesystem, target, path):
            fix = "Remove it, or choose another place."
            raise OutputError(url, "another file has this name", name, fix)
        filesystem.makedirs(folder, exist_ok=True)
        try:
            filesystem.put_file(str(path), partial)
            if filesystem.size(partial) != path.stat().st_size:
                raise OSError(f"{filesystem.size(partial)} of {path.stat().st_size} bytes arrived")
            if filesystem.exists(target):
                filesystem.rm_file(target)
            filesystem.mv(partial, target)
            filesystem.pipe_file(target + SUM, sum_line(path, name).encode())
        finally:
            if filesystem.exists(partial):
                filesystem.rm_file(partial)

    _ask(url, upload, _TRANSFER_SECONDS)
    return url if is_file_name else f"{url.rstrip('/')}/{path.name}"


def _is_same(filesystem: Any, target: str, path: Path) -> bool:
    """Return True if a remote file is this zip, by its size and the SHA-256 beside it."""
    if filesystem.size(target) != path.stat().st_size:
        return False
    words = filesystem.cat_file(target + SUM).split() if filesystem.exists(target + SUM) else []
    return not words or words[0] == sha256_of(path).encode()


def _to_hub(path: Path, url: str, private: bool) -> str:
    """Commit the zip, its SHA-256 and its card at once: files put one by one could be fetched half changed."""
    repo, revision, file = _require_hub(url).group("repo", "revision", "file")
    hub = require("huggingface_hub", extra="share")
    name = file or path.name
    if PurePosixPath(name).name != name:
        raise ConfigError(url, "the file cannot be in a folder of the repository", name, "Give its name alone.")
    contents: list[tuple[str, str | bytes]] = [
        (name, str(path)),
        (f"{name}{SUM}", sum_line(path, name).encode()),
        ("README.md", _card(path).encode()),
    ]

    api = hub.HfApi(library_name="medseg")
    operations = [hub.CommitOperationAdd(path_in_repo=entry, path_or_fileobj=data) for entry, data in contents]
    branch = urllib.parse.unquote(revision) if revision else None

    def upload() -> None:
        api.create_commit(repo, operations, commit_message=f"Add {name}, packed by medseg", revision=branch)

    _ask(url, lambda: api.create_repo(repo, private=private, exist_ok=True))
    _ask(url, upload, _TRANSFER_SECONDS)
    return f"hf://{repo}{f'@{revision}' if revision else ''}/{name}"


def _card(path: Path) -> str:
    """Return the model card in a zip, with how to fetch it."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if PurePosixPath(name).match(f"*/{CARD}")]
        text = ""
        if names:
            with archive.open(names[0]) as file:
                text = file.read(_LARGEST_CARD).decode(errors="replace")
    return f"{text}\nFetch and check it: `medseg bundle install hf://OWNER/MODEL`\n"
