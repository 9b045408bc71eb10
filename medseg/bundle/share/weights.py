"""The weights of a bundle as they are shared: tensors alone, once as torch writes them and once as safetensors."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from medseg.atomic import atomic_path
from medseg.errors import WeightsError

PT, SAFETENSORS = "model.pt", "model.safetensors"
_KINDS = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
          torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL"}  # fmt: skip


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The `state_dict` in a file of weights; of a checkpoint the network's.

    Nothing in the file is executed: it is read with `weights_only`.

    Raises:
        WeightsError: no such file, a damaged one, or one that holds something else than tensors by name.
    """
    if not path.is_file():
        raise WeightsError(path, "must hold the network's weights", "no such file", "Train it first, or pack a run.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(path, "must be a whole file of weights", first) from error
    state = content.get("network", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(one, torch.Tensor) for one in state.values()):
        raise WeightsError(path, "must hold a state_dict", type(state).__name__)
    return {str(name): tensor for name, tensor in state.items()}


def safetensors(state: Mapping[str, torch.Tensor]) -> bytes:
    """Tensors by name in the format of that name: the length of a header, the header as JSON, then tensor by tensor.

    Larger kinds of numbers come first, so that each tensor lies at a multiple of its numbers' size.
    Format: https://github.com/huggingface/safetensors

    Raises:
        WeightsError: numbers of a kind that the format does not have.
    """
    header: dict[str, Any] = {}
    pieces: list[bytes] = []
    position = 0
    for name, tensor in sorted(state.items(), key=lambda one: (-one[1].element_size(), one[0])):
        if tensor.dtype not in _KINDS:
            raise WeightsError(f"tensor {name}", f"must hold one of {', '.join(_KINDS.values())}", str(tensor.dtype))
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        content = plain.view(torch.uint8).numpy().tobytes() if plain.numel() else b""
        location = [position, position + len(content)]
        header[name] = {"dtype": _KINDS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": location}
        pieces.append(content)
        position += len(content)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *pieces])


def write_state(state: dict[str, torch.Tensor], folder: Path) -> list[Path]:
    """Write weights to `model.pt` and `model.safetensors`; the same weights always give the same bytes.

    `model.pt` keeps the order in memory as well, for another one gives other last digits.

    Raises:
        OutputError: the place cannot be written.
    """
    held = io.BytesIO()
    torch.save(state, held)
    made = [(folder / PT, held.getvalue()), (folder / SAFETENSORS, safetensors(state))]
    for path, content in made:
        with atomic_path(path) as partial:
            partial.write_bytes(content)
    return [path for path, _ in made]
