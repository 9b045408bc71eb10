import pytest
from PIL import Image

from medseg.data import SlicePhantomSpec, choose_labels, slice_items, write_slice_phantom
from medseg.errors import ConfigError, DataError, LabelError
from medseg.labels import LabelMap


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


def test_classes_of_a_set_that_nobody_has_trained_on_and_of_a_network_that_is(tmp_path):
    spec = SlicePhantomSpec(train=1, val=0, slices=1, size=(16, 18), layout="kaggle")
    root = write_slice_phantom(tmp_path / "set", spec)
    assert set(choose_labels(root).structures) == {"stomach", "small_bowel", "large_bowel"}
    assert choose_labels(root, ["stomach"]).structures == ("stomach",)
    known = tmp_path / "label_map.json"
    assert choose_labels(root, ["stomach"], known) == choose_labels(root, ["stomach"])  # there is no such file yet
    trained = LabelMap(["tumour", "liver"])
    trained.save(known)
    for place in (root, tmp_path / "pictures of somewhere", None):
        assert choose_labels(place, known=known) == trained
    assert choose_labels(root, ["liver", "tumour"], str(known)) == trained  # in the order of the network
    for wrong in ("liver", ["liver", "tumour", "stomach"]):
        with pytest.raises(ConfigError, match=r"structures: must be those of the network, as .*label_map\.json"):
            choose_labels(root, wrong, known)
    known.write_text("{}")
    with pytest.raises(LabelError, match=r"label_map\.json"):
        choose_labels(root, known=known)
