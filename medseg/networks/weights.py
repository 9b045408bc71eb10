"""Weights into a network: all of them, or an error that says what does not fit."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from medseg.errors import WeightsError


def load_weights(network: torch.nn.Module, path: str | Path, labels: int | None = None) -> torch.nn.Module:
    """Load a `state_dict` into `network`, every tensor of it, and give the network back.

    Nothing in the file is executed: it is read with `weights_only`. A checkpoint of a run is accepted as well;
    its network is taken. Where a `.safetensors` file lies beside it, that one is read.

    Args:
        network: the network, already built.
        path: a file written by `torch.save`, or a safetensors file.
        labels: number of output channels that is expected, for the message only.

    Raises:
        WeightsError: the file is missing or damaged, names or shapes differ, or the file was changed after the
            safetensors file and holds other weights.
    """
    path = Path(path)
    safe = path.with_suffix(".safetensors")
    if not path.is_file() and not safe.is_file():
        raise WeightsError(
            path, "must hold the network's weights", "no such file", "Train first, or give a trained bundle."
        )
    source = safe if safe.is_file() else path
    state = _read(source)
    # Of two files the older one may be left over from before a training; the wrong weights would go unnoticed.
    if source != path and path.is_file() and path.stat().st_mtime > safe.stat().st_mtime:
        newer = _read(path)
        if newer.keys() != state.keys() or any(not torch.equal(state[name], newer[name]) for name in state):
            raise WeightsError(
                path,
                f"it is newer than {safe.name} beside it and holds other weights",
                fix="Remove the one that is out of date.",
            )
    _compare(network.state_dict(), state, source, labels)
    network.load_state_dict(state)
    return network


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise WeightsError(path, "must be a whole file of weights", str(error).splitlines()[0]) from error
    state = content.get("network", content) if isinstance(content, dict) else content
    if not isinstance(state, dict):
        raise WeightsError(path, "must hold a state_dict", type(state).__name__)
    return state


def _compare(own: dict[str, Any], given: dict[str, Any], path: Path, labels: int | None) -> None:
    differing = [name for name in own if name in given and own[name].shape != given[name].shape]
    missing, extra = [name for name in own if name not in given], [name for name in given if name not in own]
    if missing or extra:
        raise WeightsError(
            path,
            "must belong to this network",
            f"{len(missing)} tensors missing ({', '.join(missing[:2])}), {len(extra)} unknown ({', '.join(extra[:2])})",
            "Use the network they were trained with.",
        )
    if differing:
        name = differing[-1]
        wanted, came = tuple(own[name].shape), tuple(given[name].shape)
        classes = f" for {labels} output channels" if labels is not None else ""
        raise WeightsError(
            path,
            f"must fit the network{classes}: {name} has shape {wanted}",
            f"shape {came}",
            "The number of classes or features differs: use the label map and the network they were trained with.",
        )
