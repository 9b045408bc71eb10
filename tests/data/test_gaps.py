"""Label maps whose values have gaps: matched by name, in training, preparation, check and evaluation alike."""

import json

import nibabel as nib
import numpy as np
import pytest

from medseg.data import check_dataset, convert, discover, open_dataset, prepare
from medseg.data.masks import label_values
from medseg.errors import LabelError
from medseg.evaluation import evaluate
from medseg.labels import LabelMap

GAPS = LabelMap.from_dict({"0": "background", "1": "liver", "5": "spleen", "200": "stomach"}, gaps=True)


def test_values_with_gaps_become_indices():
    assert label_values(np.array([0, 5, 200, 1.0]), GAPS, "x").tolist() == [0, 2, 3, 1]
    assert GAPS.to_dict() == {"0": "background", "1": "liver", "5": "spleen", "200": "stomach"}
    assert LabelMap(["liver", "spleen", "stomach"]) != GAPS
    only = LabelMap.from_dict({"0": "background", "255": "liver"}, gaps=True)
    assert label_values(np.array([0, 255], np.uint8), only, "x").tolist() == [0, 1]


@pytest.mark.parametrize(
    ("values", "listed"),
    [([0, 2, 5], "2"), ([201], "201"), ([-1, 7, 8, 9, 10], "-1, 7, 8, 9"), ([np.nan], "nan"), ([4.5], "4.5")],
)
def test_a_value_in_a_gap_is_an_error_that_lists_it(values, listed):
    with pytest.raises(LabelError, match=rf"x: it holds values without a name \({listed}\)"):
        label_values(np.array(values), GAPS, "x")


def test_a_network_has_no_gaps():
    with pytest.raises(LabelError, match="without a gap"):
        LabelMap.from_dict(GAPS.to_dict())
    for content in ({"1": "liver"}, {"0": "liver"}, {"-1": "a", "0": "background"}):
        with pytest.raises(LabelError, match=r"the values must run from 0 \(background\)"):
            LabelMap.from_dict(content, gaps=True)


@pytest.fixture(params=["folders", "nnunet", "decathlon"])
def gapped(request, save, tmp_path):
    """Two cases whose label maps hold 0, 1, 5 and 200, in each layout that names values."""
    root, values = tmp_path / "set", np.zeros((8, 7, 6), np.uint8)
    values[1:3], values[4, 2:5], values[6, :3, :3] = 1, 5, 200
    images, labels, ending = (
        ("images", "labels", "")
        if request.param == "folders"
        else ("imagesTr", "labelsTr", "_0000" if request.param == "nnunet" else "")
    )
    for number, id in enumerate("ab"):
        ct = np.random.default_rng(number).integers(-200, 200, values.shape).astype(np.int16)
        save(f"set/{images}/{id}{ending}.nii.gz", ct)
        save(f"set/{labels}/{id}.nii.gz", values)
    if request.param == "folders":
        (root / "label_map.json").write_text(json.dumps(GAPS.to_dict()))
    elif request.param == "nnunet":
        content = {"labels": {name: int(value) for value, name in GAPS.to_dict().items()}, "numTraining": 2}
        (root / "dataset.json").write_text(json.dumps({"channel_names": {"0": "CT"}, **content}))
    else:
        entries = [{"image": f"imagesTr/{id}.nii.gz", "label": f"labelsTr/{id}.nii.gz"} for id in "ab"]
        (root / "dataset.json").write_text(json.dumps({"labels": GAPS.to_dict(), "training": entries}))
    return root, np.searchsorted(GAPS.values, values)


def test_every_command_reads_them_by_name(gapped, tmp_path):
    root, expected = gapped
    report = check_dataset(root)
    assert not [finding for finding in report.findings if finding.code == "label-values"]
    assert report.cases[0].voxels == {name: int((expected == index + 1).sum()) for index, name in enumerate(GAPS)}
    network = LabelMap(["liver", "spleen", "stomach"])
    opened = open_dataset(root, network, tmp_path / "cache").cases
    prepare(root, tmp_path / "out")
    convert(root, tmp_path / "raw", "nnunet")
    for case in (*opened, *discover(tmp_path / "out").cases, *discover(tmp_path / "raw").cases):
        assert np.array_equal(np.asarray(nib.load(case.label).dataobj), expected)
    scores = evaluate(
        tmp_path / "out" / "labels", next(path for path in (root / "labels", root / "labelsTr") if path.is_dir())
    )
    assert set(scores.pairs.labels) == set(network)
    assert scores.mean("dice") == 1.0


def test_arrays_are_evaluated_by_given_values():
    truth = np.zeros((4, 4, 4), int)
    truth[1:3], truth[3] = 5, 200
    assert evaluate(truth, truth, {"0": "background", "5": "spleen", "200": "stomach"}).mean("dice") == 1.0
