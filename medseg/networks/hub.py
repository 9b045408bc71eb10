"""Folders of pretrained weights in Hugging Face's format: on this machine, in its cache, or from the hub.

Not `from_pretrained` alone: without a network that waits for minutes, and what it says then is no help.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from medseg.errors import WeightsError
from medseg.optional import require

WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that there is
_CONFIG = "config.json"
_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_SECONDS = 5.0  # after which a hub that does not answer is taken for absent


class NotAtHandError(WeightsError):
    """The name is that of a model on the hub, which is neither in the cache nor within reach."""


def weights_folder(name: str | Path, extra: str) -> Path:
    """The folder with `config.json` and weights that `name` means.

    What the cache holds is taken without asking the hub, so a run that found its weights once finds them offline.

    Args:
        name: a folder, or the id of a model on the hub (`owner/model`); a folder goes first.
        extra: the extra of medseg that brings Hugging Face's packages.

    Raises:
        WeightsError: a folder that is missing or incomplete, an id that the hub does not know.
        NotAtHandError: an id that is not in the cache while there is no network, or `HF_HUB_OFFLINE` is set.
        MissingExtraError: Hugging Face's packages are not installed.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _complete(folder)
    if not _ID.fullmatch(str(name)):
        raise WeightsError(
            name, "must be a folder in Hugging Face's format or the id of a model (owner/model)", "no such folder"
        )
    hub = require("huggingface_hub", extra=extra)
    errors = require("huggingface_hub.errors", extra=extra)
    try:
        return _complete(_files(hub, errors, str(name), local=True))
    except errors.LocalEntryNotFoundError:
        pass
    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(str(name), _CONFIG), timeout=_SECONDS)
        return _complete(_files(hub, errors, str(name)))
    except (errors.RepositoryNotFoundError, errors.RemoteEntryNotFoundError, errors.GatedRepoError) as error:
        raise WeightsError(
            name,
            "must be a model on the hub that anybody may read, or a folder",
            _first_line(error),
            "Look for its id at https://huggingface.co/models.",
        ) from error
    except (OSError, *errors.HfHubHTTPError.__bases__) as error:  # among them that of every failed connection
        raise NotAtHandError(
            name,
            "must be in Hugging Face's cache or within reach of the network",
            _first_line(error),
            f"Where there is a network, run: hf download {name} --local-dir FOLDER; bring FOLDER here and give its "
            "path as `pretrained` (or point HF_HOME at a cache that holds it). To start from random weights, set "
            "pretrained=null, or allow_missing_pretrained=true to use weights only where they can be had.",
        ) from error


def _files(hub: Any, errors: Any, name: str, local: bool = False) -> Path:
    """The folder of a model in the cache, into which its config and weights are brought unless `local`."""
    folder = Path(hub.hf_hub_download(name, _CONFIG, local_files_only=local)).parent
    first, second = WEIGHTS
    not_there = errors.LocalEntryNotFoundError if local else errors.RemoteEntryNotFoundError
    try:
        hub.hf_hub_download(name, first, local_files_only=local)
    except not_there:
        hub.hf_hub_download(name, second, local_files_only=local)
    return folder


def _complete(folder: Path) -> Path:
    weights = [file for end in (".safetensors", ".bin") for file in folder.glob(f"*model*{end}")]
    if (folder / _CONFIG).is_file() and weights:
        return folder
    missing = "weights (model.safetensors or pytorch_model.bin)" if (folder / _CONFIG).is_file() else _CONFIG
    raise WeightsError(folder, "must be a model's folder in Hugging Face's format", f"no {missing} in it")


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__).rstrip(".")
