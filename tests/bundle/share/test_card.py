"""The card says what is known, and says of the rest that nobody did."""

import json

import pytest

from medseg.bundle.share.card import TrainingHistory, card_text, history_of, keep_training_sections, metrics_of
from medseg.labels import LabelMap

LABELS = LabelMap(["liver", "spleen|left", "aorta"])


@pytest.fixture
def run(tmp_path):
    record = {"data": "abc123", "epoch": 3, "started": "2026-11-22T14:48:14+0000", "host": "miller-pc",
              "cases": {"train": ["miller", "smith"], "val": ["jones"], "test": []}}  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(record))
    rows = []
    for epoch, dice in ((1, 0.4), (2, 0.8), (3, 0.7)):
        rows.append({"kind": "epoch", "epoch": epoch, "iteration": epoch * 5, "train_seconds": 60.0})
        parts = {"liver": dice, "spleen|left": dice / 2, "aorta": None}
        rows.append({"kind": "validation", "epoch": epoch, "iteration": epoch * 5, "mean_dice": dice, "dice": parts})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "configs").mkdir()
    config = {"lr": 0.01, "seed": 7, "batch_size": "$1 + 1", "variant": "/home/miller/b0", "dataset_dir": "/secret",
              "optimizer": {"_target_": "torch.optim.AdamW", "lr": "@lr", "weight_decay": 0.02}}  # fmt: skip
    (tmp_path / "configs" / "train.json").write_text(json.dumps(config))
    return tmp_path


def test_the_history_is_of_the_best_epoch_and_names_no_case(run):
    history = history_of(run)
    assert (history.best_epoch, history.mean_dice, history.epochs, history.seconds) == (2, 0.8, 3, 180.0)
    assert history.dice == {"liver": 0.8, "spleen|left": 0.4, "aorta": None}
    assert history.cases == {"train": 2, "val": 1, "test": 0}
    assert history.settings == {"lr": 0.01, "weight_decay": 0.02, "seed": 7}
    assert metrics_of(history) == {"val_mean_dice": 0.8, "val_dice_liver": 0.8, "val_dice_spleen|left": 0.4}
    text = card_text({"name": "it", "version": "1"}, LABELS, history)
    assert not [name for name in ("miller", "smith", "jones", "secret") if name in text]


def test_the_card_has_everything_that_is_known(run):
    metadata = {
        "name": "it",
        "version": "1.2.0",
        "task": "Liver in CT",
        "authors": "A. Nobody",
        "monai_version": "1.6.1",
        "intended_use": "Research only.",
        "data_source": "A hospital",
        "image_classes": "CT",
    }
    docs = "# it\n\n## Limits\n\nAdults only.\nNo contrast.\n\n## Else\n\nmore"
    text = card_text(metadata, LABELS, history_of(run), docs, "It runs.")
    for part in (
        "# it 1.2.0\n\nLiver in CT\n",
        "| Authors | A. Nobody |",
        "| Made with | MONAI 1.6.1 |",
        "## Intended use\n\nResearch only.",
        "## Limits\n\nAdults only.\nNo contrast.\n\n## Classes",
        "| 1 | liver | 0.8000 |",
        "| 2 | spleen\\|left | 0.4000 |",
        "| 3 | aorta | absent |",
        "A hospital.\n\nCases: 2 train, 1 val.",
        "`abc123`",
        "3 epochs, 3 minutes of training, started on 2026-11-22.",
        "The weights are those of epoch 2",
        "| `lr` | 0.01 |",
        "It runs.",
    ):
        assert part in text
    assert "more" not in text


RECIPE = {"name": "r", "task": "Segmentation of 117 anatomical structures in CT", "data_source": "Any CT"}


def test_texts_of_the_recipe_are_not_repeated_for_the_run(run):
    text = card_text(RECIPE, LABELS, history_of(run), recipe=RECIPE)
    assert "117" not in text
    assert "Segmentation of 3 structures: liver, spleen|left, aorta" in text
    assert "The data are not stated.\n\nThe recipe is meant for: Any CT." in text
    custom = {**RECIPE, "task": "Livers", "data_source": "A hospital"}
    text = card_text(custom, LABELS, history_of(run), recipe=RECIPE)
    assert "\n\nLivers\n\n" in text
    assert "A hospital." in text
    assert "The data are not stated" not in text
    full = {**RECIPE, "task": "Segmentation of 3 anatomical structures in CT"}
    assert full["task"] in card_text(full, LABELS, history_of(run), recipe=full)


def test_the_card_says_that_the_phantom_is_synthetic(run):
    metadata = {**RECIPE, "training_images": {"phantoms": True}}
    text = card_text(metadata, LABELS, history_of(run), recipe=RECIPE)
    assert "## Training data\n\nSynthetic bodies (the phantom) and no patients" in text


def test_training_sections_of_an_earlier_card_are_kept(run):
    old = card_text({**RECIPE, "intended_use": "Old."}, LABELS, history_of(run), test="Old test.")
    new = card_text({**RECIPE, "intended_use": "New."}, LABELS, TrainingHistory(), test="New test.")
    both = keep_training_sections(new, old)
    assert both == card_text({**RECIPE, "intended_use": "New."}, LABELS, history_of(run), test="New test.")
    assert keep_training_sections(new, "no card") == new


def test_the_card_of_a_bundle_without_history(tmp_path):
    assert history_of(tmp_path) == TrainingHistory()
    assert metrics_of(TrainingHistory()) == {}
    text = card_text({"name": "it"}, None, TrainingHistory())
    for part in (
        "Not stated. Not for clinical decisions.",
        "without the history",
        "See `label_map.json`",
        "without a self-test",
    ):
        assert part in text
    assert "Dice" not in text
