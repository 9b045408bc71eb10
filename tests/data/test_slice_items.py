import numpy as np
import pytest
from PIL import Image

from medseg.data import SlicePhantomSpec, slice_items, write_slice_phantom
from medseg.errors import DataError


def test_images_become_items_with_neighbors_and_limits(tmp_path):
    spec = SlicePhantomSpec(train=1, val=0, slices=3, size=(16, 18), layout="kaggle", bits=16)
    root = write_slice_phantom(tmp_path / "set", spec)
    items = slice_items(root / "train", context=1)
    assert [item["case"] for item in items] == [f"case101_day20_slice_{k:04d}" for k in (1, 2, 3)]
    assert items[2]["neighbors"] == [items[1]["image"], items[2]["image"], items[2]["image"]]
    assert items[0]["spacing"] == [1.5, 1.5]
    values = []
    for item in items:
        with Image.open(item["image"]) as image:
            values += list(image.getextrema())
    assert all(item["limits"] == [min(values), max(values)] for item in items)


def test_single_pictures_and_faults(tmp_path):
    for name in ("a/p_1.png", "b/p_1.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("L", (4, 3)).save(tmp_path / name)
    (item,) = slice_items(tmp_path / "a" / "p_1.png")
    assert (item["patient"], item["slice"], "limits" in item) == ("p", 1, False)
    with pytest.raises(DataError, match="has the same name, and masks are named after the images"):
        slice_items(tmp_path)
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match="it holds no 2D images that are read"):
        slice_items(tmp_path / "c")
    with pytest.raises(DataError, match="there is no such image or folder"):
        slice_items(tmp_path / "d")


def grey(path, value=7, deep=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((3, 4), value, np.uint16 if deep else np.uint8)).save(path)


def test_scans_of_one_name_in_two_folders_are_two(tmp_path):
    for number, folder in ((1, "p1"), (2, "p2"), (3, "p1"), (4, "p2")):
        grey(tmp_path / folder / f"slice_s_{number}.png", 1000 * number, deep=True)
    result = {item["case"]: item for item in slice_items(tmp_path, context=1)}
    assert result["slice_s_1"]["limits"] == [1000, 3000]
    assert [path[-5] for path in result["slice_s_3"]["neighbors"]] == ["1", "3", "3"]


def test_slices_of_kaggle_in_any_folder_keep_scan_number_and_spacing(tmp_path, monkeypatch):
    grey(tmp_path / "case1_day2_slice_0007_4_3_1.50_1.50.png")
    (item,) = slice_items(tmp_path)
    assert [item[name] for name in ("scan", "slice", "spacing", "patient")] == ["case1_day2", 7, [1.5, 1.5], "case1"]
    grey(tmp_path / "k" / "case1_day0" / "scans" / "slice_0003_4_3_1.00_1.00.png")
    monkeypatch.chdir(tmp_path / "k" / "case1_day0" / "scans")
    for given in (".", "../scans"):
        (item,) = slice_items(given)
        assert (item["case"], item["scan"], item["spacing"]) == ("case1_day0_slice_0003", "case1_day0", [1.0, 1.0])


def test_an_unreadable_image_stops_no_other(tmp_path, caplog):
    (tmp_path / "s_1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    grey(tmp_path / "s_2.png")
    grey(tmp_path / "s_3.png", 900, deep=True)
    result = slice_items(tmp_path)
    assert len(result) == 3
    assert result[2]["limits"] == [900, 900]
    assert "scaled by its own range" in caplog.text


def test_missing_neighbors_are_warned_about(tmp_path, caplog):
    for number in (1, 2, 3):
        grey(tmp_path / f"s_{number}.png")
    slice_items(tmp_path, context=1)
    assert not caplog.text
    (tmp_path / "s_2.png").unlink()
    slice_items(tmp_path, context=1)
    assert "2 of numbers 1 to 3 exist" in caplog.text


def test_the_output_folder_is_not_read_and_names_ignore_case(tmp_path):
    grey(tmp_path / "a.png")
    grey(tmp_path / "out" / "masks" / "a.png")
    assert [item["case"] for item in slice_items(tmp_path, without=tmp_path / "out")] == ["a"]
    grey(tmp_path / "below" / "A.png")
    with pytest.raises(DataError, match="has the same name, and masks are named after the images"):
        slice_items(tmp_path, without=tmp_path / "out")


def cases_of(*arguments, **options):
    return [item["case"] for item in slice_items(*arguments, **options)]


def test_masks_in_the_layouts_of_training_are_not_segmented(tmp_path, caplog):
    for name in ("one/a.png", "one/a_mask.png", "one/b.png", "one/b_SEG.png"):
        grey(tmp_path / name)
    assert cases_of(tmp_path / "one") == ["a", "b"]
    assert cases_of(sorted((tmp_path / "one").iterdir())) == ["a", "b"]  # as a shell lists them
    for name in ("two/c.png", "two/c_liver.png", "two/c_small_bowel_000.png", "two/c_other.png"):
        grey(tmp_path / name)
    assert cases_of(tmp_path / "two", structures=("liver", "small_bowel")) == ["c", "c_other"]
    (tmp_path / "two" / "classes.json").write_text('{"liver": [1, 1, 1], "small_bowel": [2, 2, 2], "other": [3, 3, 3]}')
    assert cases_of(tmp_path / "two") == ["c"]
    for name in ("images/d.png", "masks/d.png", "labels/e.png", "masks/liver/d.png"):
        grey(tmp_path / "three" / "train" / name)
    assert cases_of(tmp_path / "three") == ["d"]
    with pytest.raises(DataError, match=r"it holds masks alone, and no images \(2 files\)"):
        slice_items(tmp_path / "three" / "train" / "masks")
    assert cases_of(tmp_path / "one" / "a_mask.png") == ["a_mask"]  # nothing beside it tells that it is a mask
    for layout in ("split", "folder", "classes"):
        assert len(slice_items(write_slice_phantom(tmp_path / layout, spec(layout)))) == 4


def spec(layout):
    return SlicePhantomSpec(train=1, val=1, slices=2, size=(16, 18), layout=layout)


def test_pictures_that_are_not_read_are_named(tmp_path, caplog):
    grey(tmp_path / "in" / "a.png")
    for name in ("b.webp", "c.GIF", "d.jp2"):
        (tmp_path / "in" / name).write_bytes(b"any")
    assert cases_of(tmp_path / "in") == ["a"]
    assert "not segmented, because the format is not read: b.webp, c.GIF, d.jp2. Convert" in caplog.text
    with pytest.raises(DataError, match=r"b\.webp: pictures in this format are not read \(\.webp\)\. Convert"):
        slice_items(tmp_path / "in" / "b.webp")


def test_a_scan_of_8_and_16_bits_is_warned_about(tmp_path, caplog):
    grey(tmp_path / "s_1.png", 100)
    grey(tmp_path / "s_2.png", 1000, deep=True)
    slice_items(tmp_path)
    assert "s_1.png: it has 8 bits and others of its scan more" in caplog.text
