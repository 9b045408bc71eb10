"""Load weights into a network, and find pretrained ones in Hugging Face's format."""

from __future__ import annotations

import logging
import pickle
import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from medseg.errors import WeightsError, first_line
from medseg.optional import require
from medseg.runs.find import find_bundle

logger = logging.getLogger(__name__)

WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that exists
_CONFIG = "config.json"
_LISTED = 6
_DEEPEST = 8  # dictionaries around the weights in a checkpoint
_PARTS = ("network", "model", "state_dict", "model_state_dict", "net")  # where checkpoints keep the network's weights
_COMPILED = "_orig_mod."  # what torch.compile puts into names
_UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError,
               pickle.UnpicklingError, SafetensorError)  # fmt: skip
_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_TIMEOUT = 5.0  # seconds, after which the hub counts as unreachable


def load_weights(network: torch.nn.Module, path: str | Path, labels: int | None = None) -> torch.nn.Module:
    """Load every tensor of a `state_dict` into `network`, and return the network.

    Nothing in the file is executed: it is read with `weights_only`. Of a checkpoint the network's part is read, and
    what a wrapper put before the names (`module.`, `_orig_mod.`) is stripped, with a line in the log.
    A `.safetensors` file beside it is preferred.

    Args:
        network: the network, already built.
        path: a file written by `torch.save`, or a safetensors file.
        labels: the expected number of output channels, for the message only.

    Raises:
        WeightsError: the file is missing or damaged, names or shapes differ, or the file was changed after the
            safetensors file and holds other weights.
    """
    path = Path(path)
    safe = path.with_suffix(".safetensors")
    if not path.is_file() and not safe.is_file():
        raise WeightsError(path, "there are no weights", fix="Train first, or use a trained bundle.")
    source = safe if safe.is_file() else path
    state = read_weights(source, network)
    # Of two files the older one may be left over from before a training; the wrong weights would go unnoticed.
    if source != path and path.is_file() and path.stat().st_mtime > safe.stat().st_mtime:
        newer = read_weights(path, network)
        if newer.keys() != state.keys() or any(not torch.equal(state[name], newer[name]) for name in state):
            raise WeightsError(
                path,
                f"it is newer than {safe.name} beside it and holds other weights",
                fix="Remove the one that is out of date.",
            )
    require_fit(network, state, source, labels)
    network.load_state_dict(state)
    return network


def init_weights(network: torch.nn.Module, source: str | Path | None) -> torch.nn.Module:
    """Begin a training with the weights of an earlier one, as far as names and shapes agree; return the network.

    The log says which tensors were taken and which stay random, such as the last layer where the classes differ.

    Args:
        network: the network, already built.
        source: a run or a bundle, by its folder or its name; or a file of weights. None changes nothing.

    Raises:
        WeightsError: there are no weights, they cannot be read, or none fits.

    Example:
        >>> init_weights(network, "runs/unet2d/20261122-120000-demo")  # doctest: +SKIP
    """
    if source is None:
        return network
    path = _weights_file(Path(source).expanduser())
    expected = network.state_dict()
    state = read_weights(path, network)
    taken = {
        name: tensor for name, tensor in state.items() if name in expected and tensor.shape == expected[name].shape
    }
    if not taken:
        fix = "Take weights of the same network, with the same features."
        raise WeightsError(path, "none of its tensors fits the network", f"it has {', '.join(list(state)[:3])}", fix)
    network.load_state_dict(taken, strict=False)
    left = [name for name in expected if name not in taken]
    rest = "all" if not left else f"{len(taken)} of {len(expected)} tensors"
    logger.info("Weights to begin with: %s taken from %s", rest, path)
    for text, names in (
        ("no such tensor there", [name for name in left if name not in state]),
        ("another shape there", [name for name in left if name in state]),
    ):
        if names:
            more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
            logger.info("Left random, %s: %s%s", text, ", ".join(names[:_LISTED]), more)
    return network


def _weights_file(source: Path) -> Path:
    """Return the file of weights that a file, a folder or the name of a bundle or run stands for."""
    if source.is_file():
        return source
    folder = find_bundle(source)
    for name in ("models/model.pt", "models/model.safetensors"):
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(folder, "it has no trained weights", fix="Give a run that has validated once, or a file.")


def read_weights(path: Path, network: torch.nn.Module | None = None) -> dict[str, torch.Tensor]:
    """Return the tensors of a file by their names, of a checkpoint the network's; nothing in it is executed.

    Args:
        path: the file.
        network: the names are to be its own: what a wrapper put before them is stripped, with a line in the log.

    Raises:
        WeightsError: the file is damaged, or holds other things than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            content: Any = dict(safetensors.torch.load_file(path))
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of a pickle's protocol; what it cannot read, it refuses
                content = torch.load(path, map_location="cpu", weights_only=True)
    except _UNREADABLE as error:
        raise WeightsError(path, "the weights cannot be read", first_line(error), "Copy it again.") from error
    wrappers = []
    for _ in range(_DEEPEST):  # a dictionary of a file may hold itself
        if not isinstance(content, dict):
            break
        key = next((key for key in _PARTS if isinstance(content.get(key), dict)), None)
        if key is None:
            break
        content = content[key]
        if key != "network":  # our own checkpoints have it
            wrappers.append(key)
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise WeightsError(path, "it must hold a state_dict of tensors", f"got {type(content).__name__}")
    state = {str(name): tensor for name, tensor in content.items()}
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_complex():
            kind = f"{name} is {tensor.dtype}, {tensor.layout} on {tensor.device.type}"
            raise WeightsError(path, "it must hold dense tensors of real numbers", kind)
    return state if network is None else _unwrapped(state, network.state_dict().keys(), wrappers, path)


def _unwrapped(
    state: dict[str, torch.Tensor], expected: Collection[str], wrappers: list[str], path: Path
) -> dict[str, torch.Tensor]:
    """Return weights by a network's own names, and log what was put around or before them."""
    plain = {name.replace(_COMPILED, ""): tensor for name, tensor in state.items()}
    if plain.keys() != state.keys():
        wrappers.append(_COMPILED)
    while plain and not any(name in expected for name in plain):
        prefixes = {name.partition(".")[0] for name in plain}
        if len(prefixes) > 1 or not all("." in name for name in plain):
            return state
        wrappers.append(f"{prefixes.pop()}.")
        plain = {name.partition(".")[2]: tensor for name, tensor in plain.items()}
    if wrappers:
        logger.info("%s: stripped from its names: '%s'", path, "', '".join(wrappers))
    return plain


def require_fit(network: torch.nn.Module, state: Mapping[str, torch.Tensor], path: Path, labels: int | None) -> None:
    """Require weights to be those of a network, tensor by tensor; see `load_weights`."""
    expected = network.state_dict()
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    if missing or unknown:
        lacks = f"{len(missing)} tensors are missing ({', '.join(missing[:2])})"
        raise WeightsError(
            path,
            f"holds the weights of another network: {lacks}, {len(unknown)} are unknown ({', '.join(unknown[:2])})",
            fix="Use the network they were trained with.",
        )
    for name in expected:
        if expected[name].is_floating_point() and not state[name].is_floating_point():  # a scale is missing
            raise WeightsError(path, f"its {name} must hold floating-point numbers", f"got {state[name].dtype}")
    differing = [name for name in expected if expected[name].shape != state[name].shape]
    if differing:
        name = differing[-1]
        classes = f" with {labels} output channels" if labels is not None else ""
        raise WeightsError(
            path,
            f"does not fit the network{classes}, whose {name} has shape {tuple(expected[name].shape)}",
            f"got shape {tuple(state[name].shape)}",
            "The number of classes or features differs: use the label map and the network they were trained with.",
        )


class UnreachableError(WeightsError):
    """A model of the hub is neither in the cache nor can the hub be reached."""


def weights_folder(name: str | Path, extra: str) -> Path:
    """Return the folder with `config.json` and weights that `name` stands for.

    Not `from_pretrained` alone: without internet that waits for minutes, and its error does not say what to do. The
    cache is used without asking the hub, so a run that loaded its weights once loads them offline.

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
