"""Choose the classes of a network from its data set, and refuse labels that it would be taught as background."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path

from medseg.cases import DatasetIndex
from medseg.catalogue import expand_names, groups, split_names, structure_names
from medseg.data.layouts import collect, discover
from medseg.data.slice_phantom import STRUCTURES
from medseg.errors import ConfigError, LabelError, command_line, quoted
from medseg.findings import names_of
from medseg.labels import LabelMap

logger = logging.getLogger(__name__)

_LISTED = 8


def choose_labels(
    root: str | Path | None,
    structures: str | Sequence[str] | None = None,
    trained: str | Path | None = None,
    slices: bool = False,
) -> LabelMap:
    """Return the classes of a network: those of its data set, those that were named, or those it was trained with.

    If the set has all of them they keep its order, so that its label maps serve as they are; else they have
    TotalSegmentator's.

    Args:
        root: the data set; None for the phantom that comes with medseg.
        structures: names of structures and groups; None for what the set has; `all` for TotalSegmentator's 117
            (of slices: for what the set has).
        trained: the label map of the network (`label_map.json` in the folder of a run); if that file exists, it
            defines the classes, and nothing else is read.
        slices: whether the set is one of 2D slices.

    Raises:
        ConfigError: structures that are not those of the trained network.
        DataError: see `discover`.
        LabelError: a name that neither the set nor TotalSegmentator has.

    Example:
        >>> choose_labels(None, slices=True).structures
        ('stomach', 'small_bowel', 'large_bowel')
        >>> len(choose_labels(None, "ribs")), len(choose_labels(None, "liver,spleen")), len(choose_labels(None, "all"))
        (27, 3, 118)
    """
    if trained is not None and Path(trained).is_file():
        labels = LabelMap.load(trained)
        _require_same(labels, None if structures is None else split_names(structures, labels.structures), trained)
        return labels
    available = _structures_of(root, slices)
    names = None if structures is None else split_names(structures, available)
    if names is None or (slices and "all" in names):
        return LabelMap(available)
    if not names:
        raise LabelError("structures", "at least one structure is needed", "got []", "Leave it out for all of the set.")
    listed = () if slices else structure_names()
    chosen: set[str] = set()
    for name in names:
        members = (name,) if name in available or slices else groups().get(name, (name,))
        chosen |= expand_names(members, list(dict.fromkeys([*available, *listed])), root or "the phantom")
    order = available if chosen <= set(available) else [*listed, *available]
    return LabelMap([name for name in dict.fromkeys(order) if name in chosen])


def _structures_of(root: str | Path | None, slices: bool) -> tuple[str, ...]:
    """Return the structures of a set in its order; what is wrong with single cases is for `open_dataset` to say."""
    if root is None:
        return tuple(STRUCTURES) if slices else groups()["all"]
    listing = collect(Path(root)) if Path(root).exists() else None
    return listing.structures if listing is not None and listing.structures else discover(root).structures


def _require_same(labels: LabelMap, names: Sequence[str] | None, trained: str | Path) -> None:
    """Refuse names other than those of the network; a group stands for its members that the network has."""
    if names is None or "all" in names:
        return
    chosen = {member for name in names for member in groups().get(name, (name,)) if name == member or member in labels}
    if chosen != set(labels.structures):
        problem = f"the network's structures are those in {trained}"
        raise ConfigError("structures", problem, f"got {', '.join(names)}", "Leave this setting out.")


def require_learned(dataset: DatasetIndex, labels: LabelMap, ignore: str | Collection[str] | None = ()) -> None:
    """Refuse labels that a network would be taught as background without anybody having asked for it.

    A structure of TotalSegmentator that was not chosen is rightly background to the others, and is only logged. A label
    of another name may be part of a structure (`liver_tumour`), so it must be dropped by name.

    Args:
        dataset: the data set.
        labels: the classes of the network.
        ignore: labels that are background; None for all, as where nothing is learned.

    Raises:
        LabelError: a label that is neither learned nor ignored, an ignored one that the set does not have, or the
            network has none of the labels.
    """
    own = dataset.structures
    ignore = None if ignore is None else split_names(ignore, own)
    for name in ignore or ():
        expand_names([name], own, dataset.root)
        if name in labels:
            problem = "the network learns it, so it cannot be ignored"
            raise LabelError(f"ignore_labels, '{name}'", problem, "", "Leave it out of structures or of ignore_labels.")
    missing = [name for name in labels if name not in own]
    if len(missing) == len(labels) - 1:
        problem = f"the data set has masks of none of the network's {len(missing)} structures"
        command = command_line("bundle", "new", "NAME", "--structures", ",".join(own))
        fix = "Leave `structures` out to learn those of the set"
        if len(own) <= _LISTED:
            fix += f", or make a bundle for them: {command}"
        raise LabelError(dataset.root, problem, f"it has {names_of(own)}", f"{fix}.")
    if missing:
        share = f"{len(missing)} of the {len(labels) - 1} structures"
        logger.warning("%s: no case has a mask of %s: %s", dataset.root, share, names_of(missing))
    unlearned = [name for name in own if name not in labels]
    refused = [name for name in unlearned if name not in groups()["all"] and name not in (ignore or ())]
    if refused and ignore is not None:
        count = f"{len(refused)} of the set's {len(own)} labels"
        drop = quoted(f"ignore_labels={','.join([*ignore, *refused])}")
        fix = f"Learn them: name them in `structures`, or leave it out; or drop them: {drop}."
        problem = f"the network does not learn {count}, and would be taught that they are background"
        raise LabelError(dataset.root, problem, names_of(refused), fix)
    if unlearned:
        logger.info("%s: taken for background, as not chosen: %s", dataset.root, names_of(unlearned))
