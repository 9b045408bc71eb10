"""List TotalSegmentator's structures: names and indices of two versions, groups, contralaterals, typical volumes."""

from __future__ import annotations

import functools
import importlib.resources
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medseg.errors import LabelError, did_you_mean


@functools.cache
def catalogue() -> tuple[Mapping[str, Any], ...]:
    """Return the 117 structures of TotalSegmentator v2, in its order.

    Each entry holds `index` (1 to 117), `name`, `group` and `volume_ml`, a rounded volume in an adult that is used for
    nothing but the priority of overlapping masks. Names and indices: Wasserthal et al., TotalSegmentator,
    Radiology: Artificial Intelligence 2023, class map of version 2.
    """
    return _read("structures.json")


@functools.cache
def catalogue_v1() -> tuple[Mapping[str, Any], ...]:
    """Return the 104 structures of TotalSegmentator v1, in its order.

    97 of them are structures of v2 under the same name. The other seven (`only_v1`) are no structure of v2 and are
    mapped to nothing: v2 has one `heart` for five chambers and muscle, no `pulmonary_artery` and no `face`.
    """
    return _read("structures_v1.json")


def _read(name: str) -> tuple[Mapping[str, Any], ...]:
    return tuple(json.loads(importlib.resources.files("medseg").joinpath(name).read_text(encoding="utf-8")))


def only_v1() -> dict[str, float]:
    """Return the structures of v1 that v2 does not have, each with a rounded volume in an adult, ml.

    Example:
        >>> sorted(only_v1())[:2], len(only_v1())
        (['face', 'heart_atrium_left'], 7)
    """
    return {entry["name"]: float(entry["volume_ml"]) for entry in catalogue_v1() if "volume_ml" in entry}


def structure_names() -> tuple[str, ...]:
    """Return the names of version 2 in their order, then those that only version 1 has."""
    return (*groups()["all"], *only_v1())


def typical_volumes() -> dict[str, float]:
    """Return a rounded volume in an adult for every structure of `structure_names`, ml."""
    return {entry["name"]: float(entry["volume_ml"]) for entry in catalogue()} | only_v1()


@functools.cache
def groups() -> Mapping[str, tuple[str, ...]]:
    """Return the groups of structures, each with its members in order; `all` holds every structure of v2.

    Example:
        >>> len(groups()["organs"]), len(groups()["all"])
        (24, 117)
    """
    members: dict[str, list[str]] = {"all": []}
    for entry in catalogue():
        members["all"].append(entry["name"])
        members.setdefault(entry["group"], []).append(entry["name"])
    return {group: tuple(names) for group, names in members.items()}


def expand_names(names: str | Iterable[str], available: Sequence[str], source: object) -> set[str]:
    """Return the structures that names and groups stand for; `all` is everything that is available.

    Args:
        names: structures, groups, or `all`.
        available: the structures to choose from; of a group the members among them are taken.
        source: what has these structures, in errors.

    Raises:
        LabelError: a name that is neither, or a group of which nothing is available; names the nearest.

    Example:
        >>> sorted(expand_names(["liver", "ribs"], ["liver", "spleen", "rib_left_1"], "the scan"))
        ['liver', 'rib_left_1']
    """
    members_of = {group: [name for name in members if name in available] for group, members in groups().items()}
    members_of["all"] = list(available)
    chosen: set[str] = set()
    for name in split_names(names, available):
        members = [name] if name in available else members_of.get(name, [])
        if not members:
            usable = [group for group, members in members_of.items() if members]
            listed = ", ".join(available[:8]) + (", ..." if len(available) > 8 else "")
            fix = did_you_mean(str(name), [*available, *usable], f"Choose from {listed}; groups: {', '.join(usable)}.")
            problem = f"{source} has neither a structure nor a group of this name"
            raise LabelError(f"structure '{name}'", problem, "", fix)
        chosen.update(members)
    return chosen


def split_names(names: str | Iterable[str], available: Sequence[str] = ()) -> list[str]:
    """Return names singly: what is none of those available is taken apart at its commas.

    Example:
        >>> split_names("liver, spleen"), split_names(["organs", "cyst,left"], ["cyst,left"])
        (['liver', 'spleen'], ['organs', 'cyst,left'])
    """
    parts: list[str] = []
    for name in [names] if isinstance(names, str) else names:
        is_list = isinstance(name, str) and "," in name and name not in available
        parts += [part.strip() for part in name.split(",") if part.strip()] if is_list else [name]
    return parts


def contralateral_name(name: str) -> str | None:
    """Return the name of the same structure on the other side, or None if it has no side.

    Example:
        >>> contralateral_name("rib_left_3"), contralateral_name("kidney_right"), contralateral_name("liver")
        ('rib_right_3', 'kidney_left', None)
    """
    parts = name.split("_")
    if "left" in parts:
        parts[parts.index("left")] = "right"
    elif "right" in parts:
        parts[parts.index("right")] = "left"
    else:
        return None
    return "_".join(parts)


def version(names: Iterable[str]) -> int:
    """Return the version of the class map that names come from: 1 if all exist there and some exist only there.

    Example:
        >>> version(["liver", "heart_atrium_left"]), version(["liver"]), version(["liver", "heart", "face"])
        (1, 2, 2)
    """
    unique = set(names)
    return 1 if unique & set(only_v1()) and unique <= {entry["name"] for entry in catalogue_v1()} else 2


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sort names as their class map does; a mixture in the order of version 2, then those that only 1 has."""
    unique = set(names)
    if version(unique) == 1:
        return tuple(entry["name"] for entry in catalogue_v1() if entry["name"] in unique)
    return tuple(name for name in structure_names() if name in unique)
