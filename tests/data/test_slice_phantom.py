import numpy as np
import pytest

from medseg.data import SlicePhantomSpec, discover, write_slice_phantom
from medseg.data.slice_phantom import STRUCTURES, make_slices
from medseg.errors import DataError, OutputError

SMALL = SlicePhantomSpec(train=1, val=1, slices=6, size=(40, 48))


def test_the_same_spec_gives_the_same_pixels_and_patients_differ():
    one, two = list(make_slices(SMALL)), list(make_slices(SMALL))
    assert len(one) == 12
    for first, second in zip(one, two, strict=True):
        assert np.array_equal(first.values, second.values)
    assert not np.array_equal(one[3].values, one[9].values)
    for name in STRUCTURES:
        assert any(item.masks[name].any() for item in one[:6])
        assert any(item.masks[name].any() for item in one[6:])


def test_structures_differ_from_their_surroundings():
    center = list(make_slices(SlicePhantomSpec(train=1, val=0)))[5]
    label = center.label()
    means = [center.values[label == index].mean() for index in range(4)]
    assert len({round(mean / 20) for mean in means}) >= 3


def test_a_folder_is_left_as_it_is_or_refused(tmp_path):
    root = write_slice_phantom(tmp_path / "set", SMALL)
    stamp = (root / "phantom.json").stat().st_mtime_ns
    assert write_slice_phantom(root, SMALL) == root
    assert (root / "phantom.json").stat().st_mtime_ns == stamp
    with pytest.raises(OutputError, match="the folder must be new or empty"):
        write_slice_phantom(root, SlicePhantomSpec(layout="kaggle"))
    assert set(discover(root).structures) == {"stomach", "small_bowel", "large_bowel"}


@pytest.mark.parametrize("changes", [{"train": 0}, {"bits": 12}, {"size": (8, 40)}, {"layout": "heap"}, {"spacing": 0}])
def test_invalid_values_are_refused(changes):
    with pytest.raises(DataError, match="slice phantom"):
        SlicePhantomSpec(**changes)
