"""What a split is checked for before training: cases, pictures, patients, structures."""

from __future__ import annotations

import gzip
import logging
import shutil

import numpy as np
import pytest
from PIL import Image

from medseg.data import choose_labels, open_dataset
from medseg.errors import DataError, LabelError
from medseg.labels import LabelMap
from tests.data.test_classes import nnunet

NAMES = ["liver", "lesion", "cyst"]


def opened(root, tmp_path, train, val, **options):
    return open_dataset(root, choose_labels(root), tmp_path / "cache", {"train": train, "val": val}, **options)


@pytest.mark.parametrize("how", ["copied", "compressed again", "label drawn again"])
def test_the_same_volume_under_two_names_is_refused(tmp_path, how):
    root = nnunet(tmp_path / "set", NAMES)
    image, copy = root / "imagesTr" / "a_0000.nii.gz", root / "imagesTr" / "b_0000.nii.gz"
    shutil.copyfile(image, copy)
    if how == "compressed again":
        copy.write_bytes(gzip.compress(gzip.decompress(image.read_bytes()), 1))
    if how == "label drawn again":
        shutil.copyfile(
            nnunet(tmp_path / "other", NAMES, {"b": [1]}) / "labelsTr" / "b.nii.gz", root / "labelsTr" / "b.nii.gz"
        )
    with pytest.raises(DataError, match="a and b are the same image, and one of them is held out"):
        opened(root, tmp_path, ["a", "c"], ["b"])
    opened(root, tmp_path, ["a", "b"], ["c"])  # twice in training is a waste, not a wrong score


def test_structures_in_one_subset_alone_are_named(tmp_path, caplog):
    root = nnunet(tmp_path / "set", [*NAMES, "stone"], {"a": [1, 2], "b": [1, 3]})
    with caplog.at_level(logging.WARNING):
        opened(root, tmp_path, ["a"], ["b"])
    assert "1 of 4 structures never occur, so they are not learned: stone" in caplog.text
    assert "1 of 4 structures occur in validation alone, so they are not learned: cyst" in caplog.text
    assert "1 of 4 structures occur in training alone, so their Dice stays unknown: lesion" in caplog.text
    assert "one patient alone validates, b: the Dice says little" in caplog.text
    caplog.clear()
    opened(root, tmp_path, ["a"], ["b"])  # from the cache
    assert "validation alone, so they are not learned: cyst" in caplog.text


def test_empty_masks_are_refused_in_training_and_told_in_validation(tmp_path, caplog):
    root = nnunet(tmp_path / "set", NAMES, {"a": [], "b": [1], "c": []})
    with pytest.raises(DataError, match="all masks of its training cases are empty"):
        opened(root, tmp_path, ["a", "c"], ["b"])
    with caplog.at_level(logging.WARNING):
        opened(root, tmp_path, ["b"], ["a", "c"])
    assert "all masks of its validation cases are empty, so there is no Dice" in caplog.text
    assert "one patient" not in caplog.text


def test_a_value_without_a_name_is_found_before_training(tmp_path):
    root = nnunet(tmp_path / "set", ["liver"], {"a": [1], "b": [1, 4]})
    with pytest.raises(LabelError, match=r"b\.nii\.gz: labels must be between 0 and 1 \(got 0 to 4\)"):
        opened(root, tmp_path, ["a"], ["b"])


@pytest.mark.parametrize("again", ["copied", "compressed again"])
def test_the_same_picture_under_two_names_is_refused(tmp_path, again):
    for folder in ("images", "masks"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for id in ("a", "b", "c", "d"):
        picture = generator.integers(0, 255, (24, 20), dtype=np.uint8) if id != "d" else np.zeros((24, 20), np.uint8)
        mask = np.zeros((24, 20), np.uint8)
        mask[2 : 6 + ord(id) % 5, 2:9] = 1
        Image.fromarray(picture).save(tmp_path / "set" / "images" / f"{id}.png")
        Image.fromarray(mask).save(tmp_path / "set" / "masks" / f"{id}.png")
    (tmp_path / "set" / "label_map.json").write_text('{"0": "background", "1": "polyp"}')
    settings = {"cache_dir": tmp_path / "cache", "slices": True, "labels": LabelMap(["polyp"])}
    split = {"train": ["a", "c"], "val": ["b", "d"]}
    open_dataset(tmp_path / "set", split=split, **settings)
    for folder in ("images", "masks"):
        image = Image.open(tmp_path / "set" / folder / "a.png")
        target = tmp_path / "set" / folder / "b.png"
        image.save(target, compress_level=0 if again != "copied" else 6)
    with pytest.raises(DataError, match="a and b are the same image"):
        open_dataset(tmp_path / "set", split=split, **settings)
