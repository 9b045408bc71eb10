"""Every example has at most ten lines of code, and runs."""

import ast
import importlib.util
from pathlib import Path

import lightning
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
