"""The weights of a bundle as they are shared: tensors alone, once as torch writes them and once as safetensors."""

from __future__ import annotations

import io
import pickle
from pathlib import Path

import torch

from medseg.atomic import atomic_path
from medseg.errors import WeightsError

PT, SAFETENSORS = "model.pt", "model.safetensors"


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


def write_state(state: dict[str, torch.Tensor], folder: Path) -> list[Path]:
    """Write weights to `model.pt` and `model.safetensors`; the same weights always give the same bytes.

    `model.pt` keeps the order in memory as well, for another one gives other last digits.

    Raises:
        OutputError: the place cannot be written.
    """
    from safetensors.torch import save

    held = io.BytesIO()
    torch.save(state, held)
    plain = {name: tensor.detach().clone().contiguous() for name, tensor in sorted(state.items())}
    made = [(folder / PT, held.getvalue()), (folder / SAFETENSORS, save(plain))]
    for path, content in made:
        with atomic_path(path) as partial:
            partial.write_bytes(content)
    return [path for path, _ in made]
