"""Find a folder of pretrained weights in Hugging Face's format: on this machine, in its cache, or on the hub.

Not `from_pretrained` alone: without internet that waits for minutes, and its error does not say what to do.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from medseg.errors import WeightsError, first_line
from medseg.optional import require

WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that exists
_CONFIG = "config.json"
_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_TIMEOUT = 5.0  # seconds, after which the hub counts as unreachable


class UnreachableError(WeightsError):
    """A model of the hub is neither in the cache nor can the hub be reached."""


def weights_folder(name: str | Path, extra: str) -> Path:
    """Return the folder with `config.json` and weights that `name` stands for.

    The cache is used without asking the hub, so a run that loaded its weights once loads them offline.

    Args:
        name: a folder, or the id of a model on the hub (`owner/model`); a folder is preferred.
        extra: the extra of medseg that brings Hugging Face's packages.

    Raises:
        WeightsError: a folder is missing or incomplete, or the hub does not know the id.
        UnreachableError: the id is not in the cache, and there is no internet or `HF_HUB_OFFLINE` is set.
        MissingExtraError: Hugging Face's packages are not installed.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _require_complete(folder)
    if not _ID.fullmatch(str(name)):
        raise WeightsError(name, "is neither a folder in Hugging Face's format nor the id of a model (owner/model)")
    hub = require("huggingface_hub", extra=extra)
    errors = require("huggingface_hub.errors", extra=extra)
    try:
        return _require_complete(_download(hub, errors, str(name), cache_only=True))
    except errors.LocalEntryNotFoundError:
        pass
    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(str(name), _CONFIG), timeout=_TIMEOUT)
        return _require_complete(_download(hub, errors, str(name)))
    except (errors.RepositoryNotFoundError, errors.RemoteEntryNotFoundError, errors.GatedRepoError) as error:
        raise WeightsError(
            name,
            "is no folder, and no public model on the hub",
            first_line(error),
            "Look for its id at https://huggingface.co/models.",
        ) from error
    except (OSError, *errors.HfHubHTTPError.__bases__) as error:  # every failed connection is among them
        raise UnreachableError(
            name,
            "is not in Hugging Face's cache, and the hub cannot be reached",
            first_line(error),
            f"On a machine with internet, run: hf download {name} --local-dir FOLDER; bring FOLDER here and pass its "
            "path as `pretrained` (or point HF_HOME at a cache that holds it). To start from random weights, set "
            "pretrained=null, or allow_missing_pretrained=true to use the weights only where they can be loaded.",
        ) from error


def _download(hub: Any, errors: Any, name: str, cache_only: bool = False) -> Path:
    """Return the cache's folder of a model, with its config and weights."""
    folder = Path(hub.hf_hub_download(name, _CONFIG, local_files_only=cache_only)).parent
    preferred, alternative = WEIGHTS
    missing_error = errors.LocalEntryNotFoundError if cache_only else errors.RemoteEntryNotFoundError
    try:
        hub.hf_hub_download(name, preferred, local_files_only=cache_only)
    except missing_error:
        hub.hf_hub_download(name, alternative, local_files_only=cache_only)
    return folder


def _require_complete(folder: Path) -> Path:
    weights = [file for suffix in (".safetensors", ".bin") for file in folder.glob(f"*model*{suffix}")]
    if (folder / _CONFIG).is_file() and weights:
        return folder
    missing = "weights (model.safetensors or pytorch_model.bin)" if (folder / _CONFIG).is_file() else _CONFIG
    raise WeightsError(folder, f"has no {missing}, as a folder in Hugging Face's format must have")
