"""A first day: a set of one's own, the commands that are printed, and where things are afterwards."""

import json
import shlex
import subprocess
import sys

import pytest
import torch

from tests.data.test_classes import nnunet

pytestmark = pytest.mark.slow


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDSEG_RUNS", raising=False)
    return tmp_path


@pytest.fixture
def tiny_unet(small):
    return [pair for pair in small if not pair.startswith(("structures", "spacing"))]


def test_a_set_of_ones_own_is_prepared_trained_and_used_by_the_printed_commands(medseg, here, tiny_unet):
    nnunet(here / "my set", ["liver", "lesion"])
    prepared = medseg("data", "prepare", here / "my set", here / "ready made", "--workers", 0, "--store")
    (line,) = [line for line in prepared.out.splitlines() if line.startswith("Train on it: ")]
    command = shlex.split(line.removeprefix("Train on it: "))
    assert command[-1] == "spacing=-1,-1,-1"  # the store has the scans' own
    done = medseg(*command[1:], *tiny_unet, "run_name=first")
    assert done.code == 0, done.err
    lines = done.err.splitlines()
    assert lines[0] == "Training unet2d: loading PyTorch and MONAI, which takes some seconds"
    assert "2 to train on, 1 to validate" in done.err.replace("2 cases", "2")
    assert "2 structures: liver, lesion; patches of " in done.err
    assert any("Training BasicUNet with " in line and " steps of 4 samples an epoch" in line for line in lines)

    (run,) = (here / "runs" / "unet2d").iterdir()
    last = lines[-1]
    assert f"The run is in {run.relative_to(here)}." in last
    assert last.endswith(f"Segment with it: medseg predict {run.relative_to(here)} SCAN -o masks")
    assert json.loads((run / "label_map.json").read_text()) == {"0": "background", "1": "liver", "2": "lesion"}
    state = torch.load(run / "models" / "model.pt", weights_only=True)
    assert list(state.values())[-1].shape[0] == 3
    assert json.loads((run / "monitor" / "settings.json").read_text())["name"] == run.name

    scan = here / "my set" / "imagesTr" / "c_0000.nii.gz"
    for name in (run.relative_to(here), run.name, "first"):
        assert medseg("runs", "show", name).code == 0
    assert medseg("predict", "first", scan, "-o", "masks").code == 0
    assert medseg("report", run.name, "-o", "page.html").code == 0
    assert medseg("evaluate", run.name, "--data", "my set", "-o", "scores", "--workers", 0).code == 0
    assert run.name in medseg("runs").out


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        (f"run_name={'x' * 240}", "run_name: it has 240 letters"),
        ("run_name=a/b", "run_name: it becomes the name of a folder"),
        ("run_name=nul", "run_name: this is the name of a device"),
        ("monitor#project=a/b", "monitor#project: W&B takes"),
        (f'monitor#tags=["{"t" * 65}"]', "monitor#tags: a tag has 1 to 64 letters"),
    ],
)
def test_a_bad_name_is_one_error_before_a_folder_is_made(medseg, here, tiny_unet, setting, problem):
    nnunet(here / "set", ["liver"])
    done = medseg("train", "unet2d", "--data", "set", *tiny_unet, "spacing=-1,-1,-1", setting)
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith(f"Error: {problem}")
    assert not list(here.glob("runs/unet2d/*"))


def test_the_first_line_comes_before_torch_is_imported():
    code = "import sys; sys.modules['torch'] = None; from medseg.cli import main; main(['train', 'unet2d'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.startswith("Training unet2d: loading PyTorch")
