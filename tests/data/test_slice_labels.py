import json
import logging

import numpy as np
import pytest
from PIL import Image

from medseg.cases import Case
from medseg.data import SlicePhantomSpec, discover, open_dataset, write_slice_phantom
from medseg.data.slice_labels import read_slice
from medseg.errors import ConfigError, DataError, GeometryError, LabelError
from medseg.image_io_2d import ClassColors
from medseg.labels import LabelMap


def phantom(tmp_path, **changes):
    message = {"train": 2, "val": 1, "slices": 2, "size": (20, 24), **changes}
    return write_slice_phantom(tmp_path / "set", SlicePhantomSpec(**message))


def opened(root, tmp_path, labels=None, **changes):
    return open_dataset(root, labels or discover(root).choose(), tmp_path / "cache", slices=True, **changes)


def mask_of(root, number=0):
    return sorted((root / "train" / "masks").iterdir())[number]


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image).copy()


def test_labels_are_cached_and_made_again_for_a_changed_scan(tmp_path):
    root = phantom(tmp_path)
    first = opened(root, tmp_path)
    stamps = {case.id: case.label.stat().st_mtime_ns for case in first.cases}
    again = opened(root, tmp_path)
    assert {case.id: case.label.stat().st_mtime_ns for case in again.cases} == stamps
    assert again == first
    mask = pixels(mask_of(root))
    mask[10:14, 10:14] = (0, 0, 255)
    Image.fromarray(mask).save(mask_of(root))
    changed = opened(root, tmp_path)
    differ = {one.id for one, two in zip(first.cases, changed.cases, strict=True) if one.label != two.label}
    assert differ == {case.id for case in first.cases if case.id.startswith("case101")}
    assert (pixels(changed.cases[0].label)[10:14, 10:14] == 3).all()
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".")]


def test_labels_have_the_indices_of_the_network(tmp_path):
    root = phantom(tmp_path)
    mask = pixels(mask_of(root))
    result = opened(root, tmp_path, LabelMap(["large_bowel", "stomach"])).cases[0]
    label = pixels(result.label)
    assert np.array_equal(label == 1, (mask == (0, 0, 255)).all(-1))
    assert np.array_equal(label == 2, (mask == (255, 0, 0)).all(-1))
    assert label.max() <= 2


def test_the_fingerprint_of_slices_does_not_depend_on_the_cache(tmp_path):
    root = phantom(tmp_path, layout="kaggle")
    labels = discover(root).choose()
    one, two = (open_dataset(root, labels, tmp_path / name, slices=True) for name in ("one", "two"))
    assert one.fingerprint() == two.fingerprint()


def test_limits_are_those_of_the_scan(tmp_path):
    root = phantom(tmp_path, layout="kaggle", bits=16, scans=2)
    for case in opened(root, tmp_path).cases:
        files = list(case.image.parent.iterdir())
        assert case.slice.limits == (min(pixels(p).min() for p in files), max(pixels(p).max() for p in files))
    assert opened(phantom(tmp_path / "eight"), tmp_path).cases[0].slice.limits is None


def test_overlaps_are_counted_or_kept(tmp_path, caplog):
    root = phantom(tmp_path, layout="kaggle", slices=8)
    with caplog.at_level(logging.WARNING):
        opened(root, tmp_path)
    assert "pixels belong to several structures" in caplog.text
    dataset = opened(root, tmp_path, overlaps="keep")
    codes = {code for case in dataset.cases for code in np.unique(pixels(case.label))}
    assert any(
        len(dataset.cases[0].combinations[code]) > 1 for code in codes if code < len(dataset.cases[0].combinations)
    )


def test_every_fault_of_the_set_is_found_before_training(tmp_path):
    root = phantom(tmp_path)
    good = mask_of(root).read_bytes()
    Image.new("RGB", (24, 21)).save(mask_of(root))
    with pytest.raises(GeometryError, match=r"slice_0001\.png: it has 21 rows and 24 columns, but .* has 20 and 24"):
        opened(root, tmp_path)
    mask_of(root, 3).write_bytes(good[:-40])
    with pytest.raises(DataError, match=r"2 slices: they cannot be used: .*21 rows.*the PNG file ends before"):
        opened(root, tmp_path)
    mask_of(root).write_bytes(good)
    mask_of(root, 3).write_bytes(good)
    bad = pixels(mask_of(root))
    bad[:4, :4] = (1, 200, 77)
    Image.fromarray(bad).save(mask_of(root))
    with pytest.raises(LabelError, match=r"16 pixels have colors that no class has \(\[1, 200, 77\] in 16 pixels"):
        opened(root, tmp_path)
    assert not list((tmp_path / "cache").glob("case101*"))


def test_doubtful_pixels_and_different_sizes_are_logged(tmp_path, caplog):
    root = phantom(tmp_path)
    mask = pixels(mask_of(root))
    mask[0, 0] = (130, 5, 0)
    Image.fromarray(mask).save(mask_of(root))
    name = mask_of(root, 3).name
    for folder in ("images", "masks"):
        file = root / "train" / folder / name
        Image.fromarray(pixels(file)[:-2]).save(file)
    for _ in range(2):  # as well from what was kept
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            opened(root, tmp_path)
        assert (
            "1 pixels of no class's color went to the class of the nearest pixel with one: background 1" in caplog.text
        )
        assert "its slices have 2 sizes (rows x columns): 20x24 (5), 18x24 (1)" in caplog.text


def test_runs_beyond_the_image_name_the_row(tmp_path):
    root = phantom(tmp_path, layout="kaggle")
    lines = (root / "train.csv").read_text().splitlines()
    lines[1] = lines[1].rsplit(",", 1)[0] + ",470 20"
    (root / "train.csv").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"train\.csv, case101_day20_slice_0001, stomach: .* ends at pixel 489"):
        opened(root, tmp_path)


def test_volumes_and_slices_are_not_confused(tmp_path, case):
    root = phantom(tmp_path / "slices")
    with pytest.raises(ConfigError, match="the network takes volumes, but the data set consists of 2D slices"):
        open_dataset(root, LabelMap(["stomach"]), tmp_path / "cache")
    with pytest.raises(ConfigError, match="the network takes 2D slices, but the data set consists of volumes"):
        open_dataset(case, LabelMap(["liver"]), tmp_path / "cache", slices=True)


def test_without_a_folder_the_phantom_is_used(tmp_path):
    small = {"train": 1, "val": 1, "slices": 2, "size": [16, 16]}
    labels = LabelMap(["stomach", "small_bowel", "large_bowel"])
    result = open_dataset(None, labels, tmp_path / "cache", slices=True, phantom=small)
    assert (len(result.split.train), len(result.split.val)) == (2, 2)


def test_slices_of_a_patient_in_two_named_subsets_are_an_error(tmp_path):
    root = phantom(tmp_path)
    with pytest.raises(DataError, match="patient 'case101' is in two subsets of the split"):
        opened(root, tmp_path, split={"train": ["case101_day20_slice_0001"], "val": ["case101_day20_slice_0002"]})


def test_the_record_of_a_scan_is_readable(tmp_path):
    one = opened(phantom(tmp_path), tmp_path).cases[0]
    record = json.loads((one.label.parent / "scan.json").read_text())
    assert record["sizes"] == {"20x24": 2}
    (one.label.parent / "scan.json").unlink()
    one.label.unlink()
    assert opened(tmp_path / "set", tmp_path).cases[0].label.is_file()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_image_and_mask_are_turned_alike_or_refused(tmp_path, suffix):
    values, mask = np.arange(600, dtype=np.uint16).reshape(20, 30).astype(np.uint8), np.zeros((20, 30), np.uint8)
    mask[2:5, 7:20] = 1
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(values).save(tmp_path / f"i{suffix}", exif=exif)
    Image.fromarray(mask).save(tmp_path / f"m{suffix}", exif=exif)
    case = Case("i", tmp_path / f"i{suffix}", tmp_path / f"m{suffix}")
    colors = ClassColors.indexed(("background", "liver"))
    content = read_slice(case, colors)
    assert np.array_equal(content.image.values, values.T[:, ::-1])
    assert np.array_equal(content.masks["liver"], mask.T[:, ::-1] == 1)
    exif[0x0112] = 8  # as large, but upside down
    Image.fromarray(mask).save(tmp_path / f"m{suffix}", exif=exif)
    with pytest.raises(GeometryError, match=r"its EXIF orientation is not that of i\.\w+.* \(8 and 6\)"):
        read_slice(case, colors)
