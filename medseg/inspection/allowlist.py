"""The callables that a bundle may name without `--trust`: a table that `scripts/allowlist.py` writes."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

EVERY_CALLABLE = "*"


@functools.cache
def _table() -> dict[str, Any]:
    return dict(json.loads(files("medseg.inspection").joinpath("allowlist.json").read_text(encoding="utf-8")))


@functools.cache
def importable_modules() -> frozenset[str]:
    """Return the modules that `$import` may name."""
    return frozenset(_table()["modules"])


@functools.cache
def pickle_globals() -> frozenset[str]:
    """Return what torch's `weights_only` reader takes in a file by itself."""
    return frozenset(_table()["pickles"])


@functools.cache
def torchscript_operators() -> frozenset[str]:
    """Return the operators of torch that a TorchScript program may name."""
    return frozenset(_table()["operators"])


@functools.cache
def spellings() -> Mapping[str, str]:
    """Return every spelling of every callable on the list, with its canonical name."""
    names = {}
    for name, others in _table()["callables"].items():
        names.update(dict.fromkeys([name, *others], name))
    return names


def argument_rules() -> Mapping[str, Mapping[str, str]]:
    """Return the kind of each argument that has a rule, by callable; see `medseg.inspection.rules`."""
    rules: Mapping[str, Mapping[str, str]] = _table()["rules"]
    return rules


def positional_arguments() -> Mapping[str, Sequence[str]]:
    """Return the names of the positional arguments of callables that have rules and may be called in expressions."""
    names: Mapping[str, Sequence[str]] = _table()["positional"]
    return names


def canonical_name(name: str) -> str | None:
    """Return the one name that a callable has here, in whatever spelling; None if it is not on the list.

    Example:
        >>> canonical_name("LoadImageD"), canonical_name("torch.hub.load")
        ('monai.transforms.LoadImaged', None)
    """
    return spellings().get(name)
