"""The exact callables that a bundle may name: a table, made by `scripts/known_callables.py`."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any


@functools.cache
def _table() -> dict[str, Any]:
    return dict(json.loads(files("medseg.inspection").joinpath("known.json").read_text(encoding="utf-8")))


@functools.cache
def modules() -> frozenset[str]:
    """What `$import` may name."""
    return frozenset(_table()["modules"])


@functools.cache
def spellings() -> Mapping[str, str]:
    """Every spelling of a known callable, and the name that it has here."""
    found = {}
    for name, others in _table()["callables"].items():
        found.update(dict.fromkeys([name, *others], name))
    return found


@functools.cache
def pickled() -> frozenset[str]:
    """What torch's `weights_only` reader takes in a file without being told so."""
    return frozenset(_table()["pickles"])


def known(name: str) -> str | None:
    """The name that a known callable has here, whatever it is called; None where it is not known.

    >>> known("LoadImageD"), known("monai.transforms.LoadImaged"), known("torch.hub.load")
    ('monai.transforms.LoadImaged', 'monai.transforms.LoadImaged', None)
    """
    return spellings().get(name)
