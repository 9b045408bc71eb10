"""The demo from end to end, small: what it writes and says. Its Dice at full size is in docs/benchmarks."""

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medseg.cli.demo import _show

pytestmark = pytest.mark.slow


def test_it_trains_segments_compares_and_writes_everything_it_names(medseg, tmp_path):
    small = ["max_epochs=1", "samples_per_case=4", "val_interval=1", "num_workers=0", "device=cpu"]
    phantom = '{"train": 2, "val": 1, "test": 2, "seed": 1, "size": [48, 40], "spacing": [8, 7, 18], "region": "trunk"}'
    settings = [part for pair in [*small, f"data#phantom={phantom}", "patch_size=[48, 40]"] for part in ("--set", pair)]
    done = medseg("demo", "-o", tmp_path / "demo", *settings)
    assert done.code == 0, done.err
    for step in ("[1/4]", "[2/4]", "[3/4]", "[4/4]"):
        assert step in done.err
    result = json.loads((tmp_path / "demo" / "result.json").read_text())
    assert set(result["dice"]) >= {"liver", "spleen"}
    assert len(result["dice"]) >= 15
    assert result["train_seconds"] > 0
    assert result["infer_seconds"] > 0
    assert len(result["masks"]) == len(result["previews"]) == 2
    for path in (*result["masks"], *result["previews"], result["bundle"]):
        assert (tmp_path / path).exists()
    mask = nib.load(result["masks"][0])
    image = nib.load(f"{result['dataset']}/p0003/ct.nii.gz")
    assert np.array_equal(mask.affine, image.affine)
    assert "Mean Dice of the structures of at least 500 voxels" in done.out
    large = [
        score
        for case in result["cases"].values()
        for name, score in case["dice"].items()
        if case["voxels"][name] >= 500
    ]
    for case in result["cases"].values():
        assert {name for name, score in case["dice"].items() if score is None} == {
            name for name, voxels in case["voxels"].items() if voxels == 0
        }
        assert all(case["voxels"][name] == 0 for name, voxels in case["invented"].items() if voxels)
    assert result["mean_dice"] == (round(sum(large) / len(large), 4) if large else None)


def test_the_table_tells_absent_from_invented(capsys):
    results = [
        {"voxels": {"liver": 900, "spleen": 0, "aorta": 0}, "invented": {"liver": 0, "spleen": 77, "aorta": 0}},
        {"voxels": {"liver": 800, "spleen": 0, "aorta": 0}, "invented": {"liver": 0, "spleen": 3, "aorta": 0}},
    ]
    _show({"liver": 0.75, "spleen": None, "aorta": None}, results)
    table = capsys.readouterr().out
    assert re.search(r"liver.*900.*0\.750", table)
    assert re.search(r"spleen.*0.*invented: 80 voxels", table)
    assert re.search(r"aorta.*absent", table)


def test_a_bundle_from_elsewhere_is_refused_before_anything_is_written(medseg, tmp_path):
    root = tmp_path / "b"
    shutil.copytree(Path(__file__).parents[2] / "bundles" / "unet2d", root)
    done = medseg("demo", "-o", tmp_path / "demo", "--bundle", root)
    assert done.code == 1
    assert "to use its train.json runs whatever that holds" in done.err
    assert not (tmp_path / "demo").exists()
