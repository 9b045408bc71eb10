"""The network's part of a training step."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import SimpleInferer

from medseg.errors import ConfigError

PRECISIONS = ("auto", "fp32", "bf16")


def has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX)."""
    return any(
        bool(getattr(torch.cpu, f"_is_{name}_supported", lambda: False)()) for name in ("avx512_bf16", "amx_tile")
    )


class PrecisionInferer(SimpleInferer):  # type: ignore[misc]
    """Run the network on the CPU in bfloat16 where that is faster, weights and loss staying float32.

    Not MONAI's `amp`: that is for CUDA alone and does nothing on a CPU. On a GPU this one changes nothing.

    Args:
        precision: `auto` (bfloat16 on a CPU that has it in hardware), `bf16` or `fp32`.

    Raises:
        ConfigError: another precision.
    """

    def __init__(self, precision: str = "auto") -> None:
        super().__init__()
        if precision not in PRECISIONS:
            raise ConfigError("precision", f"must be one of {', '.join(PRECISIONS)}", f"'{precision}'")
        self.bf16 = precision == "bf16" or (precision == "auto" and has_bf16())

    def __call__(self, inputs: torch.Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the network says, in the precision it was computed in."""
        lower = self.bf16 and inputs.device.type == "cpu"
        with torch.autocast("cpu", torch.bfloat16) if lower else contextlib.nullcontext():
            return super().__call__(inputs, network, *args, **kwargs)
