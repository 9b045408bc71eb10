"""`medseg info`: what is installed, what a bundle or a run is; without importing torch."""

from __future__ import annotations

import importlib.util
import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

import medseg
from medseg.config.merge import read_config
from medseg.config.paths import at
from medseg.errors import command_line, printable
from medseg.runs.find import find_bundle
from medseg.runs.record import RECORD
from medseg.search_path import METADATA, bundles, overlays

PACKAGES = ("torch", "monai", "pytorch-ignite", "numpy", "nibabel")
EXTRAS = {
    "monitor": ("wandb", "trackio", "pynvml"),
    "share": ("fsspec", "huggingface_hub", "jsonschema"),
    "store": ("blosc2",),
    "segformer": ("transformers",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "fast": ("numba",),
    "zoo": ("skimage", "einops"),
}
_SHOWN = 12


@click.command(short_help="Show what is installed, or what a bundle or a run is.")
@click.argument("name", required=False, metavar="[BUNDLE|RUN]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str | None, as_json: bool) -> None:
    """Show what is installed, or what a bundle or a run is.

    Nothing of the bundle is executed. Without a name: medseg, its packages and extras, and the bundles at hand.

    \b
    medseg info
    medseg info unet2d --json
    """
    content = installation() if name is None else describe(name)
    if as_json:
        click.echo(json.dumps(content, indent=2, ensure_ascii=False, default=str))
        return
    if "run" in content:
        content = {**content, "run": _run_as_text(content["run"])}
    width = max(len(key) for key in content)
    for key, value in content.items():
        click.echo(f"{key:{width}}  {_as_text(value)}")


def _run_as_text(run: dict[str, Any]) -> str:
    text = f"{run['state']}, epoch {run['epoch']} of {run['max_epochs']}"
    if run["best_dice"] is not None:
        text += f", best Dice {run['best_dice']:.3f} in epoch {run['best_epoch']}"
    return f"{text}; see {command_line('runs', 'show', run['name'])}"


def installation() -> dict[str, Any]:
    """Return the versions, the extras (true where all of their packages are installed) and the bundles at hand."""
    return {
        "medseg": medseg.__version__,
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in PACKAGES},
        "extras": {extra: all(map(importlib.util.find_spec, modules)) for extra, modules in EXTRAS.items()},
        "bundles": sorted(bundles()),
        "overlays": sorted(overlays()),
    }


def describe(name: str) -> dict[str, Any]:
    """Return what the metadata of a bundle says and, of a run, how far it is.

    Args:
        name: the path or the name of a bundle, the path or the name of a run.

    Raises:
        ConfigError: no bundle and no run has that name.
    """
    root = find_bundle(name)
    metadata = read_config(root / METADATA)
    image = tensor(metadata, "inputs")
    content = {
        "name": metadata.get("name", root.name),
        "version": metadata.get("version"),
        "folder": str(root.resolve()),
        "task": metadata.get("task"),
        "modality": image.get("modality"),
        "channels": image.get("num_channels"),
        "structures": [name for index, name in channels_of(metadata).items() if index != "0"],
        "configs": sorted(path.stem for path in (root / "configs").glob("*.json") if path.stem != "metadata"),
        "weights": sorted(path.name for path in (root / "models").glob("model.*")),
        "license": next((path.name for path in root.glob("LICENSE*")), None),
        "intended_use": metadata.get("intended_use"),
    }
    if (root / RECORD).is_file():
        from medseg.runs import Run

        content["run"] = Run(root).summary()
    return content


def tensor(metadata: Mapping[str, Any], side: str) -> Mapping[str, Any]:
    """Return what the metadata say of the first of the `inputs` or `outputs`; empty where they say nothing."""
    tensors = at(metadata, f"network_data_format#{side}")
    first = next(iter(tensors.values()), None) if isinstance(tensors, Mapping) else None
    return first if isinstance(first, Mapping) else {}


def channels_of(metadata: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the names of the output's classes by their index, the background included."""
    channels = tensor(metadata, "outputs").get("channel_def")
    return channels if isinstance(channels, Mapping) else {}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_as_text(part)}" for key, part in value.items())
    if isinstance(value, list):
        more = f" and {len(value) - _SHOWN} more" if len(value) > _SHOWN else ""
        return ", ".join(_as_text(part) for part in value[:_SHOWN]) + more or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else printable(str(value))
