"""Error messages of the room as a user sees them."""

import numpy as np
import pytest

from medseg.errors import MedsegError
from medseg.evaluation import compare_evaluations, evaluate, find_sources, load, match


def message(function, *arguments, **options):
    with pytest.raises(MedsegError) as error:
        function(*arguments, **options)
    return str(error.value)


def test_cases_without_a_partner(folders, put, kit):
    put("truth/d.nii.gz", kit.volume())
    assert message(match, *map(find_sources, folders)) == (
        "predictions and truths: they are not of the same cases (1 truth without a prediction: d). "
        "Add the missing ones, or give --partial (in Python partial=True) to evaluate the others."
    )


def test_label_maps_without_names(save, tmp_path):
    path = save("maps/a.nii.gz", np.zeros((4, 4, 4), np.uint8))
    assert message(find_sources, tmp_path / "maps") == (
        f"{path}: its labels have no names, and label maps are matched by name, never by number (none in its header, "
        "no label_map.json, dataset.json or classes.json beside it). Give a file with the names, or the word "
        "totalsegmentator, with --truth-labels or --prediction-labels."
    )


def test_a_folder_that_is_not_there(tmp_path):
    path = tmp_path / "nowhere"
    assert message(evaluate, path, path) == f"{path}: there must be a folder of label maps (no such folder)."
    fix = "Give the folder that medseg evaluate wrote."
    assert message(load, tmp_path) == f"{tmp_path}: there is no evaluation here. {fix}"
    assert message(load, path) == f"{path}: there is no evaluation here (no such file or folder). {fix}"


def test_arrays_of_different_shapes():
    assert message(evaluate, np.zeros((2, 2, 2)), np.zeros((2, 2, 3)), ["liver"]) == (
        "prediction in memory: the prediction must have the truth's shape (2, 2, 3) (got (2, 2, 2))."
    )


def test_an_unknown_correction():
    empty = {"measures": [], "cases": [], "prediction": ""}
    assert message(compare_evaluations, empty, empty, correction="bonferoni") == (
        "correction: it must be holm, bh or none (got 'bonferoni')."
    )
    assert message(compare_evaluations, empty, empty) == (
        "evaluations: they have no case in common. Evaluate both on the same cases."
    )
