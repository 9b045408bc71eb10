"""Load weights into a network: all of them, or none with an error that names what does not fit."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from medseg.errors import WeightsError, first_line


def load_weights(network: torch.nn.Module, path: str | Path, labels: int | None = None) -> torch.nn.Module:
    """Load every tensor of a `state_dict` into `network`, and return the network.

    Nothing in the file is executed: it is read with `weights_only`. Of a run's checkpoint the network's part is read.
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
    _require_fit(network.state_dict(), state, source, labels)
    network.load_state_dict(state)
    return network


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".safetensors":
            return dict(safetensors.torch.load_file(path))
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError, SafetensorError) as error:
        raise WeightsError(path, "the weights cannot be read", first_line(error)) from error
    state = content.get("network", content) if isinstance(content, dict) else content
    if not isinstance(state, dict):
        raise WeightsError(path, "must hold a state_dict", f"got {type(state).__name__}")
    return state


def _require_fit(expected: dict[str, Any], state: dict[str, Any], path: Path, labels: int | None) -> None:
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    if missing or unknown:
        lacks = f"{len(missing)} tensors are missing ({', '.join(missing[:2])})"
        raise WeightsError(
            path,
            f"holds the weights of another network: {lacks}, {len(unknown)} are unknown ({', '.join(unknown[:2])})",
            fix="Use the network they were trained with.",
        )
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
