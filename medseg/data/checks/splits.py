"""Whether the sides of a split are strangers to each other, and whether validation sees what training sees."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from medseg.cases import Split
from medseg.data.checks.labels import names_of
from medseg.findings import Finding, error, note, warning

MANY = 5  # cases that train on a structure; with fewer, a small set cannot spare one


def examine(
    split: Split,
    *,
    patients: Mapping[str, str],
    images: Mapping[str, str],
    structures: Mapping[str, Collection[str]],
    location: object = "split",
) -> list[Finding]:
    """What is wrong with the split of a set.

    Args:
        split: case ids by side; nothing is said of one that is empty.
        patients: the patient of each case, where that is known.
        images: a digest of the voxels of each image.
        structures: the structures that each case holds, without those that are empty.
        location: where the split was read.
    """
    found = []
    held_out = (*split.val, *split.test)
    both = split.both_sides()
    if both:
        found.append(
            error(
                "split-case",
                location,
                f"{names_of(both)}: trained on and held out at once",
                "Leave each case on one side.",
            )
        )
    for code, what, key in (("split-patient", "patient", patients), ("split-image", "image", images)):
        mine = {key[id]: id for id in split.train if id in key}
        shared = [(mine[key[id]], id) for id in held_out if id in key and key[id] in mine and id not in both]
        if shared:
            printable = names_of([f"{one} and {other}" for one, other in shared], most=4)
            found.append(
                error(
                    code,
                    location,
                    f"the same {what} on both sides of the split: {printable}",
                    f"Keep all cases of one {what} on one side; scores would be too good.",
                )
            )
    return found + _never_validated(split, structures, location)


def _never_validated(split: Split, structures: Mapping[str, Collection[str]], location: object) -> list[Finding]:
    if not split.train or not split.val:
        return []
    validated = {name for id in split.val for name in structures.get(id, ())}
    trained: dict[str, int] = {}
    for id in split.train:
        for name in structures.get(id, ()):
            trained[name] = trained.get(name, 0) + 1
    never = sorted(set(trained) - validated)
    common = [name for name in never if trained[name] >= MANY]
    found = []
    for report, names in ((warning, common), (note, [name for name in never if name not in common])):
        if names:
            found.append(
                report(
                    "split-unvalidated",
                    location,
                    f"{len(names)} structures occur in training and never in validation: {names_of(names)}",
                    "Their scores are not known; move a case that holds them to validation.",
                )
            )
    return found


def repeated(images: Mapping[str, str]) -> list[Finding]:
    """Cases that hold one and the same image.

    Args:
        images: a digest of the voxels of each image.
    """
    alike: dict[str, list[str]] = {}
    for id, digest in images.items():
        alike.setdefault(digest, []).append(id)
    return [
        warning("image-duplicate", "image", f"it has the same voxels as {ids[0]}", "Keep one of them.").of(id)
        for ids in alike.values()
        for id in ids[1:]
    ]
