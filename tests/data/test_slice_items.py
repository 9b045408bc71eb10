import pytest
from PIL import Image

from medseg.data import SlicePhantomSpec, choose_labels, slice_items, write_slice_phantom
from medseg.errors import DataError, LabelError


def test_a_folder_of_pictures_becomes_items_with_neighbours_and_limits(tmp_path):
    spec = SlicePhantomSpec(train=1, val=0, slices=3, size=(16, 18), layout="kaggle", bits=16)
    root = write_slice_phantom(tmp_path / "set", spec)
    items = slice_items(root / "train", context=1)
    assert [item["case"] for item in items] == [f"case101_day20_slice_{k:04d}" for k in (1, 2, 3)]
    assert items[2]["neighbours"] == [items[1]["image"], items[2]["image"], items[2]["image"]]
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
    with pytest.raises(DataError, match="needs a name of its own"):
        slice_items(tmp_path)
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match="must hold pictures"):
        slice_items(tmp_path / "c")
    with pytest.raises(DataError, match="no such file"):
        slice_items(tmp_path / "d")


def test_classes_of_the_phantom():
    assert choose_labels(None, ["large_bowel", "stomach"]).structures == ("stomach", "large_bowel")
    with pytest.raises(LabelError, match="'liver'"):
        choose_labels(None, "liver")
