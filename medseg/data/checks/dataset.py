"""Check the cases of a data set against each other: split, repeated images, volumes, sizes of slices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from medseg.cases import Split
from medseg.data.layouts.listed_cases import split_findings
from medseg.findings import Finding, error, names_of, note, warning

COMMON = 5  # cases that train on a structure; with fewer, a small set cannot spare one
FEWEST_OTHERS = 3  # complete volumes that make a median worth comparing with
FACTOR, LARGEST_FACTOR = 4.0, 7.0  # from the median of the others; between them the spread of the others decides
SPREAD = 2.5  # a factor; of others that differ more, only their own spread decides
MANY = 3  # structures that are far off together


def check_split(
    split: Split,
    *,
    patients: Mapping[str, str],
    images: Mapping[str, str],
    location: object = "split",
) -> list[Finding]:
    """Report cases, patients and images in two subsets of a split.

    Args:
        split: case ids by subset; an empty subset is not judged.
        patients: the patient of each case; a case that is not listed is its own patient.
        images: a digest of the voxels of each image.
        location: the origin of the split.
    """
    findings = split_findings(split, patients, location)
    repeated = set(split.repeated_cases())
    trained = {images[id]: id for id in split.train if id in images}
    pairs = [
        f"{trained[images[id]]} and {id}"
        for id in (*split.val, *split.test)
        if images.get(id) in trained and id not in repeated
    ]
    if pairs:
        message = f"the same image trains and is held out: {names_of(pairs, limit=4)}"
        findings.append(error("split-image", location, message, "Keep one of the two; scores would be too good."))
    return findings


def check_content(
    split: Split,
    structures: Mapping[str, Collection[str]],
    names: Collection[str],
    patients: Mapping[str, str],
    location: object = "split",
) -> list[Finding]:
    """Report structures that occur in one subset alone or in none, and a validation that says little.

    Args:
        split: case ids by subset; both empty where no split is decided yet.
        structures: the structures that each case whose labels were read holds, without those that are empty.
        names: the structures of the set.
        patients: the patient of each case.
        location: the origin of the split.
    """
    ids = [id for id in split.train or structures if id in structures]
    if not ids:
        return []
    trained = Counter(name for id in ids for name in structures[id])
    validated = {name for id in split.val for name in structures.get(id, ())}
    if not trained:
        message = f"all masks of its {'training ' if split.train else ''}cases are empty, so there is nothing to learn"
        return [error("masks-empty", location, message, "Look at the masks; export them again.")]
    absent = [name for name in names if name not in trained and name not in validated]
    findings = _listed(note, "structures-absent", absent, names, "never occur, so they are not learned", location)
    if not split.train or not split.val:
        return findings
    untrained = [name for name in names if name in validated and name not in trained]
    text = "occur in validation alone, so they are not learned"
    findings += _listed(note, "split-untrained", untrained, names, text, location)
    unvalidated = [name for name in names if name in trained and name not in validated]
    common = [name for name in unvalidated if trained[name] >= COMMON]
    text = "occur in training alone, so their Dice stays unknown"
    findings += _listed(warning, "split-unvalidated", common, names, text, location)
    findings += _listed(note, "split-unvalidated", sorted(set(unvalidated) - set(common)), names, text, location)
    if not validated:
        message = "all masks of its validation cases are empty, so there is no Dice"
        findings.append(warning("masks-empty", location, message, "Move cases with structures to validation."))
    held_out = {patients.get(id, id) for id in split.val}
    if len(held_out) == 1:
        message = f"one patient alone validates, {next(iter(held_out))}: the Dice says little"
        findings.append(note("split-one-patient", location, message))
    return findings


def _listed(
    report: Callable[..., Finding],
    code: str,
    structures: Sequence[str],
    names: Collection[str],
    text: str,
    location: object,
) -> list[Finding]:
    """Return a finding on some of the set's structures; none for none."""
    message = f"{len(structures)} of {len(names)} structures {text}: {names_of(structures)}"
    fix = "Move a case that holds them to the other subset." if code.startswith("split") else ""
    return [report(code, location, message, fix)] if structures else []


def check_repeated_images(images: Mapping[str, str]) -> list[Finding]:
    """Report cases that hold the same image as an earlier one.

    Args:
        images: a digest of the voxels of each image.
    """
    first: dict[str, str] = {}
    findings = []
    for id, digest in images.items():
        if digest in first:
            message = f"it has the same voxels as {first[digest]}"
            findings.append(warning("image-duplicate", "image", message, "Keep one of them.").of(id))
        first.setdefault(digest, id)
    return findings


def check_volumes(volumes: Mapping[str, Mapping[str, float]]) -> list[Finding]:
    """Report structures far larger or smaller than the same structure in the other cases.

    A case with many of them gets one finding: its spacing may be wrong.

    Args:
        volumes: for each case, the ml of the structures that lie in it completely.
    """
    factors: dict[tuple[str, bool], dict[str, float]] = {}
    usual: dict[str, float] = {}
    for name in sorted({name for case in volumes.values() for name in case}):
        logs = {id: float(np.log(case[name])) for id, case in volumes.items() if name in case}
        usual[name] = float(np.exp(np.median(list(logs.values()))))
        for id, value in logs.items():
            others = [log for case, log in logs.items() if case != id]
            if len(others) < FEWEST_OTHERS:
                continue
            median = float(np.median(others))
            deviation = float(np.median([abs(log - median) for log in others]))
            limit = max(np.log(FACTOR if len(others) > FEWEST_OTHERS else LARGEST_FACTOR), 5 * deviation)
            if deviation < np.log(SPREAD):  # the others agree so far that a tenth is no chance
                limit = min(limit, np.log(LARGEST_FACTOR))
            if abs(value - median) > limit:
                factors.setdefault((id, value > median), {})[name] = float(np.exp(value - median))
    findings = []
    for (id, _), by_name in factors.items():
        if len(by_name) > MANY:
            message = f"{len(by_name)} of its structures measure about {np.median(list(by_name.values())):.2g} times "
            message += "what they do in the other cases"
            fix = "Check its spacing, and whether masks and image belong together."
            findings.append(warning("volume-outlier", names_of(list(by_name)), message, fix).of(id))
            continue
        for name in by_name:
            message = f"it measures {volumes[id][name]:.3g} ml; the median of all cases is {usual[name]:.3g} ml"
            findings.append(warning("volume-outlier", name, message, "Look at it.").of(id))
    return findings


def report_unannotated(names: Collection[str]) -> Finding:
    """Report that a case has no file for structures which other cases of the set have."""
    message = f"{len(names)} structures of the set have no mask here, so they were not annotated"
    fix = "Training does not take them for background; an empty mask says that a structure is absent."
    return note("unannotated", names_of(list(names)), message, fix)


def check_smoothing(smoothed: Sequence[Mapping[str, int]], pixels: Sequence[Mapping[str, int]]) -> list[Finding]:
    """Report how many pixels of each class lay between colors, over all masks.

    Args:
        smoothed: for each mask: pixels of no class's color by the class that they went to.
        pixels: for each mask: pixels by structure.
    """
    counts, totals = Counter[str](), Counter[str]()
    for counter, parts in ((counts, smoothed), (totals, pixels)):
        for part in parts:
            counter.update(part)
    if not counts:
        return []
    listed = ", ".join(
        f"{name} {count}" + (f" ({count / totals[name]:.1%} of it)" if totals[name] else "")
        for name, count in counts.most_common()
    )
    message = (
        f"{sum(map(bool, smoothed))} masks are smoothed; these pixels went to the nearest pure pixel's class: {listed}"
    )
    fix = "Export the masks without smoothing (nearest neighbor, PNG), if you can."
    return [warning("masks-smoothed", "masks", message, fix)]


def check_slice_sizes(shapes: Mapping[Path, tuple[int, int]]) -> list[Finding]:
    """Report folders whose slices are not of one size.

    Args:
        shapes: rows and columns of each image file.
    """
    folders: dict[Path, dict[str, list[str]]] = {}
    for path, (rows, columns) in shapes.items():
        folders.setdefault(path.parent, {}).setdefault(f"{rows}x{columns}", []).append(path.name)
    findings = []
    for folder, names_by_size in folders.items():
        if len(names_by_size) > 1:
            common = Counter({size: len(names) for size, names in names_by_size.items()}).most_common(4)
            listed = ", ".join(f"{size} ({count}, {names_by_size[size][0]} first)" for size, count in common)
            message = f"its images have {len(names_by_size)} sizes (rows x columns): {listed}"
            findings.append(warning("slice-sizes", folder, message, "Check that they belong together."))
    return findings
