"""What the numbers of a label map mean: names, colours, left and right."""

from __future__ import annotations

import colorsys
import functools
import importlib.resources
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.atomic import write_json
from medseg.errors import LabelError, did_you_mean

BACKGROUND = "background"


@functools.cache
def catalogue() -> tuple[Mapping[str, Any], ...]:
    """The 117 structures of TotalSegmentator v2, in its order.

    Each holds `index` (1 to 117), `name`, `group` and `volume_ml`, a rounded volume in an adult that serves
    for nothing but the order in which overlapping masks are painted. Names and indices: Wasserthal et al.,
    TotalSegmentator, Radiology: Artificial Intelligence 2023, class map of version 2.
    """
    text = importlib.resources.files("medseg").joinpath("structures.json").read_text(encoding="utf-8")
    return tuple(json.loads(text))


@functools.cache
def catalogue_v1() -> tuple[Mapping[str, Any], ...]:
    """The 104 structures of TotalSegmentator v1, in its order.

    97 of them are structures of v2 under the same name. The other seven (`only_v1`) are no structure of v2 and
    stay what they are: v2 has one `heart` for five chambers and muscle, no `pulmonary_artery` and no `face`.
    """
    text = importlib.resources.files("medseg").joinpath("structures_v1.json").read_text(encoding="utf-8")
    return tuple(json.loads(text))


def only_v1() -> dict[str, float]:
    """The structures of v1 that v2 does not have, each with a rounded volume in an adult, ml.

    >>> sorted(only_v1())[:2], len(only_v1())
    (['face', 'heart_atrium_left'], 7)
    """
    return {entry["name"]: float(entry["volume_ml"]) for entry in catalogue_v1() if "volume_ml" in entry}


def groups() -> dict[str, tuple[str, ...]]:
    """The named groups of structures, each with its members in order; `all` holds every one.

    >>> len(groups()["organs"]), len(groups()["all"])
    (24, 117)
    """
    found: dict[str, list[str]] = {"all": []}
    for entry in catalogue():
        found["all"].append(entry["name"])
        found.setdefault(entry["group"], []).append(entry["name"])
    return {name: tuple(members) for name, members in found.items()}


def twin_name(name: str) -> str | None:
    """The name of the same structure on the other side, or None for one that has no side.

    >>> twin_name("rib_left_3"), twin_name("kidney_right"), twin_name("liver")
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


class LabelMap:
    """Index to name and back; index 0 is the background and is never named by the caller.

    Args:
        names: the structures, in the order of their indices from 1 on.

    Raises:
        LabelError: no name, an empty name, one that cannot be the name of a file, one name twice, or `background`
            among them.

    >>> labels = LabelMap(["liver", "kidney_left", "kidney_right"])
    >>> len(labels), labels.index("kidney_right"), labels.name(1)
    (4, 3, 'liver')
    >>> labels.contralateral(2)
    3
    """

    def __init__(self, names: Sequence[str]) -> None:
        if isinstance(names, str) or not all(isinstance(name, str) and name.strip() for name in names):
            raise LabelError("A label map", "needs a list of structure names", repr(names))
        if not names:
            raise LabelError("A label map", "needs at least one structure", "none")
        odd = [name for name in names if name.startswith(".") or not name.isprintable() or set(name) & set("/\\")]
        if odd:
            rule = "must hold names that can be names of files, without / and \\ and not beginning with a dot"
            raise LabelError("A label map", rule, repr(odd[0]), "Rename it where the classes are named.")
        twice = sorted({name for name in names if list(names).count(name) > 1})
        if twice:
            raise LabelError("A label map", "must hold every name once", f"{', '.join(twice)} more than once")
        if BACKGROUND in names:
            raise LabelError(
                "A label map", f"has '{BACKGROUND}' as index 0 by itself", "it among the names", "Remove it."
            )
        self.names: tuple[str, ...] = (BACKGROUND, *names)
        self._index = {name: index for index, name in enumerate(self.names)}

    @classmethod
    def totalsegmentator(cls, structures: str | Sequence[str] = "all") -> LabelMap:
        """The structures of TotalSegmentator v2 that are named, in its order; those that only v1 has come last.

        Args:
            structures: a structure, a group (`all`, `organs`, `vertebrae`, `cardiovascular`,
                `muscles_and_bones`, `ribs`), or a list of either. No group holds a structure that only v1 has.

        Raises:
            LabelError: a name that is neither; names the nearest.

        >>> LabelMap.totalsegmentator(["ribs", "liver"]).names[:3]
        ('background', 'liver', 'rib_left_1')
        """
        known = groups()
        singles = [*known["all"], *only_v1()]
        wanted: set[str] = set()
        for entry in [structures] if isinstance(structures, str) else structures:
            if entry in known:
                wanted.update(known[entry])
            elif entry in singles:
                wanted.add(entry)
            else:
                fix = did_you_mean(str(entry), [*known, *singles], f"The groups are {', '.join(known)}.")
                raise LabelError(
                    f"structure '{entry}'", "must be a structure of TotalSegmentator v2 or a group", "neither", fix
                )
        return cls([name for name in singles if name in wanted])

    @classmethod
    def from_dict(cls, content: Mapping[str, str], source: object = "label map") -> LabelMap:
        """A label map from `{"0": "background", "1": "spleen", ...}`, the form of `label_map.json`.

        Raises:
            LabelError: indices that do not run from 0 without a gap, or 0 that is not the background.
        """
        try:
            byindex = {int(index): name for index, name in content.items()}
        except (ValueError, AttributeError) as error:
            raise LabelError(source, "must map indices to names", repr(content)[:80]) from error
        if sorted(byindex) != list(range(len(byindex))) or byindex.get(0) != BACKGROUND:
            raise LabelError(
                source, f"must number its names from 0 ({BACKGROUND}) on, without a gap", f"indices {sorted(byindex)}"
            )
        return cls([byindex[index] for index in range(1, len(byindex))])

    @classmethod
    def load(cls, path: str | Path) -> LabelMap:
        """Read `label_map.json`.

        Raises:
            LabelError: the file is missing, is no JSON or is no label map.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise LabelError(path, "must be a readable JSON file", str(error)) from error
        return cls.from_dict(content, source=path)

    def to_dict(self) -> dict[str, str]:
        """The form of `label_map.json`."""
        return {str(index): name for index, name in enumerate(self.names)}

    def save(self, path: str | Path) -> None:
        """Write `label_map.json`, whole or not at all."""
        write_json(path, self.to_dict())

    def __len__(self) -> int:
        """The number of classes, background included."""
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        """The structures, background left out."""
        return iter(self.names[1:])

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelMap) and self.names == other.names

    def __hash__(self) -> int:
        return hash(self.names)

    def __repr__(self) -> str:
        printable = ", ".join(self.names[1:4]) + (", ..." if len(self) > 4 else "")
        return f"LabelMap({len(self) - 1} structures: {printable})"

    @property
    def structures(self) -> tuple[str, ...]:
        """The names without the background."""
        return self.names[1:]

    def index(self, name: str) -> int:
        """The index of a structure.

        Raises:
            LabelError: the map does not hold it; names the nearest.
        """
        try:
            return self._index[name]
        except KeyError:
            raise LabelError(
                f"structure '{name}'",
                f"must be one of the {len(self) - 1} in the label map",
                "none of that name",
                did_you_mean(name, self.names),
            ) from None

    def select(self, names: Sequence[str]) -> tuple[str, ...]:
        """The structures that are meant by names and groups, in the map's order.

        Of a group the members that the map holds are meant; see `groups`.

        Raises:
            LabelError: a name that is neither, or a group of which the map holds nothing; names the nearest.

        >>> LabelMap(["liver", "rib_left_1", "rib_left_2"]).select(["ribs"])
        ('rib_left_1', 'rib_left_2')
        """
        known = {group: [name for name in members if name in self] for group, members in groups().items()}
        known["all"] = list(self.structures)
        wanted: set[str] = set()
        for entry in names:
            members = [entry] if entry in self.structures else known.get(entry, [])
            if not members:
                usable = [group for group, held in known.items() if held]
                fix = did_you_mean(entry, [*self.structures, *usable], f"The groups in it are {', '.join(usable)}.")
                rule = f"must be one of the {len(self) - 1} structures in the label map, or a group of them"
                raise LabelError(f"structure '{entry}'", rule, "neither", fix)
            wanted.update(members)
        return tuple(name for name in self if name in wanted)

    def name(self, index: int) -> str:
        """The name of an index.

        Raises:
            LabelError: the map has no such index.
        """
        if not 0 <= index < len(self):
            raise LabelError(f"label {index}", f"must lie between 0 and {len(self) - 1}", str(index))
        return self.names[index]

    def contralateral(self, index: int) -> int | None:
        """The index of the same structure on the other side; None where there is none in the map."""
        other = twin_name(self.name(index))
        return self._index.get(other) if other is not None else None

    def mirror_permutation(self, background: bool = True) -> list[int]:
        """For each channel the one of the same structure on the other side, its own where it has no side.

        Args:
            background: whether channel 0 is the background; else it is the first structure.

        Raises:
            LabelError: a paired structure lacks its contralateral in the map: in a mirror, one passes for the
                other.

        >>> LabelMap(["kidney_left", "liver", "kidney_right"]).mirror_permutation()
        [0, 3, 2, 1]
        """
        known = {entry["name"] for entry in catalogue()} | set(only_v1())
        found = [] if not background else [0]
        for name in self.structures:
            other = self.contralateral(self.index(name))
            if other is None and twin_name(name) in known:
                raise LabelError(
                    f"'{name}'",
                    f"needs '{twin_name(name)}' beside it, for in a mirror one passes for the other",
                    "a label map without it",
                    "Do not flip left and right (axis 0), or learn both.",
                )
            found.append((self.index(name) if other is None else other) - (not background))
        return found

    def colour(self, index: int) -> tuple[int, int, int]:
        """A colour for the index, 0 to 255 each; neighbours differ, and the background is black.

        The hue walks round the circle by the golden angle, so that any number of classes stays apart.
        """
        self.name(index)
        if index == 0:
            return (0, 0, 0)
        hue = (index * 0.6180339887498949) % 1.0
        value = (1.0, 0.8, 0.92)[index % 3]
        saturation = (0.85, 0.6, 0.72)[(index // 3) % 3]
        red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
        return (round(red * 255), round(green * 255), round(blue * 255))

    def overlap_priority(self, precedence: Sequence[str] = ()) -> tuple[str, ...]:
        """The structures in the order in which overlapping masks are painted: large first, so the small one stays.

        The volumes are those of `catalogue` and `only_v1`; structures they do not know come last, in the map's order.

        Args:
            precedence: structures that win over all others, the first over the second.

        >>> LabelMap(["kidney_cyst_left", "kidney_left"]).overlap_priority()
        ('kidney_left', 'kidney_cyst_left')
        >>> LabelMap(["kidney_cyst_left", "kidney_left"]).overlap_priority(["kidney_left"])
        ('kidney_cyst_left', 'kidney_left')
        """
        volumes = {entry["name"]: float(entry["volume_ml"]) for entry in catalogue()} | only_v1()
        first = [name for name in precedence if name in self._index]
        rest = [name for name in self.structures if name not in first]
        return (*sorted(rest, key=lambda name: -volumes.get(name, 0.0)), *reversed(first))
