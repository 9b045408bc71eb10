"""Masks of 2D slices against masks: the values are worked out with NumPy and SciPy, from the arrays."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import directed_hausdorff

import medseg
from medseg.bundle.prediction import SlicePrediction
from medseg.data.layouts.kaggle import encode_runs
from medseg.errors import DataError, GeometryError, LabelError, MedsegError
from medseg.evaluation.pictures import holds_pictures
from medseg.labels import LabelMap

NAMES = ("large_bowel", "small_bowel", "stomach")
COLORS = {"background": [0, 0, 0], "large_bowel": [255, 255, 0], "small_bowel": [0, 128, 0], "stomach": [255, 0, 0]}
SCANS = {"case1_day0": 3, "case2_day7": 2}  # slices


def label_maps(seed):
    """Class indices by slice: blocks at random places, none of the stomach in the second scan."""
    generator = np.random.default_rng(seed)
    maps = {}
    for scan, count in SCANS.items():
        for number in range(1, count + 1):
            label = np.zeros((20, 26), np.uint8)
            for index in range(1, 4 if scan == "case1_day0" else 3):
                i, j = generator.integers(0, (13, 19))
                label[i : i + generator.integers(2, 7), j : j + generator.integers(2, 7)] = index
            maps[f"{scan}_slice_{number:04d}"] = label
    return maps


TRUTH, PREDICTED = label_maps(0), label_maps(1)
PREDICTED["case2_day7_slice_0001"][:] = 0  # a slice in which all is missed


def write(folder, maps, colored=False, ending="", suffix=".png"):
    folder.mkdir(parents=True)
    for id, label in maps.items():
        values = np.array(list(COLORS.values()), np.uint8)[label] if colored else label
        Image.fromarray(values).save(folder / f"{id}{ending}{suffix}")
    return folder


@pytest.fixture
def predicted(tmp_path):
    """What `medseg predict` leaves: masks/, label_map.json, pixels.csv."""
    write(tmp_path / "out" / "masks", PREDICTED)
    (tmp_path / "out" / "label_map.json").write_text(json.dumps(dict(enumerate(["background", *NAMES]))))
    (tmp_path / "out" / "pixels.csv").write_text("slice,scan,structure,pixels,area_mm2\n")
    return tmp_path / "out"


@pytest.fixture
def data(tmp_path):
    """A data set: images and masks in colors."""
    write(tmp_path / "data" / "images", TRUTH)
    write(tmp_path / "data" / "masks", TRUTH, colored=True, ending="_mask")
    (tmp_path / "data" / "classes.json").write_text(json.dumps(COLORS))
    return tmp_path / "data"


def volumes(maps):
    """Slices stacked by scan: `(rows, columns, slices)`."""
    return {scan: np.stack([maps[id] for id in sorted(maps) if id.startswith(scan)], -1) for scan in SCANS}


def dice_of(true, predicted):
    total = true.sum() + predicted.sum()
    return 2 * (true & predicted).sum() / total if total else np.nan


def expected_scores():
    """Dice of scans, F1 of pixels, and the competition's score."""
    true, predicted = volumes(TRUTH), volumes(PREDICTED)
    dice = np.array([[dice_of(true[s] == k, predicted[s] == k) for k in (1, 2, 3)] for s in SCANS])
    all_true = np.concatenate([volume.ravel() for volume in true.values()])
    all_predicted = np.concatenate([volume.ravel() for volume in predicted.values()])
    f1 = [dice_of(all_true == k, all_predicted == k) for k in (1, 2, 3)]
    slices = [dice_of(TRUTH[id] == k, PREDICTED[id] == k) for id in TRUTH for k in (1, 2, 3)]
    distances = []
    for scan in SCANS:
        for k in (1, 2, 3):
            a, b = np.argwhere(true[scan] == k), np.argwhere(predicted[scan] == k)
            if len(a) and len(b):
                longest = max(directed_hausdorff(a, b)[0], directed_hausdorff(b, a)[0])
                distances.append(longest / np.linalg.norm(true[scan].shape))
            elif len(a) or len(b):
                distances.append(1.0)
    score = 0.4 * np.nanmean(slices) + 0.6 * (1 - np.mean(distances))
    return np.nanmean(np.nanmean(dice, axis=0)), f1, score, np.mean(distances)


def check(content):
    dice, f1, score, distance = expected_scores()
    assert content["mean"]["dice"]["mean"] == pytest.approx(dice, abs=1e-12)
    by_name = {row["structure"]: row for row in content["structures"]}
    assert [by_name[name]["f1"] for name in NAMES] == pytest.approx(f1, abs=1e-12)
    assert content["f1"] == pytest.approx(np.mean(f1), abs=1e-12)
    assert content["gi_tract"]["score"] == pytest.approx(score, abs=1e-12)
    assert content["gi_tract"]["hausdorff"] == pytest.approx(distance, abs=1e-12)
    assert {case["case"] for case in content["cases"]} == set(SCANS)


def test_a_prediction_against_a_data_set_equals_numpy_and_scipy(predicted, data):
    check(medseg.evaluate(predicted, data).to_dict())


def test_folders_of_masks_alone_and_of_colors_give_the_same(predicted, data, tmp_path):
    check(medseg.evaluate(predicted / "masks", data / "masks").to_dict())
    write(tmp_path / "third" / "sub", PREDICTED, colored=True, ending="_seg", suffix=".bmp")
    (tmp_path / "third" / "classes.json").write_text(json.dumps(COLORS))
    check(medseg.evaluate(tmp_path / "third" / "sub", data).to_dict())
    (data / "classes.json").unlink()  # indices, named by a label map, beside images
    for id, label in TRUTH.items():
        Image.fromarray(label).save(data / "masks" / f"{id}_mask.png")
    (data / "label_map.json").write_text((predicted / "label_map.json").read_text())
    check(medseg.evaluate(predicted, data).to_dict())
    for k, name in enumerate(NAMES, 1):
        write(
            tmp_path / "single" / "masks" / name, {id: (label == k) * np.uint8(255) for id, label in PREDICTED.items()}
        )
    (tmp_path / "single" / "classes.json").write_text(json.dumps(COLORS))
    check(medseg.evaluate(tmp_path / "single", data).to_dict())


def test_kaggles_table_is_a_truth(predicted, tmp_path):
    lines = ["id,class,segmentation"]
    for id, label in TRUTH.items():
        scan, _, number = id.partition("_slice_")
        folder = tmp_path / "kaggle" / "train" / scan.partition("_")[0] / scan / "scans"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros(label.shape, np.uint16)).save(folder / f"slice_{number}_26_20_1.50_1.50.png")
        lines += [f"{id},{name},{encode_runs(label == k)}" for k, name in enumerate(NAMES, 1)]
    (tmp_path / "kaggle" / "train.csv").write_text("\n".join(lines) + "\n")
    check(medseg.evaluate(predicted, tmp_path / "kaggle").to_dict())


def test_overlapping_predictions_count_in_full(predicted, data):
    everywhere = {id: np.full(label.shape, 255, np.uint8) for id, label in PREDICTED.items()}
    for name in NAMES:
        write(predicted / "structures" / name, everywhere)
    content = medseg.evaluate(predicted, data).to_dict()
    for row in content["structures"]:
        k = NAMES.index(row["structure"]) + 1
        true = sum((label == k).sum() for label in TRUTH.values())
        assert row["f1"] == pytest.approx(2 * true / (true + 5 * 520), abs=1e-12)


def test_other_structures_have_no_competition_score_and_slices_without_a_scan_are_cases(tmp_path):
    label = np.zeros((8, 9), np.uint8)
    label[2:5, 2:5] = 1
    for side, moved in (("a", label), ("b", np.roll(label, 1, 0))):
        write(tmp_path / side / "masks", {"polyp": moved, "other": label})
        (tmp_path / side / "label_map.json").write_text('{"0": "background", "1": "polyp"}')
    evaluation = medseg.evaluate(tmp_path / "a", tmp_path / "b")
    content = evaluation.to_dict()
    assert content["gi_tract"] is None
    assert {case["case"]: case["mean"]["dice"] for case in content["cases"]} == pytest.approx(
        {"polyp": 2 / 3, "other": 1}
    )
    assert evaluation.f1()["polyp"] == pytest.approx(2 * 15 / 36)
    one = medseg.evaluate(tmp_path / "a" / "masks" / "polyp.png", tmp_path / "b" / "masks" / "polyp.png")
    assert one.mean("dice") == pytest.approx(2 / 3)


def test_what_does_not_fit_is_named(predicted, data, tmp_path):
    Image.new("L", (5, 5)).save(predicted / "masks" / "case1_day0_slice_0001.png")
    content = medseg.evaluate(predicted, data).to_dict()
    assert "case1_day0_slice_0001.png: it has 5 rows and 5 columns" in content["failed"]["case1_day0"]
    (predicted / "masks" / "case1_day0_slice_0001.png").unlink()
    with pytest.raises(DataError, match="1 truth without a prediction: case1_day0_slice_0001"):
        medseg.evaluate(predicted, data)
    assert len(medseg.evaluate(predicted, data, partial=True).to_dict()["cases"]) == 2
    with pytest.raises(MedsegError, match="pictures are not resampled"):
        medseg.evaluate(predicted, data, partial=True, resample=True)
    (predicted / "label_map.json").write_text('{"0": "background", "1": "liver", "2": "spleen", "3": "kidney"}')
    with pytest.raises(LabelError, match="no structure in common"):
        medseg.evaluate(predicted, data, partial=True)


def test_only_what_was_searched_for_is_evaluated(predicted, data):
    from medseg.image_io_2d import write_image_2d

    for id, label in PREDICTED.items():
        write_image_2d(predicted / "masks" / f"{id}.png", label * (label == 3), comment="only stomach")
    content = medseg.evaluate(predicted, data).to_dict()
    assert [row["structure"] for row in content["structures"]] == ["stomach"]
    assert content["gi_tract"] is None


def test_predictions_and_arrays_in_memory_are_compared_with_files(predicted, data):
    id = "case1_day0_slice_0002"
    expected = [dice_of(TRUTH[id] == k, PREDICTED[id] == k) for k in (1, 2, 3)]
    labels = LabelMap(list(NAMES))
    image, mask = data / "images" / f"{id}.png", data / "masks" / f"{id}_mask.png"
    prediction = SlicePrediction(id, image, PREDICTED[id], labels)
    channels = np.stack([PREDICTED[id] == k for k in (1, 2, 3)])
    for side, truth, names in (
        (prediction, mask, None),
        (replace(prediction, channels=channels), mask, None),
        (predicted / "masks" / f"{id}.png", mask, None),
        (PREDICTED[id], mask, NAMES),
        (prediction, TRUTH[id], NAMES),
        (PREDICTED[id], TRUTH[id], NAMES),
        ({id: prediction}, data, None),
    ):
        evaluation = medseg.evaluate(side, truth, names, partial=True)
        rows = {row["structure"]: row["dice"] for row in evaluation.rows()}
        assert [rows[name] for name in NAMES] == pytest.approx(expected, abs=1e-12)
    with pytest.raises(GeometryError, match="it has 19 rows and 26 columns, but its truth has 20 and 26"):
        medseg.evaluate(PREDICTED[id][:-1], mask, NAMES)


def test_smoothed_masks_are_remarked_on(predicted, data):
    id = "case2_day7_slice_0002"
    path = data / "masks" / f"{id}_mask.png"
    with Image.open(path) as image:
        pixels = np.asarray(image).copy()
    pixels[0, 0] = (9, 9, 0)
    Image.fromarray(pixels).save(path)
    notes = {case["case"]: case["notes"] for case in medseg.evaluate(predicted, data).to_dict()["cases"]}
    assert notes["case1_day0"] == []
    assert notes["case2_day7"][0].endswith("went to the class of the nearest pixel with one: background 1")


def test_a_subset_of_a_set_has_the_classes_of_the_set(predicted, data, tmp_path):
    (tmp_path / "set").mkdir()
    data.rename(tmp_path / "set" / "valid")
    (tmp_path / "set" / "valid" / "classes.json").rename(tmp_path / "set" / "classes.json")
    check(medseg.evaluate(predicted, tmp_path / "set" / "valid").to_dict())


def test_pictures_are_told_from_volumes_by_the_uppermost_files(predicted, data, tmp_path):
    assert holds_pictures(predicted)
    assert holds_pictures(data)
    for name in ("s1/ct.nii.gz", "s1/segmentations/liver.nii.gz", "s1/segmentations/view/liver.png"):
        (tmp_path / "volumes" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "volumes" / name).touch()
    assert not holds_pictures(tmp_path / "volumes")
    (tmp_path / "masks").mkdir()
    for name in ("a.nii.gz", "a.png"):  # with previews
        (tmp_path / "masks" / name).touch()
    assert not holds_pictures(tmp_path / "masks")
    (tmp_path / "empty").mkdir()
    assert not holds_pictures(tmp_path / "empty")
