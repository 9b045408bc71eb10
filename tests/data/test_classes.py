"""Which labels of a set a network learns, and which it may not be taught as background."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.data import SlicePhantomSpec, choose_labels, open_dataset, prepare, write_slice_phantom
from medseg.errors import ConfigError, LabelError
from medseg.labels import LabelMap

SPLIT = {"train": ["a"], "val": ["b"]}


def nnunet(root: Path, names: list[str], hold: dict[str, list[int]] | None = None) -> Path:
    """A raw nnU-Net folder of noise: by case, the label values that it holds; by default all of them."""
    hold = hold or {id: list(range(1, len(names) + 1)) for id in "abc"}
    for number, (id, values) in enumerate(hold.items()):
        label = np.zeros((12, 10, 6), np.uint8)
        for value in values:
            label[value, 2:6, 1:4] = value
        hu = np.random.default_rng(number).normal(0, 100, label.shape).astype(np.int16)
        for folder, name, content in (("imagesTr", f"{id}_0000", hu), ("labelsTr", id, label)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(content, np.diag([2.0, 2.0, 3.0, 1.0])), root / folder / f"{name}.nii.gz")
    labels = {"background": 0, **{name: index for index, name in enumerate(names, 1)}}
    description = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": len(hold), "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(description))
    return root


@pytest.mark.parametrize(
    "names",
    [["liver", "liver_tumour"], ["tumour"], ["spleen", "liver"], ["Zyste", "kidney_left"], ["edema", "core", "x"]],
)
def test_the_classes_are_those_of_the_set_in_its_order(tmp_path, names):
    labels = choose_labels(nnunet(tmp_path / "set", names))
    assert labels.structures == tuple(names)
    opened = open_dataset(tmp_path / "set", labels, tmp_path / "cache", SPLIT)
    assert all(case.label.is_relative_to(tmp_path / "set") for case in opened.cases if case.id in "ab")  # used as it is


def test_the_full_list_and_groups_are_asked_for_by_name(tmp_path):
    root = nnunet(tmp_path / "set", ["spleen", "liver"])
    assert choose_labels(root, "all") == LabelMap.totalsegmentator()
    assert choose_labels(root, ["liver", "spleen"]).structures == ("spleen", "liver")
    assert choose_labels(root, ["ribs", "liver"]) == LabelMap.totalsegmentator(["ribs", "liver"])
    own = nnunet(tmp_path / "own", ["liver", "lesion"])
    assert choose_labels(own, ["lesion", "spleen"]).structures == ("spleen", "lesion")
    with pytest.raises(LabelError, match="'lesoin'.*Did you mean 'lesion'"):
        choose_labels(own, ["lesoin"])
    with pytest.raises(LabelError, match="at least one structure"):
        choose_labels(own, [])


@pytest.mark.parametrize(
    ("names", "structures", "refused"),
    [
        (["liver", "liver_tumour"], "all", "liver_tumour"),
        (["liver", "liver_tumour"], ["liver"], "liver_tumour"),
        (["kidney_left", "cyst", "stone"], ["kidney_left", "cyst"], "stone"),
        (["core", "edema", "liver"], ["core"], "edema"),
        (["heart", "heart_myocardium"], "all", "heart_myocardium"),
    ],
)
def test_a_label_that_is_not_learned_is_dropped_by_name_or_refused(tmp_path, caplog, names, structures, refused):
    root = nnunet(tmp_path / "set", names)
    labels = choose_labels(root, structures)
    with pytest.raises(LabelError, match=rf"does not learn 1 of.*\({refused}\).* drop them: ignore_labels={refused}\."):
        open_dataset(root, labels, tmp_path / "cache", SPLIT)
    with caplog.at_level(logging.INFO):
        opened = open_dataset(root, labels, tmp_path / "cache", SPLIT, ignore_labels=[refused])
    assert "taken for background, as not chosen" in caplog.text
    assert refused in caplog.text
    assert opened.items("train", labels)
    open_dataset(root, labels, tmp_path / "cache", SPLIT, training=False)  # nothing is learned


def test_an_ignored_label_exists_and_is_not_learned(tmp_path):
    root = nnunet(tmp_path / "set", ["liver", "tumour"])
    with pytest.raises(LabelError, match="'tumor'.*Did you mean 'tumour'"):
        open_dataset(root, LabelMap(["liver"]), tmp_path / "cache", SPLIT, ignore_labels=["tumor"])
    with pytest.raises(LabelError, match="'liver': the network learns it"):
        open_dataset(root, LabelMap(["liver"]), tmp_path / "cache", SPLIT, ignore_labels=["liver", "tumour"])


def test_a_set_without_any_structure_of_the_network_is_told_the_command_for_a_bundle(tmp_path):
    root = nnunet(tmp_path / "set", ["tumour", "edema core"])
    with pytest.raises(
        LabelError, match=r"Leave `structures` out.*medseg bundle new NAME --structures 'tumour,edema core'"
    ):
        open_dataset(root, choose_labels(root, "all"), tmp_path / "cache", SPLIT)


def test_a_prepared_set_of_two_structures_trains_two(tmp_path):
    root = nnunet(tmp_path / "set", ["liver", "lesion"])
    prepare(root, tmp_path / "out")
    assert choose_labels(tmp_path / "out").num_channels() == 3


def test_classes_of_the_phantom():
    assert choose_labels(None, ["large_bowel", "stomach"], slices=True).structures == ("stomach", "large_bowel")
    with pytest.raises(LabelError, match="'liver'"):
        choose_labels(None, "liver", slices=True)


def test_classes_come_from_the_network_if_it_is_trained(tmp_path):
    spec = SlicePhantomSpec(train=1, val=0, slices=1, size=(16, 18), layout="kaggle")
    root = write_slice_phantom(tmp_path / "set", spec)
    assert set(choose_labels(root, slices=True).structures) == {"stomach", "small_bowel", "large_bowel"}
    assert choose_labels(root, ["stomach"], slices=True).structures == ("stomach",)
    names = tmp_path / "label_map.json"
    assert choose_labels(root, ["stomach"], names, slices=True) == choose_labels(
        root, ["stomach"], slices=True
    )  # there is no such file yet
    trained = LabelMap(["tumour", "liver"])
    trained.save(names)
    for location in (root, tmp_path / "pictures of somewhere", None):
        assert choose_labels(location, trained=names) == trained
    assert choose_labels(root, ["liver", "tumour"], str(names)) == trained  # in the order of the network
    LabelMap(["stomach", "colon"]).save(names)
    assert choose_labels(root, "organs", names).structures == ("stomach", "colon")  # a group, as it was trained on
    trained.save(names)
    for wrong in ("liver", ["liver", "tumour", "stomach"]):
        with pytest.raises(ConfigError, match=r"structures: the network's structures are those in .*label_map\.json"):
            choose_labels(root, wrong, names)
    names.write_text("{}")
    with pytest.raises(LabelError, match=r"label_map\.json"):
        choose_labels(root, trained=names)
