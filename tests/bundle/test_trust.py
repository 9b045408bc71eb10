"""The gate as the bundle floor has it: before predict, train and evaluate, and weights never run anything."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import medseg
from medseg.bundle.bundle import require_trust
from medseg.cli.main import cli
from medseg.errors import UntrustedError, WeightsError


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.fixture
def hostile(trained, tmp_path):
    """A trained bundle whose configs make a file when they are evaluated."""
    root = Path(shutil.copytree(trained, tmp_path / "b"))
    for name in ("inference", "train", "evaluate"):
        path = root / "configs" / f"{name}.json"
        content = json.loads(path.read_text())
        content["device"] = f"$__import__('pathlib').Path({str(tmp_path / 'canary')!r}).touch() or 'cpu'"
        path.write_text(json.dumps(content))
    return root


def run(*arguments):
    return CliRunner().invoke(cli, [str(one) for one in arguments])


def test_predict_train_and_evaluate_refuse_it(hostile, phantom, tmp_path):
    scan = phantom / "p0003" / "ct.nii.gz"
    for arguments in (
        ["predict", hostile, scan, "-o", tmp_path / "out"],
        ["train", hostile, "--data", phantom],
        ["evaluate", hostile, "--data", phantom, "-o", tmp_path / "out"],
    ):
        found = run(*arguments)
        assert isinstance(found.exception, UntrustedError), (arguments, found.exception, found.output)
        assert "expression-unknown" in str(found.exception)
    assert not (tmp_path / "canary").exists()


def test_python_refuses_it_before_anything_of_it_runs(hostile, tmp_path):
    for use in (
        lambda: medseg.Predictor(medseg.Bundle.open(hostile)),
        lambda: medseg.load(hostile),
        lambda: medseg.segment(np.zeros((4, 4, 4)), hostile, affine=np.eye(4)),
        lambda: medseg.train(hostile, None),
        lambda: medseg.Bundle.open(hostile).resolve("evaluate"),
        lambda: medseg.Bundle.open(hostile).resolve("train", {"lr": 0.1}),
    ):
        with pytest.raises(UntrustedError, match="expression-unknown"):
            use()
    assert not (tmp_path / "canary").exists()


def test_an_overlay_is_inspected_with_the_bundle(repository, tmp_path):
    (tmp_path / "overlay.json").write_text(json.dumps({"lr": f"$open({str(tmp_path / 'canary')!r}, 'w') and 1"}))
    bundle = medseg.Bundle.open("unet2d")
    bundle.resolve("train", {}, ["poly"])
    with pytest.raises(UntrustedError, match="overlay"):
        bundle.resolve("train", {}, ["poly", tmp_path / "overlay.json"])
    assert not (tmp_path / "canary").exists()


def test_trust_lets_it_pass_in_python(hostile, tmp_path):
    medseg.Bundle.open(hostile, trust=True).resolve("inference").get_parsed_content("device")
    assert (tmp_path / "canary").exists()


def test_trust_lets_it_pass(hostile, phantom, tmp_path):
    run("predict", hostile, phantom / "p0003" / "ct.nii.gz", "-o", tmp_path / "out", "--trust")
    assert (tmp_path / "canary").exists()


def test_the_folder_of_a_run_passes(trained):
    require_trust(trained, False)


def test_weights_that_would_run_code_are_refused_even_if_trusted(trained, phantom, tmp_path):
    root = Path(shutil.copytree(trained, tmp_path / "b"))
    torch.save(Evil(tmp_path / "canary"), root / "models" / "model.pt")
    with pytest.raises(UntrustedError, match=r"pickle-unsafe in models/model\.pt"):
        require_trust(root, False)
    found = run("predict", root, phantom / "p0003" / "ct.nii.gz", "-o", tmp_path / "out", "--trust")
    causes: list[BaseException | None] = [found.exception]
    while causes[-1] is not None:
        causes.append(causes[-1].__cause__)
    assert any(isinstance(one, WeightsError) for one in causes)
    assert not (tmp_path / "canary").exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(root / "models" / "model.pt", weights_only=True)
