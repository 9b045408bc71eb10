"""The zoo's layouts as published, through predict, train, evaluate and install; what is missing is one sentence."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, create_workflow
from monai.engines import SupervisedTrainer

from tests.bundle.verify import zoo

# MONAI warns of how the zoo's configs are written
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
LAYOUTS = {"spleen": zoo.spleen, "whole_body": zoo.whole_body, "swin_unetr": zoo.swin_unetr}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Both layouts with weights, and a set in the Decathlon's layout, which they were written for."""
    root = tmp_path_factory.mktemp("foreign")
    for name, write in LAYOUTS.items():
        bundle = write(root / name)
        torch.manual_seed(0)
        network = ConfigParser(json.loads((bundle / "configs" / "inference.json").read_text())).get_parsed_content(
            "network_def"
        )
        (bundle / "models").mkdir()
        torch.save(network.state_dict(), bundle / "models" / "model.pt")
    blocks = np.random.default_rng(0).integers(-100, 200, (5, 4, 3))
    scan = np.kron(blocks, np.ones((5, 5, 6))).astype(np.int16)
    names = {"imagesTr": ("Tr0", "Tr1"), "labelsTr": ("Tr0", "Tr1"), "imagesTs": ("Ts0",)}
    for folder, ids in names.items():
        (root / "set" / folder).mkdir(parents=True)
        for number, id in enumerate(ids):
            values = (scan > 50).astype(np.uint8) if folder == "labelsTr" else scan + number
            image = nib.Nifti1Image(values, np.diag([1.5, 1.5, 2.0, 1.0]))
            nib.save(image, root / "set" / folder / f"s_{id}.nii.gz")
    training = [{"image": f"./imagesTr/s_{id}.nii.gz", "label": f"./labelsTr/s_{id}.nii.gz"} for id in ("Tr0", "Tr1")]
    content = {"labels": {"0": "background", "1": "spleen"}, "modality": {"0": "CT"}, "training": training, "test": []}
    (root / "set" / "dataset.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def bundle(foreign, tmp_path):
    return lambda name: Path(shutil.copytree(foreign / name, tmp_path / name))


def voxels(path):
    return np.asanyarray(nib.load(path).dataobj)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("trust", [(), ("--trust",)], ids=["", "trusted"])
def test_predict_gives_the_mask_of_monais_own_command(medseg, bundle, foreign, tmp_path, name, trust):
    root, scans = bundle(name), foreign / "set" / "imagesTs"
    done = medseg("predict", root, scans, "-o", tmp_path / "masks", *trust)
    assert done.code == 0, done.err
    options = {"dataset_dir": str(foreign / "set"), "output_dir": str(tmp_path / "monai"), "device": "cpu"}
    workflow = create_workflow(
        config_file=str(root / "configs" / "inference.json"), workflow_type="inference", logging_file=False,
        bundle_root=str(root), meta_file=str(root / "configs" / "metadata.json"), **options)  # fmt: skip
    workflow.run()
    (expected,) = (tmp_path / "monai").rglob("*.nii.gz")
    mask = nib.load(tmp_path / "masks" / "s_Ts0.nii.gz")
    assert np.array_equal(mask.affine, nib.load(scans / "s_Ts0.nii.gz").affine)
    assert np.array_equal(voxels(tmp_path / "masks" / "s_Ts0.nii.gz"), voxels(expected).astype(np.uint8))
    assert len(np.unique(voxels(expected))) > 1


@pytest.mark.parametrize("trust", [(), ("--trust",)], ids=["", "trusted"])
def test_evaluate_takes_the_sets_own_split(medseg, bundle, foreign, tmp_path, trust):
    done = medseg("evaluate", bundle("spleen"), "--data", foreign / "set", "-o", tmp_path / "evaluation", *trust)
    assert done.code == 0, done.err
    content = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    (case,) = content["cases"]
    mask = voxels(tmp_path / "evaluation" / "predictions" / f"{case['case']}.nii.gz") == 1
    truth = voxels(foreign / "set" / "labelsTr" / f"{case['case']}.nii.gz") == 1
    assert case["mean"]["dice"] == pytest.approx(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


@pytest.mark.parametrize(("name", "key"), [("spleen", "run"), ("whole_body", "training")])
def test_train_needs_trust_and_runs_the_key_that_there_is(medseg, bundle, foreign, monkeypatch, name, key):
    root, epochs, run = bundle(name), [], SupervisedTrainer.run

    def watched(trainer):
        run(trainer)
        epochs.append(trainer.state.epoch)

    monkeypatch.setattr(SupervisedTrainer, "run", watched)
    file = root / "configs" / "train.json"
    text = file.read_text().replace("[:-9]", "[:1]").replace("[-9:]", "[1:]")  # as many cases as there are
    file.write_text(text)
    arguments = ("train", root, "--data", foreign / "set", "train#trainer#max_epochs=1", "device=cpu")
    refused = medseg(*arguments)
    assert (refused.code, epochs) == (1, [])
    assert "give --trust" in refused.err
    done = medseg(*arguments, "--trust")
    assert done.code == 0, done.err
    assert epochs == [1]
    assert key in json.loads(text)


def without(root, config, *keys):
    file = root / "configs" / f"{config}.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in content.items() if key not in keys}))


@pytest.mark.parametrize("gone", ["preprocessing", "inferer", "network"])
def test_a_missing_key_is_named_with_monais_command(medseg, bundle, foreign, tmp_path, gone):
    root = bundle("spleen")
    without(root, "inference", gone, *["network_def"] * (gone == "network"))
    arguments = ("predict", root, foreign / "set" / "imagesTs", "-o", tmp_path / "masks")
    plain, trusted = medseg(*arguments), medseg(*arguments, "--trust")
    assert (plain.code, trusted.code) == (1, 1)
    assert gone in plain.err.splitlines()[-1]
    assert re.search(
        rf"inference.json has no key .*'{gone}'.*, which medseg needs for this\. MONAI runs it", trusted.err
    )
    assert f"python -m monai.bundle run run --config_file {root}/configs/inference.json" in trusted.err


def test_a_training_without_anything_to_run_is_one_sentence(medseg, bundle, foreign):
    root = bundle("spleen")
    without(root, "train", "run")
    done = medseg("train", root, "--data", foreign / "set", "--trust")
    assert done.code == 1
    assert "its train.json has no key 'training', which medseg needs for this. MONAI runs it as" in done.err


@pytest.mark.parametrize("name", LAYOUTS)
def test_install_warns_of_style_and_takes_it(medseg, bundle, foreign, tmp_path, caplog, name):
    root = bundle(name)
    (root / "configs" / "inference_trt.json").write_text(
        '{"x": "$import os; os.system(1)", "+imports": ["$from trt import a"]}'
    )
    archive = shutil.make_archive(str(tmp_path / "zip"), "zip", root.parent, name)
    done = medseg("bundle", "install", archive, "-o", tmp_path / "there")
    assert done.code == 0, done.err
    assert "warning pairing: configs/train.json" in caplog.text
    assert medseg("predict", tmp_path / "there", foreign / "set" / "imagesTs", "-o", tmp_path / "masks").code == 0


@pytest.mark.parametrize("name", LAYOUTS)
def test_install_refuses_weights_of_another_network(medseg, bundle, tmp_path, name):
    root = bundle(name)
    torch.save({"conv.weight": torch.zeros(3)}, root / "models" / "model.pt")
    archive = shutil.make_archive(str(tmp_path / "zip"), "zip", root.parent, name)
    done = medseg("bundle", "install", archive, "-o", tmp_path / "there")
    assert done.code == 1
    assert "weights-fit in models/model.pt" in done.err
    assert not (tmp_path / "there").exists()
