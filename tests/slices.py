"""A tiny run of segformer2d for the tests of bundles and of the command line, trained once."""

from __future__ import annotations

import json
from pathlib import Path

import torch

TINY = {
    "variant": {
        "depths": [1, 1, 1, 1],
        "hidden_sizes": [8, 8, 8, 8],
        "num_attention_heads": [1, 1, 1, 1],
        "decoder_hidden_size": 8,
    },
    "image_size": [32, 32],
    "max_epochs": 1,
    "batch_size": 4,
    "num_workers": 0,
    "device": "cpu",
    "data#phantom": {"train": 1, "val": 1, "slices": 4, "size": [40, 48], "layout": "split", "seed": 0},
}


def trained_in(base: Path) -> Path:
    """The folder of a run: an epoch of one iteration on the phantom of slices; made in `base` where it is not there."""
    from medseg.bundle import Bundle, run_bundle

    folder = base / "segformer2d-run"
    if not folder.exists():
        run_bundle(Bundle.open("segformer2d"), "training", "train", (), {**TINY, "output_dir": str(folder)})
    (record,) = folder.glob("segformer2d/*/run.json")
    assert json.loads(record.read_text())["state"] == "finished"
    return record.parent


class Levels(torch.nn.Module):
    """A network that tells grey values apart: black, a third, two thirds and white are classes 0 to 3."""

    centres = (0.0, 1 / 3, 2 / 3, 1.0)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        grey = image[:, :1] * 0.229 + 0.485  # as ImageNet's red was standardized
        return torch.cat([-20 * (grey - centre).abs() for centre in self.centres], dim=1)


class Ranges(torch.nn.Module):
    """A network of three structures that overlap: above a quarter, a half and three quarters of white."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        grey = image[:, :1] * 0.229 + 0.485
        return torch.cat([20 * (grey - least) for least in (0.25, 0.5, 0.75)], dim=1)
