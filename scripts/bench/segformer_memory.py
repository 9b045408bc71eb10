"""What training SegFormer holds in a GPU's memory, counted from the shapes of tensors: an estimate, made without a GPU.

    python scripts/bench/segformer_memory.py [VARIANT] [BATCH] [SIZE]

One step runs on the CPU under autocast to bfloat16, which has the size of float16. Everything that is computed is
followed while it lives, by its storage: what the backward pass keeps, what is under way, gradients, AdamW's two states.
The peak is the largest sum at any time. Beside it a GPU holds what no tensor shows: CUDA's context, the workspaces of
cuDNN and cuBLAS, and what the allocator keeps in pieces. Attention is counted as the CPU computes it, which keeps no
table of all pairs; nor does a GPU with flash or memory-efficient attention.
"""

from __future__ import annotations

import json
import sys
import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from medseg.losses import DiceCELoss
from medseg.networks import SegFormer

CLASSES = 4


class Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of all storages that operations made and that still live, and the most there ever were."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.known: set[int] = set()

    def follow(self, value: Any) -> None:
        """Count the storage of a tensor, once, until it is freed."""
        if not isinstance(value, torch.Tensor):
            return
        storage = value.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.freed, key, size)

    def freed(self, key: int, size: int) -> None:
        """Take a storage out again."""
        self.known.discard(key)
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and follow what it gives."""
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            self.follow(value)
        return result


def count(variant: str, batch: int, size: int, checkpointing: bool = False) -> dict[str, Any]:
    """MB at the peak of the second step, when AdamW has its states, and of the network itself."""
    torch.manual_seed(0)
    network = SegFormer(3, CLASSES, variant, gradient_checkpointing=checkpointing)
    criterion = DiceCELoss(include_background=False, batch=True)
    optimizer = torch.optim.AdamW(network.parameters(), 3e-4, weight_decay=1e-4)
    peaks = []
    with Living() as living:
        for value in [*network.parameters(), *network.buffers()]:
            living.follow(value)
        weights = living.now
        for _ in range(2):
            living.peak = living.now
            image = torch.rand(batch, 3, size, size)
            labels = torch.randint(0, CLASSES, (batch, 1, size, size))
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(image)
            forward = living.now
            criterion(logits, labels).backward()
            optimizer.step()
            del image, labels, logits
            peaks.append((forward, living.peak))
    forward, peak = peaks[-1]
    return {
        "variant": variant,
        "batch": batch,
        "size": size,
        "gradient_checkpointing": checkpointing,
        "weights_mb": round(weights / 1e6),
        "after_forward_mb": round(forward / 1e6),
        "peak_mb": round(peak / 1e6),
    }


if __name__ == "__main__":
    given = sys.argv[1:]
    which, of, pixels = (given + ["b0", "6", "288"][len(given) :])[:3]
    for again in (False, True):
        print(json.dumps(count(which, int(of), int(pixels), again)), flush=True)
