"""Packed bundles on the Hugging Face Hub: one zip in a model's repository, with its card and its SHA-256."""

from __future__ import annotations

import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar
from urllib.parse import unquote

from medseg.errors import ConfigError, DataError, OutputError
from medseg.optional import require

T = TypeVar("T")
_ADDRESS = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w.%-]+))?(?:/(?P<file>[^@]+\.zip))?/?")
SECONDS = 10.0  # that the hub is given to answer
_NETWORK = "Is there a network? HF_TOKEN or `hf auth login` says who you are."


class Address(NamedTuple):
    """A place on the hub: `owner/model`, a branch, tag or commit (None for the newest), a file (None for the one)."""

    repo: str
    revision: str | None
    file: str | None


def parse(url: str) -> Address:
    """What `hf://owner/model@revision/file.zip` names; revision and file may be left out; `/` in a revision is `%2F`.

    Raises:
        ConfigError: another form.

    >>> parse("hf://hospital/unet2d@v1/liver.zip")
    Address(repo='hospital/unet2d', revision='v1', file='liver.zip')
    """
    found = _ADDRESS.fullmatch(url)
    if found is None:
        raise ConfigError(url, "must be hf://owner/model, with @revision and /file.zip where wanted", "another form")
    revision = found["revision"]
    return Address(found["repo"], revision and unquote(revision), found["file"])


def fetch(url: str, folder: Path) -> tuple[Path, Path | None]:
    """Bring the zip of a repository into a folder, and the file with its SHA-256 where there is one.

    Raises:
        DataError: no zip in it, or several; OutputError: it is not there, is not for you, or cannot be reached.
    """
    address = parse(url)

    def work(api: Any, hub: Any) -> tuple[Path, Path | None]:
        files = api.list_repo_files(address.repo, revision=address.revision)
        zips = [file for file in files if file.endswith(".zip")]
        wanted = address.file or (zips[0] if len(zips) == 1 else None)
        if wanted not in zips:
            raise DataError(url, "must be or hold one packed bundle", ", ".join(zips[:5]) or "no zip", "Name the zip.")
        given = {"repo_id": address.repo, "revision": address.revision, "local_dir": folder}
        path = Path(hub.hf_hub_download(filename=wanted, **given))
        beside = (
            Path(hub.hf_hub_download(filename=f"{wanted}.sha256", **given)) if f"{wanted}.sha256" in files else None
        )
        return path, beside

    return _asked(url, work)


def push(path: Path, url: str, card: str, line: str, private: bool = True) -> str:
    """Put a zip into a repository, in one commit with its card as README.md; the repository is made if need be.

    Args:
        path: the zip.
        url: `hf://owner/model`, with `@branch` where wanted.
        card: the README.
        line: what goes into `<zip>.sha256`.
        private: whether a repository that is made is seen by its owner alone.

    Returns:
        Where it can be fetched from.

    Raises:
        OutputError: no network, or not allowed.
    """
    address = parse(url)
    name = address.file or path.name
    if PurePosixPath(name).name != name:
        raise ConfigError(url, "must not name a folder in the repository", name)

    def work(api: Any, hub: Any) -> str:
        api.create_repo(address.repo, private=private, exist_ok=True)
        contents = [(name, str(path)), (f"{name}.sha256", line.encode()), ("README.md", card.encode())]
        operations = [
            hub.CommitOperationAdd(path_in_repo=location, path_or_fileobj=what) for location, what in contents
        ]
        api.create_commit(
            address.repo, operations, commit_message=f"{name}, packed by medseg", revision=address.revision
        )
        return f"hf://{address.repo}{f'@{address.revision}' if address.revision else ''}/{name}"

    return _asked(url, work)


def _asked(url: str, work: Callable[[Any, Any], T]) -> T:
    hub = require("huggingface_hub", extra="segformer")
    errors = require("huggingface_hub.errors", extra="segformer")
    settings = require("huggingface_hub.constants", extra="segformer")
    if settings.HF_HUB_OFFLINE:
        raise OutputError(url, "must be within reach", "HF_HUB_OFFLINE, which forbids to ask", "Unset it.")
    _probe(url, settings.ENDPOINT)
    try:
        return work(hub.HfApi(library_name="medseg"), hub)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise OutputError(
            url, "must be a repository on the hub that you may see", _first_line(error), _NETWORK
        ) from error
    except (OSError, ValueError, *errors.HfHubHTTPError.__bases__) as error:  # among them every failed connection
        raise OutputError(url, "must be within reach, and open to you", _first_line(error), _NETWORK) from error


def _probe(url: str, endpoint: str) -> None:
    """See that the hub answers at all: its own client asks again for half a minute, or waits for ever."""
    try:
        with urllib.request.urlopen(endpoint, timeout=SECONDS):
            pass
    except urllib.error.HTTPError as error:  # it answers
        error.close()
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise OutputError(
            url, "must be within reach", f"{type(error).__name__}: {reason} at {endpoint}", "Is there a network?"
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}".rstrip(".") if lines else type(error).__name__
