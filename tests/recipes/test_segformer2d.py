"""What is segformer2d's own: its settings, its overlays, pictures and volumes."""

from __future__ import annotations

import csv
import json

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from medseg.bundle import BatchPredictor, Bundle, Predictor, SliceWriter, run_bundle
from medseg.data import SlicePhantomSpec, slice_items, write_slice_phantom
from medseg.errors import ConfigError
from medseg.networks import SegFormer, require_variant, to_onnx, to_torchscript

pytestmark = pytest.mark.slow

NAME = "segformer2d"


def parts(overlays=(), **overrides):
    return Bundle.open(NAME).resolve("train", {"device": "cpu", **overrides}, overlays)


@pytest.fixture
def root(repository):
    return repository / "bundles" / NAME


@pytest.fixture(scope="module")
def overlapping(tmp_path_factory):
    """Slices in Kaggle's layout, 16 bits, whose structures overlap."""
    spec = SlicePhantomSpec(train=2, val=0, slices=3, size=(40, 48), seed=5, layout="kaggle", bits=16, spacing=1.5)
    return write_slice_phantom(tmp_path_factory.mktemp("kaggle") / "set", spec)


def run(runs, overlays, settings):
    run_bundle(Bundle.open(NAME), "training", "train", overlays, settings)
    (record,) = runs.glob(f"{NAME}/*/run.json")
    assert json.loads(record.read_text())["state"] == "finished"
    return record.parent


def test_the_defaults_are_those_of_the_recipe(slice_phantom, runs):
    parser = parts(dataset_dir=str(slice_phantom))
    names = ("max_epochs", "batch_size", "accumulation_steps", "lr", "optimizer#weight_decay", "image_size")
    assert [parser[name] for name in names] == [100, 6, 2, 3e-4, 1e-4, [288, 288]]
    assert parser.get_parsed_content("standardize#mean") == [0.485, 0.456, 0.406]
    assert parser.get_parsed_content("standardize#std") == [0.229, 0.224, 0.225]
    network = parser.get_parsed_content("network_def")
    assert isinstance(network, SegFormer)
    assert round(sum(one.numel() for one in network.parameters()) / 1e6, 1) == 3.7
    assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 4, 64, 64)
    optimizer = parser.get_parsed_content("optimizer")
    assert isinstance(optimizer, torch.optim.AdamW)
    schedule = parser.get_parsed_content("lr_scheduler")
    assert schedule.total_steps == 100  # four slices are one batch, and one step, an epoch
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step() if len(rates) < 100 else None
    assert rates[0] == pytest.approx(3e-4 / 25)
    assert max(rates) == pytest.approx(3e-4, rel=1e-3)
    assert abs(int(np.argmax(rates)) - 29) <= 1  # pct_start 0.3
    assert rates[-1] == pytest.approx(3e-4 / 25 / 1e4)


def test_without_a_schedule_the_rate_stays(settings, runs):
    folder = run(runs, [], {**settings, "lr_scheduler": None, "max_epochs": 2})
    assert json.loads((folder / "training_history.json").read_text())["lr"] == [3e-4, 3e-4]


@pytest.mark.parametrize(("variant", "million"), [("b1", 13.7), ("b2", 27.4)])
def test_another_variant_is_one_override(variant, million, slice_phantom, runs):
    network = parts(dataset_dir=str(slice_phantom), variant=variant).get_parsed_content("network_def")
    assert sum(one.numel() for one in network.parameters()) / 1e6 == pytest.approx(million, abs=0.06)


def test_a_variant_that_nobody_names_is_refused_before_training():
    with pytest.raises(ConfigError, match="variant: must be named"):
        require_variant(None)
    require_variant("b0")
    assert "$medseg.networks.require_variant(@variant)" in Bundle.open(NAME).content("train")["initialize"]


def test_a_run_that_began_with_pretrained_weights_is_used_without_them(settings, runs, slice_phantom, tmp_path):
    """Pretrained weights lie elsewhere, or are gone, when a run segments."""
    import transformers

    variant = settings["variant"]
    given = transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig(**variant, num_labels=7))
    given.save_pretrained(tmp_path / "hf")
    folder = run(runs, [], {**settings, "pretrained": str(tmp_path / "hf"), "lr": 1e-12, "lr_scheduler": None})
    (tmp_path / "hf" / "model.safetensors").unlink()
    predictor = Predictor(Bundle(folder), slices=True)
    own, theirs = predictor.network.state_dict(), given.state_dict()
    first = "segformer.stages.0.patch_embeddings.proj.weight"
    names = {name.removeprefix("segformer."): name for name in theirs}
    torch.testing.assert_close(own[first.removeprefix("segformer.")], theirs[names[first.removeprefix("segformer.")]])


def test_what_the_network_sees_is_the_picture_less_imagenets_mean(settings, slice_phantom):
    parser = parts(**{**settings, "augment#_disabled_": True, "image_size": [48, 48]})
    given = next(iter(parser.get_parsed_content("train#dataloader")))
    images, _ = parser.get_parsed_content("train#trainer").prepare_batch(given, torch.device("cpu"))
    assert images.shape == (2, 3, 48, 48)
    for image, case in zip(images, given["case"], strict=True):
        with Image.open(slice_phantom / "train" / "images" / f"{case}.png") as file:
            pixels = np.asarray(file.convert("L"), np.float64) / 255
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        wanted = np.zeros((3, 48, 48))  # 40 rows are filled up around the middle, 48 columns fit
        wanted[:, 4:44] = pixels
        wanted = (wanted - mean[:, None, None]) / std[:, None, None]
        assert np.abs(image.numpy() - wanted).max() < 5e-3  # the cache holds half precision


def test_training_validation_and_inference_see_the_same_picture(settings, bundle_run, slice_phantom):
    parser = parts(**settings)
    (item,) = [one for one in parser.get_parsed_content("validate#dataset") if one["case"].endswith("0001")]
    (found,) = [one for one in slice_items(slice_phantom / "valid" / "images") if one["case"] == item["case"]]
    seen = Predictor(Bundle(bundle_run), slices=True).preprocessing(found)["image"]
    assert torch.equal(seen.as_tensor(), item["image"].as_tensor())


def test_neighbouring_slices_train_and_predict(settings, runs, slice_phantom, tmp_path):
    folder = run(runs, [], {**settings, "context": 2})
    assert json.loads((folder / "configs" / "inference.json").read_text())["context"] == 2
    weights = torch.load(folder / "models" / "model.pt", weights_only=True)
    assert weights["stages.0.patch_embeddings.proj.weight"].shape[1] == 5
    items = slice_items(slice_phantom / "valid" / "images", context=2)
    predictor = Predictor(Bundle(folder), slices=True)
    work = BatchPredictor(predictor, SliceWriter.of(predictor, tmp_path / "out", items))
    assert not [one.error for one in work.run() if one.error]
    volume = np.random.default_rng(0).integers(0, 255, (48, 40, 5)).astype(np.int16)
    nib.save(nib.Nifti1Image(volume, np.diag([-1.5, -1.5, 3, 1])), tmp_path / "scan.nii.gz")
    prediction = Predictor(Bundle(folder), {"window": [0, 255]}).predict_case(tmp_path / "scan.nii.gz")
    assert prediction.label.shape == volume.shape


def test_overlapping_structures_train_score_and_stay_apart(settings, runs, overlapping, tmp_path):
    split = {"train": ["case101"], "val": ["case102"], "test": None}
    folder = run(runs, ["multilabel"], {**settings, "dataset_dir": str(overlapping), "split": split, "max_epochs": 2})
    weights = torch.load(folder / "models" / "model.pt", weights_only=True)
    assert weights["decode_head.classifier.bias"].shape == (3,)  # one a structure, none for the background
    history = json.loads((folder / "training_history.json").read_text())
    assert set(history["epochs"][-1]["f1"]) == {"stomach", "small_bowel", "large_bowel"}
    items = slice_items(overlapping / "train" / "case102")
    predictor = Predictor(Bundle(folder), {"inferer#threshold": 0.3}, slices=True)
    work = BatchPredictor(predictor, SliceWriter.of(predictor, tmp_path / "out", items))
    assert not [one.error for one in work.run() if one.error]
    with (tmp_path / "out" / "pixels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 * len(items)
    together = 0
    for row in rows:
        with Image.open(tmp_path / "out" / "structures" / row["structure"] / f"{row['slice']}.png") as mask:
            pixels = int((np.asarray(mask) > 0).sum())
        assert int(row["pixels"]) == pixels
        assert float(row["area_mm2"]) == pytest.approx(pixels * 1.5 * 1.5)
        together += pixels
    printable = sum(int((np.asarray(Image.open(one)) > 0).sum()) for one in (tmp_path / "out" / "masks").iterdir())
    assert together > printable  # some pixels are of two structures


def test_what_fits_on_an_8_gb_gpu_keeps_the_effective_batch(slice_phantom, runs):
    parser = parts(["gpu_8gb"], dataset_dir=str(slice_phantom))
    assert parser["batch_size"] * parser["accumulation_steps"] == 12
    assert parser["network_def#gradient_checkpointing"] is True


def test_checkpoints_carry_their_scores_where_that_is_asked_for(settings, runs):
    folder = run(
        runs,
        [],
        {
            **settings,
            "train#handler_set#checkpoints#scores_in_filenames": True,
            "train#handler_set#checkpoints#every": 1,
        },
    )
    (kept,) = (folder / "checkpoints").glob("epoch_*.pt")
    history = json.loads((folder / "training_history.json").read_text())["epochs"][0]
    wanted = f"epoch_0001_loss{history['loss']:.3f}"
    assert kept.name.startswith(wanted)
    assert f"_dice{history['mean_dice']:.3f}_f1{history['mean_f1']:.3f}" in kept.name


def test_a_network_that_does_not_fit_says_so_before_training(settings, runs):
    with pytest.raises(ConfigError, match=r"must have the shape \(1, 4, 40, 40\) \(got \(1, 3, 40, 40\)\)"):
        run(runs, [], {**settings, "network_def#out_channels": 3})
    assert not list(runs.glob(f"{NAME}/*/checkpoints/*.pt"))


@pytest.mark.long
def test_a_compiled_network_trains_and_its_weights_fit_the_plain_one(settings, runs, slice_phantom, tmp_path):
    """Long, for it needs a compiler and takes its time."""
    folder = run(runs, ["compile"], settings)
    predictor, items = Predictor(Bundle(folder), slices=True), slice_items(slice_phantom / "valid" / "images")
    work = BatchPredictor(predictor, SliceWriter.of(predictor, tmp_path / "out", items))
    assert not [one.error for one in work.run() if one.error]


@pytest.mark.long
def test_it_learns_the_liver_of_real_slices(real, runs):
    """Four to ten minutes on two cores: 598 steps from random weights, as the docs describe."""
    folder = run(runs, ["cpu_160px"], {"dataset_dir": str(real / "png_slices"), "device": "cpu", "num_workers": 0})
    scores = {}
    for side in ("train", "val"):
        out = runs / side
        overrides = {"dataset_dir": str(real / "png_slices"), "subset": side, "output_dir": str(out)}
        overrides["ckpt_path"] = str(folder / "checkpoints" / "last.pt")
        run_bundle(Bundle(folder), "evaluating", "evaluate", (), overrides)
        scores[side] = json.loads((out / "evaluation.json").read_text())
    for measure in ("dice", "f1", "slice_dice"):  # of scans, of all pixels, of single slices
        assert scores["train"][measure]["liver"] >= 0.85, (measure, scores)
    assert scores["val"]["slice_dice"]["liver"] > 0.5


def test_torchscript_onnx_and_eager_agree(bundle_run, slice_phantom, tmp_path):
    """To 1e-4 of a logit, on a slice of the phantom, at the size of the recipe and at another."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    predictor = Predictor(Bundle(bundle_run), slices=True)
    network, (item, *_) = predictor.network.eval(), slice_items(slice_phantom / "valid" / "images")
    slice_ = predictor.preprocessing(item)["image"][None].as_tensor()
    traced = torch.jit.load(to_torchscript(network, tmp_path / "model.ts", slice_.shape, slice_))
    session = onnxruntime.InferenceSession(to_onnx(network, tmp_path / "model.onnx", slice_.shape, slice_))
    for image in (slice_, torch.nn.functional.pad(slice_, (3, 20, 0, 12))):
        with torch.no_grad():
            eager = network(image)
            assert (traced(image) - eager).abs().max() < 1e-4
        (given,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        assert np.abs(given - eager.numpy()).max() < 1e-4
