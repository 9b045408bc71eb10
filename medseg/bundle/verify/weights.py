"""The weights: every tensor of the network, in its shape, finite; and the same in both files where there are two."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from medseg.bundle.verify.files import WEIGHTS
from medseg.bundle.verify.opened import Opened, cause
from medseg.findings import Finding, error

_WITHIN = ("network", "model", "state_dict", "net")  # where checkpoints keep the network's
_BEST = "checkpoints/best.pt"


def check(bundle: Opened) -> Iterator[Finding]:
    """Findings on the files of weights."""
    states: dict[str, Mapping[str, Any]] = {}
    for name in WEIGHTS:
        path = bundle.root / name
        if not path.is_file():
            continue
        try:
            states[name] = read(path)
        except (OSError, RuntimeError, ValueError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as fault:
            yield error(
                "weights-damaged", name, f"it is no whole file of weights: {cause(fault)[:120]}", "Copy it again."
            )
    for name, state in states.items():
        broken = [key for key, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
        if broken:
            yield error(
                "weights-not-finite",
                name,
                f"{len(broken)} tensors hold NaN or infinity ({', '.join(broken[:2])})",
                "Use weights from before the training went wrong.",
            )
        yield from _fit(bundle, name, state)
    if len(states) == 2:
        first, second = states.values()
        if set(first) != set(second) or any(not torch.equal(first[key], second[key]) for key in first):
            yield error(
                "weights-differ", WEIGHTS[1], f"it holds other weights than {WEIGHTS[0]}", "Keep those that are meant."
            )
    yield from _of_this_run(bundle, states)


def _fit(bundle: Opened, name: str, state: Mapping[str, Any]) -> Iterator[Finding]:
    network = bundle.network
    if not isinstance(network, torch.nn.Module):
        return  # the network's rule says why
    own = network.state_dict()
    missing, extra = [key for key in own if key not in state], [key for key in state if key not in own]
    if missing or extra:
        yield error(
            "weights-fit",
            name,
            f"{len(missing)} tensors of the network are missing ({', '.join(missing[:2]) or 'none'}), "
            f"{len(extra)} are not the network's ({', '.join(extra[:2]) or 'none'})",
            "Use the weights that were trained with this network.",
        )
        return
    other = [key for key in own if own[key].shape != state[key].shape]
    if other:
        key = other[-1]
        yield error(
            "weights-fit",
            name,
            f"{key} has shape {tuple(state[key].shape)}, and the network's has {tuple(own[key].shape)}",
            "Another number of classes or features: use the network they were trained with.",
        )


def _of_this_run(bundle: Opened, states: Mapping[str, Mapping[str, Any]]) -> Iterator[Finding]:
    """A run keeps the same weights in a checkpoint: where they differ, somebody exchanged one of them."""
    if WEIGHTS[0] not in states or not bundle.is_run or not (bundle.root / _BEST).is_file():
        return
    try:
        best = read(bundle.root / _BEST)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, TypeError, pickle.UnpicklingError):
        return
    kept = states[WEIGHTS[0]]
    if set(best) != set(kept) or any(not torch.equal(best[key], kept[key]) for key in best):
        yield error(
            "weights-exchanged",
            WEIGHTS[0],
            f"it holds other weights than {_BEST} of the same run",
            "Take those of the checkpoint, or train again.",
        )


def read(path: Path) -> Mapping[str, Any]:
    """The tensors of a file by their names; nothing in it is executed.

    Raises:
        ValueError: it holds no such tensors.
    """
    if path.suffix == ".safetensors":
        return _safetensors(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    for key in _WITHIN:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(one, torch.Tensor) for one in content.values()):
        raise ValueError("it holds something else than tensors")
    return content


def _safetensors(path: Path) -> Mapping[str, Any]:
    """The format is small: the header's length, the header as JSON, and then the tensors one after the other."""
    import json

    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8 : 8 + length]))
    types = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
             "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}  # fmt: skip
    found = {}
    for name, about in header.items():
        if name == "__metadata__":
            continue
        begin, end = about["data_offsets"]
        dtype = getattr(torch, types[about["dtype"]])
        shape = [int(one) for one in about["shape"]]
        if not 0 <= begin <= end <= len(data) - 8 - length:
            raise ValueError("it is cut short")
        raw = data[8 + length + begin : 8 + length + end]
        found[name] = (torch.frombuffer(raw, dtype=dtype) if raw else torch.empty(0, dtype=dtype)).reshape(shape)
    return found
