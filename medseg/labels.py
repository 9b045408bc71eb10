"""Map label indices to names and back; groups, colors, left and right."""

from __future__ import annotations

import colorsys
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from medseg.atomic import write_json
from medseg.catalogue import contralateral_name, expand_names, groups, split_names, structure_names, typical_volumes
from medseg.errors import LabelError, did_you_mean

BACKGROUND = "background"


class LabelMap:
    """Map label indices to structure names and back; index 0 is the background and is never named by the caller.

    Args:
        names: the structures, in the order of their indices from 1 on.
        values: of label maps on disk, one for each index, if they have gaps; see `medseg.data.masks.label_values`.

    Raises:
        LabelError: there is no name; a name is empty, repeated, `background`, or cannot be the name of a file.

    Example:
        >>> labels = LabelMap(["liver", "kidney_left", "kidney_right"])
        >>> len(labels), labels.index("kidney_right"), labels.name(1)
        (4, 3, 'liver')
        >>> labels.contralateral(2)
        3
    """

    def __init__(self, names: Sequence[str], values: Sequence[int] | None = None) -> None:
        if isinstance(names, str) or not all(isinstance(name, str) and name.strip() for name in names):
            raise LabelError("label map", "a list of structure names is needed", f"got {names!r}")
        if not names:
            raise LabelError("label map", "at least one structure is needed")
        for name in names:
            if name.startswith(".") or not name.isprintable() or set(name) & set("/\\"):
                problem = "a structure's name must be usable as the name of a file, without / and \\ and a leading dot"
                raise LabelError("label map", problem, f"got {name!r}", "Rename it where the classes are named.")
        repeated = sorted(name for name, count in Counter(names).items() if count > 1)
        if repeated:
            raise LabelError("label map", f"every name must be unique, but {', '.join(repeated)} is repeated")
        if BACKGROUND in names:
            problem = f"'{BACKGROUND}' is index 0 of every label map and must not be among the names"
            raise LabelError("label map", problem, "", "Remove it.")
        self.names: tuple[str, ...] = (BACKGROUND, *names)
        self.values = tuple(range(len(self.names))) if values is None else tuple(values)
        self._index = {name: index for index, name in enumerate(self.names)}
        self._colors: dict[str, tuple[int, int, int]] = {}

    @classmethod
    def totalsegmentator(cls, structures: str | Sequence[str] = "all") -> LabelMap:
        """Number structures of TotalSegmentator v2 in its order; those that only v1 has come last.

        Args:
            structures: a structure, a group (`all`, `organs`, `vertebrae`, `cardiovascular`,
                `muscles_and_bones`, `ribs`), or a list of either. No group holds a structure that only v1 has.

        Raises:
            LabelError: a name that is neither; names the nearest.

        Example:
            >>> LabelMap.totalsegmentator(["ribs", "liver"]).names[:3]
            ('background', 'liver', 'rib_left_1')
        """
        names = split_names(structures, structure_names())
        members = {member for name in names for member in groups().get(name, (name,))}
        chosen = expand_names(sorted(members), structure_names(), "TotalSegmentator")
        return cls([name for name in structure_names() if name in chosen])

    @classmethod
    def from_dict(cls, content: Mapping[str, str], source: object = "label map", gaps: bool = False) -> LabelMap:
        """Make a label map from `{"0": "background", "1": "spleen", ...}`, the form of `label_map.json`.

        Args:
            content: names by value.
            source: the name in errors.
            gaps: whether values may be left out, as in label maps of others; indices have no gaps then either.

        Raises:
            LabelError: the values do not run from 0 without a gap, or 0 is not the background.
        """
        try:
            name_of = {int(index): name for index, name in content.items()}
        except (ValueError, AttributeError) as error:
            raise LabelError(source, "it does not map indices to names", repr(content)[:80]) from error
        values = sorted(name_of)
        if values[:1] != [0] or name_of[0] != BACKGROUND or not (gaps or values == list(range(len(values)))):
            problem = f"the values must run from 0 ({BACKGROUND})" + ("" if gaps else " without a gap")
            raise LabelError(source, problem, f"got {values}")
        return cls([name_of[value] for value in values[1:]], values)

    @classmethod
    def load(cls, path: str | Path, gaps: bool = False) -> LabelMap:
        """Read `label_map.json`, see `from_dict`.

        Raises:
            LabelError: the file is missing, is no JSON or is no label map.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise LabelError(path, "the label map cannot be read as JSON", str(error)) from error
        return cls.from_dict(content, path, gaps)

    def to_dict(self) -> dict[str, str]:
        """Return the form of `label_map.json`."""
        return {str(value): name for value, name in zip(self.values, self.names, strict=True)}

    def save(self, path: str | Path) -> None:
        """Write `label_map.json`, complete or not at all."""
        write_json(path, self.to_dict())

    def __len__(self) -> int:
        """Return the number of classes, background included."""
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the structures, without the background."""
        return iter(self.names[1:])

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def __eq__(self, value: object) -> bool:
        return isinstance(value, LabelMap) and self.to_dict() == value.to_dict()

    def __hash__(self) -> int:
        return hash(self.names)

    def __repr__(self) -> str:
        first = ", ".join(self.names[1:4]) + (", ..." if len(self) > 4 else "")
        return f"LabelMap({len(self) - 1} structures: {first})"

    @property
    def structures(self) -> tuple[str, ...]:
        """Return the names without the background."""
        return self.names[1:]

    def index(self, name: str) -> int:
        """Return the index of a structure.

        Raises:
            LabelError: the label map does not hold it; names the nearest.
        """
        try:
            return self._index[name]
        except KeyError:
            problem = f"it is not one of the {len(self) - 1} structures in the label map"
            raise LabelError(f"structure '{name}'", problem, "", did_you_mean(name, self.names)) from None

    def select(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the structures that names and groups stand for, in the label map's order.

        A group stands for those of its members that the label map holds, see `medseg.catalogue.groups`.

        Raises:
            LabelError: a name that is neither, or a group of which the label map holds nothing; names the nearest.

        Example:
            >>> LabelMap(["liver", "rib_left_1", "rib_left_2"]).select(["ribs"])
            ('rib_left_1', 'rib_left_2')
        """
        chosen = expand_names(names, self.structures, "the label map")
        return tuple(name for name in self if name in chosen)

    def name(self, index: int) -> str:
        """Return the name of an index.

        Raises:
            LabelError: the label map has no such index.
        """
        if not 0 <= index < len(self):
            raise LabelError(f"label {index}", f"the labels run from 0 to {len(self) - 1}")
        return self.names[index]

    def num_channels(self, multilabel: bool = False) -> int:
        """Return how many channels a network for these classes has; with `multilabel` none is for the background.

        >>> LabelMap(["liver", "spleen"]).num_channels(), LabelMap(["liver", "spleen"]).num_channels(multilabel=True)
        (3, 2)
        """
        return len(self) - int(multilabel)

    def contralateral(self, index: int) -> int | None:
        """Return the index of the same structure on the other side; None if the label map has none."""
        name = contralateral_name(self.name(index))
        return self._index.get(name) if name is not None else None

    def mirror_permutation(self, background: bool = True) -> list[int]:
        """Return for each channel the one of its contralateral structure, its own if it has no side.

        Args:
            background: whether channel 0 is the background; else it is the first structure.

        Raises:
            LabelError: a paired structure of TotalSegmentator lacks its contralateral: in a mirror, one looks like the
                other.

        Example:
            >>> LabelMap(["kidney_left", "liver", "kidney_right"]).mirror_permutation()
            [0, 3, 2, 1]
        """
        catalogued = structure_names()
        permutation = [0] if background else []
        for name in self.structures:
            mirrored = self.contralateral(self.index(name))
            if mirrored is None and contralateral_name(name) in catalogued:
                problem = (
                    f"'{contralateral_name(name)}' is not in the label map, and in a mirror one looks like the other"
                )
                raise LabelError(f"'{name}'", problem, "", "Do not flip left and right (axis 0), or learn both.")
            permutation.append((self.index(name) if mirrored is None else mirrored) - (not background))
        return permutation

    def with_colors(self, path: str | Path) -> LabelMap:
        """Return the same label map with the colors of a data set's `classes.json`; itself without that file.

        Raises:
            LabelError: the file holds anything else, or not all classes.
        """
        if not Path(path).is_file():
            return self
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            colors = {name: content[name] for name in self.structures} | {
                self.names[0]: content.get(self.names[0], [0, 0, 0])
            }
            valid = all(len(color) == 3 and all(part in range(256) for part in color) for color in colors.values())
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise LabelError(path, "the file must give a color to each class of the network", repr(error)) from error
        if not valid:
            raise LabelError(path, "each class needs three numbers from 0 to 255", repr(colors)[:80])
        colored = LabelMap(self.structures)
        colored._colors = {name: (color[0], color[1], color[2]) for name, color in colors.items()}
        return colored

    def color(self, index: int) -> tuple[int, int, int]:
        """Return a color for the index, 0 to 255 each: see `with_colors`, or one unlike its neighbors'.

        The hue advances by the golden angle, so that any number of classes stays distinguishable.
        """
        if self.name(index) in self._colors:
            return self._colors[self.name(index)]
        if index == 0:
            return (0, 0, 0)
        hue = (index * 0.6180339887498949) % 1.0
        value = (1.0, 0.8, 0.92)[index % 3]
        saturation = (0.85, 0.6, 0.72)[(index // 3) % 3]
        red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
        return (round(red * 255), round(green * 255), round(blue * 255))

    def overlap_priority(self, precedence: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the structures in the order in which overlapping masks are written: large first, so the small stay.

        The volumes are those of `medseg.catalogue.typical_volumes`; structures it does not know come last, in the label
        map's order.

        Args:
            precedence: structures that win over all others, the first over the second.

        Example:
            >>> LabelMap(["kidney_cyst_left", "kidney_left"]).overlap_priority()
            ('kidney_left', 'kidney_cyst_left')
            >>> LabelMap(["kidney_cyst_left", "kidney_left"]).overlap_priority(["kidney_left"])
            ('kidney_cyst_left', 'kidney_left')
        """
        volumes = typical_volumes()
        winners = [name for name in precedence if name in self._index]
        others = [name for name in self.structures if name not in winners]
        return (*sorted(others, key=lambda name: -volumes.get(name, 0.0)), *reversed(winners))
