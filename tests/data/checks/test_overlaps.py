import itertools

import numpy as np
import pytest

from medseg.data.checks.labels import Structure, nonzero_box
from medseg.data.checks.overlaps import Overlaps, examine
from medseg.errors import DataError


def structure(voxels: int, digest: str) -> Structure:
    return Structure(voxels, 1.0, (0, 0, 0), (0, 0, 0), "", 1, 0, 0.0, digest)


def test_every_pair_is_counted_also_where_three_meet():
    rng = np.random.default_rng(1)
    masks = {name: np.asfortranarray(rng.random((9, 8, 7)) > 0.5) for name in "abcd"}
    overlaps = Overlaps((9, 8, 7))
    for name, mask in masks.items():
        box = nonzero_box(mask)
        overlaps.add(name, mask[box], box)
    expected = {(one, other): (masks[one] & masks[other]).sum() for one, other in itertools.combinations("abcd", 2)}
    assert overlaps.pairs == expected
    members = [tuple(name for name in "abcd" if masks[name][at]) for at in np.ndindex(9, 8, 7)]
    assert [overlaps.combinations[code] for code in overlaps.codes.ravel()] == members


def test_more_combinations_than_can_be_counted_is_an_error():
    overlaps = Overlaps((2, 1, 1))
    overlaps.combinations += [()] * 65535
    with pytest.raises(DataError, match="at most 65535 combinations"):
        overlaps.add("a", np.ones((2, 1, 1), bool), (slice(0, 2), slice(0, 1), slice(0, 1)))


def test_one_structure_within_another_is_a_warning_unless_it_belongs_there():
    structures = {name: structure(100, name) for name in ("liver", "spleen", "kidney_left", "kidney_cyst_left")}
    assert examine({}, structures) == []
    assert [finding.code for finding in examine({("liver", "spleen"): 20}, structures)] == ["overlaps"]
    found = examine({("liver", "spleen"): 60}, structures)
    assert [finding.code for finding in found] == ["overlaps", "overlap-large"]
    assert found[1].message.startswith("60% of ")
    nested = {("kidney_cyst_left", "kidney_left"): 100}
    assert [finding.code for finding in examine(nested, structures)] == ["overlaps"]
