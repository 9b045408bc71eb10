"""Write checkpoints whole or not at all, and check them when they are read."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medseg.atomic import atomic_path, move
from medseg.errors import OutputError, WeightsError

logger = logging.getLogger(__name__)

LAST, PREVIOUS, BEST = "last.pt", "previous.pt", "best.pt"
_DAMAGE = (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile)


def write(path: Path, content: Any, previous: Path | None = None) -> None:
    """Write a checkpoint; a kill at any moment leaves the one before, or this one.

    `torch.save` writes a CRC-32 of each record into the file, which `torch.load` does not look at; `read` does. So
    the checksum is never apart from what it is of, and the file stays one that anything can load.

    Args:
        path: its place.
        content: what `torch.load(weights_only=True)` can read, see `plain`.
        previous: where the checkpoint that was at `path` goes.

    Raises:
        OutputError: it cannot be written; what was at `path` stays.
    """
    with atomic_path(path) as partial:
        try:
            with partial.open("wb") as file:
                torch.save(content, file)
        except RuntimeError as error:  # torch's own, around the system's
            reason = str(error.__context__ or error).splitlines()[0]
            raise OutputError(
                path, f"it cannot be written: {reason}", "", "Free space, or choose another folder."
            ) from error
        if previous is not None and path.is_file():
            _keep(path, previous)


def _keep(path: Path, previous: Path) -> None:
    """Give the file at `path` the name `previous` as well; move it where the file system has no hard links."""
    link = previous.with_name(f".{previous.stem}.link.partial{previous.suffix}")
    try:
        link.unlink(missing_ok=True)
        os.link(path, link)
        move(link, previous)
    except OSError:
        with contextlib.suppress(OSError):
            move(path, previous)


def read(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint, on the CPU, after every record was compared with its checksum.

    Raises:
        WeightsError: the file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
        if wrong is not None:
            raise ValueError(f"the checksum of {wrong} is wrong")
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (*_DAMAGE, NotImplementedError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(path, f"the checkpoint is damaged: {reason}", "", "Start a new run with --fresh.") from error


def read_newest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the newest checkpoint that is not damaged: last, previous, or one of those that stay; None without any.

    Raises:
        WeightsError: there are some, and all are damaged.
    """
    stay = sorted(folder.glob("epoch_*.pt"), reverse=True)
    candidates = [path for path in (folder / LAST, folder / PREVIOUS, *stay) if path.is_file()]
    first: WeightsError | None = None
    for path in candidates:
        try:
            content = read(path)
        except WeightsError as error:
            first = first or error
            continue
        if first is not None:
            logger.warning("%s: %s. Resuming from the one before, %s", first.thing, first.problem, path)
        return path, content
    if first is not None:
        raise first
    return None


def epoch_name(epoch: int, scores: Mapping[str, float] | None = None) -> str:
    """Return the name of a checkpoint that stays; sorted by name the latest epoch is last.

    >>> epoch_name(5), epoch_name(5, {"loss": 0.41234, "mean_dice": 0.831})
    ('epoch_0005.pt', 'epoch_0005_loss0.412_dice0.831.pt')
    """
    suffix = "".join(f"_{name.removeprefix('mean_')}{value:.3f}" for name, value in (scores or {}).items())
    return f"epoch_{epoch:04d}{suffix}.pt"


def prune(folder: Path, keep: int | None) -> None:
    """Remove the checkpoints that stay but for the newest `keep`; None removes none."""
    if keep is not None:
        for path in sorted(folder.glob("epoch_*.pt"), reverse=True)[keep:]:
            with contextlib.suppress(OSError):
                path.unlink()


def plain(value: Any, name: str) -> Any:
    """Return `value` made of numbers, strings, tensors, lists and dicts alone, which `weights_only` loading reads.

    Raises:
        TypeError: it holds anything else.

    >>> plain({"best": np.float64(0.5), "shape": (1, 2)}, "history")
    {'best': 0.5, 'shape': [1, 2]}
    """
    if value is None or isinstance(value, (bool, int, str, torch.Tensor)) or type(value) is float:
        return value
    if isinstance(value, (np.generic, float)):
        return value.item() if isinstance(value, np.generic) else float(value)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, Mapping):
        return {plain(key, name): plain(entry, name) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry, name) for entry in value]
    raise TypeError(f"{name}: a state must hold numbers, strings, tensors, lists and dicts, not {type(value).__name__}")


def require_same(path: Path, network: torch.nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Check that weights belong to a network.

    Raises:
        WeightsError: other names or shapes; the first few of them.
    """
    expected = network.state_dict()
    differ = [
        f"'{name}' is {tuple(weights[name].shape)} there and {tuple(expected[name].shape)} here"
        for name in expected
        if name in weights and weights[name].shape != expected[name].shape
    ]
    differ += [f"'{name}' is not there" for name in expected if name not in weights]
    differ += [f"'{name}' is not here" for name in weights if name not in expected]
    if differ:
        more = f" and {len(differ) - 3} more" if len(differ) > 3 else ""
        problem = f"its weights are of another network: {'; '.join(differ[:3])}{more}"
        fix = "Give the network the settings it was trained with, or start a new run with --fresh."
        raise WeightsError(path, problem, "", fix)
