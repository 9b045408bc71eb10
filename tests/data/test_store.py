import pickle
import subprocess
import sys

import numpy as np
import pytest

from medseg.data.store import IMAGE_SUFFIX, LABEL_SUFFIX, read_store, write_store
from medseg.errors import DataError, LabelError
from medseg.grid import Grid, to_ras
from medseg.labels import LabelMap

LABELS = LabelMap(["liver", "spleen", "stomach"])
GRID = Grid((14, 12, 10), np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -7], [0, 0, -3.0, 2], [0, 0, 0, 1]]))


@pytest.fixture
def volumes():
    rng = np.random.default_rng(0)
    label = np.zeros(GRID.shape, np.uint8)
    label[2:5, 3:6, 4:7], label[8:, 8:, :2] = 1, 3
    return rng.integers(-1000, 2000, GRID.shape).astype(np.int16), label


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_are_those_of_the_volume_in_ras(volumes, tmp_path, axis):
    write_store(tmp_path, "s1", *volumes, GRID, LABELS, axis)
    result = read_store(tmp_path, "s1")
    turned, grid = to_ras(volumes, GRID)
    order = [*(second for second in range(3) if second != axis), axis]
    for volume, stored in zip(turned, (result.image, result.label), strict=True):
        expected = np.transpose(volume, order)
        assert stored.shape == (1, *expected.shape)
        assert np.array_equal(stored.read(), expected)
        assert np.array_equal(stored.read_slice(3), expected[..., 3])
        assert stored.read_slice(0).dtype == volume.dtype
    assert np.allclose(result.grid.affine, grid.affine[:, [*order, 3]])
    expected = np.transpose(turned[1], order)
    for row, index in enumerate((1, 2, 3)):
        assert np.array_equal(result.index[row], (expected == index).any(axis=(0, 1)))


def test_another_numbering_gives_the_same_structures(volumes, tmp_path):
    write_store(tmp_path, "s1", *volumes, GRID, LABELS)
    plain, second = read_store(tmp_path, "s1"), read_store(tmp_path, "s1", LabelMap(["stomach", "colon", "liver"]))
    before, after = plain.label.read(), second.label.read()
    assert np.array_equal(after == 1, before == 3)
    assert np.array_equal(after == 3, before == 1)
    assert set(np.unique(after)) == {0, 1, 3}
    assert np.array_equal(second.index, np.stack([plain.index[2], np.zeros(10, bool), plain.index[0]]))


def test_more_than_256_classes_are_kept(tmp_path):
    labels = LabelMap([f"part_{number}" for number in range(300)])
    label = np.arange(np.prod(GRID.shape)).reshape(GRID.shape).astype(np.uint16) % 301
    write_store(tmp_path, "s1", np.zeros(GRID.shape, np.int16), label, GRID, labels)
    assert np.array_equal(np.unique(read_store(tmp_path, "s1").label.read()), np.arange(301))


def test_hu_are_rounded_and_refused_where_they_do_not_fit(volumes, tmp_path):
    hu, label = volumes
    write_store(tmp_path, "s1", hu + 0.4, label, GRID, LABELS)
    (turned,), _ = to_ras([hu], GRID)
    assert np.array_equal(read_store(tmp_path, "s1").image.read(), turned)
    for bad, why in ((np.nan, "finite"), (40000.0, "32767")):
        broken = hu.astype(np.float32)
        broken[1, 1, 1] = bad
        with pytest.raises(DataError, match=why):
            write_store(tmp_path, "s2", broken, label, GRID, LABELS)
    assert not list(tmp_path.glob("s2*"))


def test_a_volume_goes_to_another_process_as_a_path(volumes, tmp_path):
    write_store(tmp_path, "s1", *volumes, GRID, LABELS)
    stored = read_store(tmp_path, "s1").image
    sent = pickle.dumps(stored)
    assert len(sent) < 600
    code = f"import pickle; print(int(pickle.loads({sent!r}).read_slice(4).astype(int).sum()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == stored.read_slice(4).astype(int).sum()


def test_every_flipped_byte_of_a_slice_is_noticed(volumes, tmp_path):
    """Whatever a flip does, it never gives another slice than the one that was written."""
    image, _ = write_store(tmp_path, "s1", *volumes, GRID, LABELS)
    complete = read_store(tmp_path, "s1").image.read()
    content = image.read_bytes()
    noticed = 0
    for number, location in enumerate(np.random.default_rng(0).integers(100, len(content) - 1500, 60)):
        broken = bytearray(content)
        broken[location] ^= 0xFF
        name = f"b{number}"
        (tmp_path / f"{name}{IMAGE_SUFFIX}").write_bytes(broken)
        (tmp_path / f"{name}{LABEL_SUFFIX}").write_bytes((tmp_path / f"s1{LABEL_SUFFIX}").read_bytes())
        try:
            assert np.array_equal(read_store(tmp_path, name).image.read(), complete)
        except DataError:
            noticed += 1
    assert noticed > 30


def test_what_is_missing_or_cut_short_is_said(volumes, tmp_path):
    with pytest.raises(DataError, match="this file of the slice store is missing"):
        read_store(tmp_path, "s9")
    image, label = write_store(tmp_path, "s1", *volumes, GRID, LABELS)
    image.rename(tmp_path / f"s2{IMAGE_SUFFIX}")
    (tmp_path / f"s2{LABEL_SUFFIX}").write_bytes(label.read_bytes()[:200])
    with pytest.raises(DataError, match="the file of the slice store is damaged"):
        read_store(tmp_path, "s2")
    (tmp_path / f"s3{LABEL_SUFFIX}").write_bytes(b"")
    with pytest.raises(DataError, match="the file of the slice store is damaged"):
        read_store(tmp_path, "s3")


def test_a_slice_that_is_not_there_is_refused(volumes, tmp_path):
    write_store(tmp_path, "s1", *volumes, GRID, LABELS)
    for k in (-1, 10):
        with pytest.raises(DataError, match=f"the slices are 0 to 9 [(]got {k}"):
            read_store(tmp_path, "s1").image.read_slice(k)


def test_image_and_label_of_two_grids_are_refused(volumes, tmp_path):
    write_store(tmp_path, "s1", *volumes, GRID, LABELS)
    second = Grid(GRID.shape, GRID.affine @ np.diag([1, 1, 1.01, 1]))
    write_store(tmp_path / "o", "s1", *volumes, second, LABELS)
    (tmp_path / "o" / f"s1{LABEL_SUFFIX}").replace(tmp_path / f"s1{LABEL_SUFFIX}")
    with pytest.raises(DataError, match="its grid differs from that of"):
        read_store(tmp_path, "s1")


def test_a_label_without_a_name_is_refused(volumes, tmp_path):
    hu, label = volumes
    with pytest.raises(LabelError, match="labels must not exceed 3 [(]got 9"):
        write_store(tmp_path, "s1", hu, np.where(label == 3, 9, label), GRID, LABELS)


@pytest.mark.parametrize("location", range(19))
def test_every_flipped_byte_of_the_head_is_noticed(volumes, tmp_path, location):
    image, _ = write_store(tmp_path, "s1", *volumes, GRID, LABELS)
    stored = read_store(tmp_path, "s1").image
    for bit in range(8):
        broken = bytearray(image.read_bytes())
        broken[location] ^= 1 << bit
        image.write_bytes(broken)
        with pytest.raises(DataError, match="the file of the slice store is damaged"):
            stored.read_slice(4)
        broken[location] ^= 1 << bit
        image.write_bytes(broken)


def test_a_slice_of_one_value_is_kept(tmp_path):
    write_store(tmp_path, "s1", np.full(GRID.shape, -1024, np.int16), np.zeros(GRID.shape, np.uint8), GRID, LABELS)
    result = read_store(tmp_path, "s1")
    assert np.all(result.image.read() == -1024)
    assert not result.label.read().any()
