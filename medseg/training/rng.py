"""The state of this process's chance: Python's, numpy's, torch's, and CUDA's where it is there."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch


def rng_state() -> dict[str, Any]:
    """Where all generators are, as tensors and numbers, so that `torch.load(weights_only=True)` reads it.

    >>> state = rng_state()
    >>> first = torch.rand(1)
    >>> set_rng_state(state)
    >>> bool(first == torch.rand(1))
    True
    """
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002  (others draw from it)
    state: dict[str, Any] = {
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put all generators where `rng_state` found them; a GPU that is not here any more is passed over."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for number, one in enumerate(state.get("cuda", ())[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(one, number)


@contextlib.contextmanager
def rng_kept() -> Iterator[None]:
    """Let what happens inside draw as it likes: afterwards all generators are where they were."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)
