import math

import numpy as np
import pytest

from medseg.errors import LabelError, MedsegError
from medseg.labels import LabelMap
from medseg.metrics import measure_names, structure_scores

LABELS = LabelMap(["liver", "spleen", "kidney_left", "heart"])


def case():
    truth, prediction = np.zeros((2, 10, 10, 10), np.uint8)
    truth[1:5, 1:5, 1:5], prediction[1:5, 1:5, 2:6] = 1, 1
    truth[7:9, 7:9, 7:9] = 2  # missed
    prediction[0, 9, 9] = 3  # false
    return prediction, truth


def test_every_structure_has_its_state_and_measures():
    rows = structure_scores(*case(), LABELS, (1.0, 2.0, 5.0), case="s1")
    assert [(row.structure, row.state) for row in rows] == [
        ("liver", "found"),
        ("spleen", "missed"),
        ("kidney_left", "false positive"),
        ("heart", "absent"),
    ]
    liver, spleen, kidney, heart = (row.measures for row in rows)
    assert tuple(liver) == measure_names()
    assert liver["dice"] == pytest.approx(0.75)
    assert liver["iou"] == pytest.approx(0.6)
    assert liver["relative_volume_error"] == 0.0
    assert liver["hd95_mm"] == 5.0
    assert liver["nsd_3mm"] < 1.0
    assert spleen["dice"] == spleen["recall"] == spleen["nsd_1mm"] == kidney["dice"] == kidney["precision"] == 0.0
    assert math.isnan(spleen["hd95_mm"])
    assert math.isnan(kidney["relative_volume_error"])
    assert all(math.isnan(value) for value in heart.values())
    assert (rows[0].truth_voxels, rows[0].predicted_voxels) == (64, 64)
    assert rows[0].truth_ml == pytest.approx(64 * 10 / 1000)


def test_unannotated_structures_take_no_part():
    prediction, truth = case()
    rows = structure_scores(prediction, truth, LABELS, (1, 1, 1), annotated=["liver", "spleen"])
    kidney = rows[2]
    assert kidney.state == rows[3].state == "not annotated"
    assert kidney.predicted_voxels == 0
    assert all(math.isnan(value) for value in kidney.measures.values())
    with pytest.raises(LabelError, match="case s1, truth: holds label 2, which is not among the annotated structures"):
        structure_scores(prediction, truth, LABELS, (1, 1, 1), annotated=["liver"], case="s1")


def test_distances_are_computed_only_if_requested():
    rows = structure_scores(*case(), LABELS, (1, 1, 1), surfaces=False)
    assert tuple(rows[0].measures) == ("dice", "iou", "precision", "recall", "relative_volume_error")


def test_tolerances_name_their_measures():
    rows = structure_scores(*case(), LABELS, (1, 1, 1), tolerances_mm=(0.5, 10))
    assert [name for name in rows[0].measures if name.startswith("nsd")] == ["nsd_0.5mm", "nsd_10mm"]
    assert rows[0].measures["nsd_10mm"] == 1.0
    for wrong in (-1.0, math.nan):
        with pytest.raises(MedsegError, match="NSD's tolerance: must be 0 mm or more"):
            measure_names([wrong])
