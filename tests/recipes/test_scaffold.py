"""A bundle of one's own keeps what every bundle keeps, from the start, and trains on one's own data."""

from __future__ import annotations

import importlib.util
import inspect
import json
from pathlib import Path

import pytest
from monai.bundle import verify_net_in_out

from medseg.bundle import Bundle, Predictor, run_bundle
from medseg.bundle.scaffold import new_bundle
from medseg.bundle.verify import verify_bundle
from medseg.data import convert
from medseg.errors import ConfigError, LabelError, OutputError

pytestmark = pytest.mark.slow

OWN = ["liver", "liver tumour", "Zyste (links)"]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A bundle made anew, of the structures that the tests of the contract know."""
    folder = tmp_path_factory.mktemp("own") / "bundles"
    return new_bundle("mine", Bundle.open("unet2d"), ["kidney_left", "kidney_right", "liver", "spleen"], folder=folder)


def content(root: Path, name: str) -> dict:
    return json.loads((root / "configs" / f"{name}.json").read_text())


# The contract

_SPEC = importlib.util.spec_from_file_location("contract", Path(__file__).with_name("test_contract.py"))
CONTRACT = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(CONTRACT)
PROCESSES = ("test_one_run_whoever", "test_inference_through_monai_alone")  # these start some; the bundles have them
RULES = [name for name in vars(CONTRACT) if name.startswith("test_") and not name.startswith(PROCESSES)]


@pytest.fixture
def small(tiny) -> dict:
    return {**tiny, "samples_per_case": 2, "batch_size": 2}


@pytest.fixture
def data(phantom) -> Path:
    return phantom


@pytest.fixture
def unseen(phantom) -> Path:
    return phantom / "p0003"


@pytest.fixture
def settings(small, data, runs) -> dict:
    return {**small, "dataset_dir": str(data)}


@pytest.fixture(scope="module")
def bundle_run(root, tiny, phantom, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    overrides = {key: value for key, value in tiny.items() if key != "structures"}
    overrides |= {"max_epochs": 2, "dataset_dir": str(phantom), "output_dir": str(folder)}
    run_bundle(Bundle(root), "training", "train", (), overrides)
    (record,) = folder.glob("mine/*/run.json")
    return record.parent


@pytest.fixture
def trained(bundle_run) -> Path:
    return bundle_run


@pytest.mark.parametrize("rule", RULES)
def test_a_new_bundle_keeps_the_contract(rule, root, request):
    function = getattr(CONTRACT, rule)
    arguments = {name: request.getfixturevalue(name) for name in inspect.signature(function).parameters}
    function(**arguments)


def test_the_contract_has_rules():
    assert len(RULES) > 12


def test_verification_of_a_new_bundle_and_its_run_is_clean(root, bundle_run):
    for folder in (root, bundle_run):
        assert verify_bundle(folder) == []


# What it says


def test_a_new_bundle_has_its_classes_channels_and_spacing(tmp_path):
    created = new_bundle("own_1", Bundle.open("unet2d"), OWN, 3, [1, 1.25, -1], tmp_path / "b", "Doe J.")
    assert created == tmp_path / "b" / "own_1"
    for name in ("train", "evaluate", "inference"):
        old, new = content(Bundle.open("unet2d").root, name), content(created, name)
        changed = {key: new[key] for key in new if new[key] != old[key]}
        assert changed == {
            "bundle_root": "$medseg.bundle.bundle_root('own_1')",
            "structures": OWN,
            "labels": "$medseg.LabelMap(@structures)",
            "context": 1,
            "spacing": [1.0, 1.25, -1],
        }
        assert list(new) == list(old)
        lines = (created / "configs" / f"{name}.json").read_text().splitlines()
        assert len(lines) == len((Bundle.open("unet2d").root / "configs" / f"{name}.json").read_text().splitlines())
    metadata = content(created, "metadata")
    channels = metadata["network_data_format"]
    assert channels["inputs"]["image"]["num_channels"] == 3
    assert channels["outputs"]["pred"]["num_channels"] == 4
    assert list(channels["outputs"]["pred"]["channel_def"].values()) == ["background", *OWN]
    assert (metadata["name"], metadata["authors"], metadata["copyright"]) == ("own_1", "Doe J.", "Copyright Doe J.")
    assert "unet2d" in metadata["changelog"][metadata["version"]]
    assert "117" not in json.dumps(metadata)
    readme = (created / "docs" / "README.md").read_text()
    assert "# own_1" in readme
    assert ", ".join(OWN) in readme
    for name in ("train", "evaluate", "inference"):
        files = {"config_file": f"{created}/configs/{name}.json", "meta_file": f"{created}/configs/metadata.json"}
        verify_net_in_out("network_def", **files, device="cpu", bundle_root=str(created))


def test_overlays_that_choose_structures_or_cases_stay_behind(root):
    there = {path.stem: json.loads(path.read_text()) for path in Bundle.open("unet2d").root.glob("configs/*.json")}
    chosen = {name for name, overlay in there.items() if "split" in overlay or "structures" in overlay}
    left_out = chosen - {"train", "evaluate", "inference"}
    assert "one_case" in left_out
    assert set(there) - {path.stem for path in root.glob("configs/*.json")} == left_out
    assert not list(root.glob("models/*.pt"))


def test_groups_stand_for_their_members(tmp_path):
    created = new_bundle("ribs", Bundle.open("unet2d"), ["ribs", "sternum"], folder=tmp_path)
    named = content(created, "metadata")["network_data_format"]["outputs"]["pred"]["channel_def"]
    assert len(named) == 1 + 24 + 2
    assert content(created, "train")["structures"] == ["ribs", "sternum"]


def test_custom_classes_are_learned_from_custom_data(phantom, tiny, tmp_path, monkeypatch):
    """From nnU-Net's layout, by name from the working directory, as a user does."""
    convert(phantom, tmp_path / "raw", "nnunet", ["liver", "spleen"], 0)
    description = json.loads((tmp_path / "raw" / "dataset.json").read_text())
    names = {"liver": "liver tumour", "spleen": "Zyste (links)"}
    description["labels"] = {names.get(name, name): value for name, value in description["labels"].items()}
    (tmp_path / "raw" / "dataset.json").write_text(json.dumps(description))
    monkeypatch.chdir(tmp_path)
    new_bundle("lesions", Bundle.open("unet2d"), ["liver tumour", "Zyste (links)"], channels=3)
    settings = {key: value for key, value in tiny.items() if key != "structures"}
    run_bundle(Bundle.open("lesions"), "training", "train", (), {**settings, "dataset_dir": str(tmp_path / "raw")})
    (record,) = tmp_path.glob("runs/lesions/*/run.json")
    assert json.loads(record.read_text())["state"] == "finished"
    assert json.loads((record.parent / "label_map.json").read_text()) == {
        "0": "background", "1": "liver tumour", "2": "Zyste (links)"
    }  # fmt: skip
    prediction = Predictor(Bundle(record.parent)).predict_case(phantom / "p0003" / "ct.nii.gz")
    assert prediction.labels.structures == ("liver tumour", "Zyste (links)")


# Bad input


@pytest.mark.parametrize("name", ["", "a b", "a" * 65, "../up", "-x", "ümlaut", "con", "x'y", "a.b"])
def test_an_invalid_bundle_name_is_refused(name, tmp_path):
    with pytest.raises(ConfigError, match="a name has (letters, digits|at most 64 letters)"):
        new_bundle(name, Bundle.open("unet2d"), ["liver"], folder=tmp_path)


def test_existing_folders_are_not_overwritten(tmp_path):
    with pytest.raises(ConfigError, match="'unet2d': the bundle in .* has this name"):
        new_bundle("unet2d", Bundle.open("unet2d"), ["liver"], folder=tmp_path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(OutputError, match="this file or folder exists already"):
        new_bundle("mine", Bundle.open("unet2d"), ["liver"], folder=tmp_path)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "at least one structure is needed"),
        (["liver", ""], "class '': a class has letters"),
        (["$__import__('os').system('x')"], "a class has letters"),
        (["@dataset"], "a class has letters"),
        (["a/b"], "a class has letters"),
        (["tumour", "tumour"], "a class is named once"),
        (["Leber", "leber"], "a class is named once"),
        (["liver", "liver"], "a class is named once"),
        (["background", "tumour"], "is index 0 of every label map"),
        (["ribs", "tumour"], "class 'ribs': a group of TotalSegmentator cannot be combined"),
    ],
)
def test_invalid_classes_are_refused_and_leave_nothing(classes, message, tmp_path):
    with pytest.raises(LabelError, match=message):
        new_bundle("mine", Bundle.open("unet2d"), classes, folder=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            {"channels": 2},
            r"channels: unet2d cannot take this number of channels \(got 2\)\. Leave it out for 1, or use 3, 5",
        ),
        ({"channels": -1}, "channels: unet2d cannot take this number"),
        ({"spacing": [1, 1]}, "spacing: a spacing is three lengths"),
        ({"spacing": [1, 0, -1]}, "spacing: a spacing is three lengths"),
        ({"spacing": [1, 1e-9, -1]}, "spacing: a spacing is three lengths"),
        ({"spacing": [1, 1000, -1]}, "spacing: a spacing is three lengths"),
        ({"spacing": [1, float("nan"), -1]}, "spacing: a spacing is three lengths"),
        ({"authors": "$x"}, "authors: this is not a name"),
    ],
)
def test_invalid_settings_are_refused_and_leave_nothing(what, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        new_bundle("mine", Bundle.open("unet2d"), ["liver"], folder=tmp_path, **what)
    assert not list(tmp_path.iterdir())


def test_a_run_or_a_source_without_classes_is_refused(bundle_run, tmp_path):
    with pytest.raises(ConfigError, match=r"this is the folder of a run, and a bundle is created from a recipe"):
        new_bundle("other", Bundle(bundle_run), ["liver"], folder=tmp_path)
    bare = new_bundle("bare", Bundle.open("unet2d"), ["liver"], folder=tmp_path)
    config = content(bare, "evaluate")
    del config["structures"]
    (bare / "configs" / "evaluate.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"one of its configs has no key 'structures'"):
        new_bundle("other", Bundle(bare), ["liver"], folder=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"bare"}


def test_a_recipe_with_another_json_layout_is_changed_too(tmp_path):
    model = new_bundle("flat", Bundle.open("unet2d"), ["liver"], folder=tmp_path / "a")
    for name in ("train", "evaluate", "inference"):
        path = model / "configs" / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text())))
    created = new_bundle("other", Bundle(model), OWN, spacing=[2, 2, 2], folder=tmp_path / "b")
    for name in ("train", "evaluate", "inference"):
        assert content(created, name)["structures"] == OWN
        assert content(created, name)["spacing"] == [2.0, 2.0, 2.0]
        assert content(created, name)["preprocess_transforms"] == content(model, name)["preprocess_transforms"]
