"""Weights into a network: all of them, or an error that says what does not fit."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from medseg.errors import WeightsError


def load_weights(network: torch.nn.Module, path: str | Path, labels: int | None = None) -> torch.nn.Module:
    """Load a `state_dict` into `network`, every tensor of it, and give the network back.

    Nothing in the file is executed: it is read with `weights_only`. A checkpoint of a run is accepted as well;
    its network is taken.

    Args:
        network: the network, already built.
        path: a file written by `torch.save`.
        labels: number of output channels that is expected, for the message only.

    Raises:
        WeightsError: the file is missing or damaged, or names or shapes differ.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(
            path, "must hold the network's weights", "no such file", "Train first, or give a trained bundle."
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise WeightsError(path, "must be a whole file of weights", str(error).splitlines()[0]) from error
    state = content.get("network", content) if isinstance(content, dict) else content
    if not isinstance(state, dict):
        raise WeightsError(path, "must hold a state_dict", type(state).__name__)
    _compare(network.state_dict(), state, path, labels)
    network.load_state_dict(state)
    return network


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
