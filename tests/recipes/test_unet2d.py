"""What is unet2d's own: its network, its overlays."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from monai.bundle import verify_net_in_out
from monai.networks.nets import BasicUNet, UNet

from medseg.bundle import Bundle, Predictor, run_bundle
from medseg.errors import ConfigError

pytestmark = pytest.mark.slow


def parts(overlays=(), **overrides):
    return Bundle.open("unet2d").resolve("train", overrides, overlays)


def test_the_network_is_the_classic_one_with_118_outputs_and_a_1x1_head():
    network = parts(device="cpu").get_parsed_content("network_def")
    assert isinstance(network, BasicUNet)
    assert network(torch.zeros(1, 1, 32, 32)).shape == (1, 118, 32, 32)
    assert network.final_conv.kernel_size == (1, 1)


def test_the_defaults_are_those_of_the_recipe():
    parser = parts(device="cpu")
    assert (parser["max_epochs"], parser["batch_size"], parser["lr"], parser["patch_size"]) == (
        50,
        8,
        0.001,
        [256, 256],
    )
    assert parser["spacing"][:2] == [1.5, 1.5]
    assert parser.get_parsed_content("train#trainer#amp") is False
    assert isinstance(parser.get_parsed_content("optimizer"), torch.optim.AdamW)


@pytest.mark.parametrize(
    ("overlay", "epochs", "batch", "lr"),
    [
        ("round1_quick", 5, 8, 1e-3),
        ("round2_medium", 30, 16, 1e-3),
        ("round3_full", 100, 16, 5e-4),
    ],
)
def test_the_rounds(overlay, epochs, batch, lr):
    parser = parts([overlay])
    assert (parser["max_epochs"], parser["batch_size"], parser["lr"]) == (epochs, batch, lr)


def test_the_network_for_cpus():
    network = parts(["fast_cpu"]).get_parsed_content("network_def")
    assert isinstance(network, UNet)
    assert (list(network.channels), list(network.strides), network.num_res_units) == ([32, 64, 128, 256], [2, 2, 2], 0)


def test_nothing_is_mirrored_unless_asked_for():
    assert parts()["augment"]["mirror"]["prob"] == 0


@pytest.fixture
def settings(tiny, phantom, runs):
    return {**tiny, "dataset_dir": str(phantom), "samples_per_case": 2, "batch_size": 2}


def run(runs, overlays, settings):
    run_bundle(Bundle.open("unet2d"), "training", "train", overlays, settings)
    (record,) = runs.glob("unet2d/*/run.json")
    assert json.loads(record.read_text())["state"] == "finished"
    return record.parent


def network_is_as_the_metadata_say(folder):
    files = {"config_file": f"{folder}/configs/inference.json", "meta_file": f"{folder}/configs/metadata.json"}
    verify_net_in_out("network", **files, device="cpu", bundle_root=str(folder))


def test_neighbouring_slices_train_and_predict(settings, runs, phantom):
    folder = run(runs, [], {**settings, "context": 2})
    assert json.loads((folder / "configs" / "inference.json").read_text())["context"] > 0
    network_is_as_the_metadata_say(folder)
    prediction = Predictor(Bundle(folder)).predict_case(phantom / "p0003" / "ct.nii.gz")
    assert prediction.label.shape == prediction.grid.shape


def first_batch(settings, overlays=(), **overrides):
    """The first batch as the loader gives it, and image and label as the network gets them."""
    parser = parts(overlays, **settings, **overrides)
    given = next(iter(parser.get_parsed_content("train#dataloader")))
    images, targets = parser.get_parsed_content("train#trainer").prepare_batch(given, torch.device("cpu"))
    return given, (images, targets["label"] if isinstance(targets, dict) else targets)


ALWAYS = {f"augment#{name}#prob": 1.0 for name in ("affine", "gamma", "noise", "smooth", "low_resolution")}


@pytest.mark.parametrize("context", [0, 2])
def test_the_batch_is_augmented_where_it_is_trained_on(settings, context):
    given, (images, labels) = first_batch(settings, context=context, **ALWAYS)
    assert given["image"].shape == images.shape == (2, 2 * context + 1, 32, 32)
    assert not torch.isclose(images, given["image"]).all(dim=(1, 2, 3)).any()
    assert (given["label"].dtype, labels.dtype) == (torch.uint8, torch.int32)
    assert torch.isfinite(images).all()
    assert set(labels.unique().tolist()) <= set(given["label"].unique().tolist()) | {0}


def test_augmentation_changes_nothing_in_what_is_drawn_and_can_be_turned_off(settings):
    with_it, _ = first_batch(settings, **ALWAYS)
    given, (images, labels) = first_batch(settings, **{"augment#_disabled_": True})
    assert torch.equal(with_it["image"], given["image"])
    assert "augment" not in given
    assert images is given["image"]
    assert torch.equal(labels, given["label"].int())


def test_a_probability_that_cannot_be_stops_the_run_before_it_starts(settings):
    with pytest.raises(ConfigError, match=r"augment#noise#prob: use a number from 0 to 1 \(got 2\)"):
        first_batch(settings, **{"augment#noise#prob": 2})


def test_overlapping_structures_train_and_predict(settings, runs, phantom):
    structures = ["kidney_left", "kidney_right", "kidney_cyst_left", "kidney_cyst_right", "liver"]
    folder = run(runs, ["multilabel"], {**settings, "structures": structures})
    history = json.loads((folder / "training_history.json").read_text())
    assert set(history["dice"]) == set(structures)
    network_is_as_the_metadata_say(folder)
    weights = torch.load(folder / "models" / "model.pt", weights_only=True)
    assert list(weights.values())[-1].shape == (5,)  # a channel for each structure, none for the background
    prediction = Predictor(Bundle(folder)).predict_case(phantom / "p0003" / "ct.nii.gz")
    assert int(prediction.label.max()) <= 5
    channels = Predictor(Bundle(folder), {"inferer#decode": "channels"})
    scan = channels.load(phantom / "p0003" / "ct.nii.gz")
    there = channels.inferer(scan.item["image"][None], channels.network)[0].numpy() > 0
    assert there.sum(axis=0).max() > 1  # some overlap, so that painting means something
    expected = np.zeros(there.shape[1:], int)
    for name in prediction.labels.overlap_priority():
        expected[there[prediction.labels.index(name) - 1]] = prediction.labels.index(name)
    assert np.array_equal(prediction.label, expected)


def test_a_schedule_lowers_the_learning_rate(settings, runs):
    folder = run(runs, ["round3_full"], {**settings, "max_epochs": 3})
    rates = json.loads((folder / "training_history.json").read_text())["lr"]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0]


def test_a_run_on_an_8_gb_gpu_keeps_its_effective_batch():
    parser = parts(["gpu_8gb"])
    assert parser["batch_size"] * parser["accumulation_steps"] == 8


def test_the_loss_for_overlapping_structures_is_binary_cross_entropy_and_dice():
    """MONAI's DiceCELoss would take softmax cross-entropy for several channels, which exclude each other."""
    loss = parts(["multilabel"]).get_parsed_content("loss")
    logits = torch.randn(2, 3, 8, 8)
    truth = (torch.rand(2, 3, 8, 8) > 0.5).float()
    chance = torch.sigmoid(logits)
    both = (chance * truth).sum(dim=(0, 2, 3))
    dice = 1 - (2 * both + 1e-5) / (chance.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3)) + 1e-5)
    wanted = dice.mean() + torch.nn.functional.binary_cross_entropy_with_logits(logits, truth)
    torch.testing.assert_close(loss(logits, truth), wanted)


# The loss and the step


def without_a_mask(phantom, tmp_path, case, structure):
    """A copy of the phantom in which nobody looked for a structure in one case."""
    folder = tmp_path / "partly"
    shutil.copytree(phantom, folder)
    (folder / case / "segmentations" / f"{structure}.nii.gz").unlink()
    return folder


def test_what_nobody_looked_for_reaches_the_loss(settings, phantom, tmp_path, runs):
    data = without_a_mask(phantom, tmp_path, "p0000", "liver")
    parser = parts(**{**settings, "dataset_dir": str(data)})
    found = {item["case"]: item["annotated"].tolist() for item in parser.get_parsed_content("train#dataset").data}
    liver = list(parser.get_parsed_content("labels")).index("liver") + 1
    assert [case for case, known in found.items() if not known[liver]] == ["p0000"]
    seen = []
    trainer = parser.get_parsed_content("train#trainer")
    loss = trainer.loss_function
    loss.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    for batch in parser.get_parsed_content("train#dataloader"):
        image, targets = trainer.prepare_batch(batch, "cpu")
        value = loss(torch.zeros(len(image), len(found["p0000"]), *image.shape[2:]), targets)
        assert value.isfinite()
    cases = [case for targets in seen for case in targets["case"]]
    rows = torch.cat([targets["annotated"] for targets in seen])
    assert set(cases) == {"p0000", "p0001"}
    assert [bool(row[liver]) for row in rows] == [case != "p0000" for case in cases]


@pytest.mark.parametrize(
    ("overlay", "loss"),
    [
        (None, {}),
        (None, {"loss#lambda_ce": 0.0}),
        (None, {"loss#focal_gamma": 2.0}),
        ("loss_weighted_ce", {}),
        ("multilabel", {}),
    ],
)
def test_it_trains_on_cases_annotated_in_part(settings, phantom, tmp_path, runs, overlay, loss):
    data = without_a_mask(phantom, tmp_path, "p0000", "liver")
    folder = run(runs, [overlay] if overlay else [], {**settings, **loss, "dataset_dir": str(data), CLIP: 1.0})
    history = json.loads((folder / "training_history.json").read_text())
    assert all(loss is not None and loss < 10 for loss in history["loss"])


def test_the_losses_of_the_docs():
    dice = parts(**{"loss#lambda_ce": 0.0}).get_parsed_content("loss")
    focal = parts(**{"loss#focal_gamma": 2.0}).get_parsed_content("loss")
    weighted = parts(["loss_weighted_ce"]).get_parsed_content("loss")
    assert (dice.lambda_dice, dice.lambda_ce, dice.focal_gamma) == (1, 0, 0)
    assert (focal.lambda_dice, focal.lambda_ce, focal.focal_gamma) == (1, 1, 2)
    assert (weighted.lambda_dice, weighted.lambda_ce) == (0, 1)
    assert weighted.weight.tolist() == [0.25] + [1.0] * 117


@pytest.mark.parametrize("overlay", ["poly", "one_cycle"])
def test_schedules_end_far_below_where_they_stood(settings, runs, overlay):
    folder = run(runs, [overlay], {**settings, "max_epochs": 4, "samples_per_case": 4})
    rates = json.loads((folder / "training_history.json").read_text())["lr"]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.4 * rates[0]


CLIP = "train#handler_set#clip#max_norm"


def handlers(parser):
    return parser.get_parsed_content("train#handler_set")


def test_the_settings_of_the_step(settings):
    parser = parts(**settings, **{CLIP: 12.0, "accumulation_steps": 4})
    assert parser.get_parsed_content("train#trainer#accumulation_steps") == 4
    assert handlers(parser)["clip"].max_norm == 12.0
    assert "clip" not in handlers(parts(**settings))


@pytest.mark.long
def test_a_compiled_network_trains_and_its_weights_fit_the_plain_one(settings, runs, phantom):
    """Long, for it needs a compiler and takes its time."""
    small = {key: value for key, value in settings.items() if not key.startswith("network_def")}
    folder = run(runs, ["fast_cpu", "compile"], small)
    prediction = Predictor(Bundle(folder)).predict_case(phantom / "p0003" / "ct.nii.gz")
    assert prediction.label.any()
