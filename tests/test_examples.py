"""Every example has at most ten lines of code, and runs."""

import ast
import importlib.util
import shutil
from pathlib import Path

import lightning
import nibabel as nib
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}


def run(name):
    """Import an example as a module, which runs it."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_have_a_description_and_at_most_ten_lines(path):
    text = path.read_text(encoding="utf-8")
    description = ast.get_docstring(ast.parse(text))
    assert description
    docstring_lines = len(description.splitlines())
    code = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    assert len(code) - docstring_lines <= 10


@pytest.fixture
def workplace(tmp_path, monkeypatch, phantom, trained):
    """The folder of a user: a data set, a scan, a run, masks and their truth."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEDSEG_RUNS", str(tmp_path / "runs"))
    shutil.copytree(trained, tmp_path / "runs" / "first")
    shutil.copytree(phantom, tmp_path / "dataset")
    shutil.copy(phantom / "p0002" / "ct.nii.gz", tmp_path / "scan.nii.gz")
    label = np.zeros((8, 8, 8), np.uint8)
    label[2:5, 2:5, 2:5], label[5:7, 5:7, 5:7] = 1, 2
    for folder in ("masks", "truth"):
        (tmp_path / folder).mkdir()
        nib.save(nib.Nifti1Image(label, np.diag([1.5, 1.5, 3.0, 1.0])), tmp_path / folder / "case.nii.gz")
    return tmp_path


def test_an_array_is_segmented_and_its_volume_read(workplace, capsys):
    prediction = run("segment").prediction
    assert float(capsys.readouterr().out) == pytest.approx(prediction.mask("liver").sum() * prediction.grid.voxel_ml)
    assert np.array_equal(nib.load(workplace / "masks" / "scan.nii.gz").dataobj, prediction.array)


@pytest.mark.slow
def test_a_training_is_plotted(workplace, capsys):
    module = run("train_and_plot")
    assert list(module.history["epoch"]) == [1, 2]
    assert module.run.state == "finished"
    assert (module.run.folder / "report.html").is_file()
    assert "mean_dice" in capsys.readouterr().out


def test_two_folders_are_evaluated(workplace, capsys):
    run("evaluate")
    assert capsys.readouterr().out == "1.0 1.0\n"
    assert "liver" in (workplace / "scores.csv").read_text()


def test_our_loss_and_inferer_in_a_plain_monai_script():
    labels = run("monai_training").labels
    assert labels.shape == (1, 1, 48, 48, 5)
    assert labels.max() < 3


@pytest.mark.filterwarnings(
    "ignore:.*does not have many workers:UserWarning",
    "ignore:.*isinstance.treespec, LeafSpec:FutureWarning",
    "ignore:GPU available but not used:UserWarning",
)
def test_our_metric_in_lightning(tmp_path):
    class Segmenter(lightning.LightningModule):
        def validation_step(self, batch, index):
            return torch.nn.functional.one_hot(batch["prediction"][:, 0], 3).movedim(-1, 1).float()

    truth = torch.tensor([[0, 1, 2, 2], [0, 1, 2, 0]]).reshape(2, 1, 2, 2)
    missed = torch.where(truth == 2, 0, truth)
    batches = [{"prediction": truth, "label": truth}, {"prediction": missed, "label": truth}]
    callback = run("lightning_metric").ValidationDice(3)
    trainer = lightning.Trainer(callbacks=[callback], default_root_dir=tmp_path, **QUIET)
    for _ in range(2):  # the second validation forgets the first
        (metrics,) = trainer.validate(Segmenter(), DataLoader(batches, batch_size=None), verbose=False)
        assert metrics["dice"] == pytest.approx((1.0 + 0.5) / 2)
