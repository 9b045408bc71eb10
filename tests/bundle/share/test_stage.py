"""What of a run becomes part of the bundle that is shared."""

from __future__ import annotations

import json

import pytest

from medseg.bundle import Bundle
from medseg.bundle.share.stage import NetworkFacts, describe, stage
from medseg.bundle.share.versions import versions
from medseg.errors import ConfigError, DataError
from medseg.labels import LabelMap


@pytest.fixture
def root(tmp_path):
    """A made-up bundle with all that may lie in the folder of a run."""
    location = tmp_path / "run"
    configs = {
        "metadata": {"name": "it", "version": "1.0.0", "required_packages_version": {"nibabel": "1.0", "unheard": "2"}},
        "inference": {"bundle_root": ".", "ckpt_path": "/here/model.pt", "colours": "$@bundle_root + '/classes.json'"},
        "train": {"dataset_dir": "/data/secret", "output_dir": "/data/runs", "lr": 0.1},
        "overlay": {"lr": 0.2},
    }
    for name, content in configs.items():
        (location / "configs").mkdir(parents=True, exist_ok=True)
        (location / "configs" / f"{name}.json").write_text(json.dumps(content))
    for name in ("run.json", "classes.json", "label_map.json", "training_history.json", "notes.json"):
        (location / name).write_text('{"0": "background", "1": "liver"}' if name == "label_map.json" else "{}")
    for name in ("metrics.jsonl", "console.log", "previews/a.png", "checkpoints/last.pt", "docs/README.md", "LICENSE"):
        (location / name).parent.mkdir(exist_ok=True)
        (location / name).write_text("x")
    return location


def test_only_files_of_the_bundle_are_staged(root, tmp_path):
    staged = stage(Bundle(root), tmp_path / "out")
    existing = {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    configs = {f"configs/{name}.json" for name in ("metadata", "inference", "train", "overlay")}
    assert existing == {*configs, "LICENSE", "docs/README.md", "classes.json", "label_map.json"}
    assert staged.removed == ["inference.json: ckpt_path", "train.json: dataset_dir", "train.json: output_dir"]
    train = json.loads((tmp_path / "out" / "configs" / "train.json").read_text())
    assert train == {"dataset_dir": None, "output_dir": "$@bundle_root + '/eval'", "lr": 0.1}
    inference = json.loads((tmp_path / "out" / "configs" / "inference.json").read_text())
    assert inference["ckpt_path"] == "$@bundle_root + '/models/model.pt'"


def test_the_run_name_of_our_recipe_is_restored(root, tmp_path):
    file = root / "configs" / "metadata.json"
    (root / "configs" / "train.json").write_text(json.dumps({"run_name": "john doe"}))
    staged = stage(Bundle(root), tmp_path / "a")
    assert json.loads((tmp_path / "a" / "configs" / "train.json").read_text()) == {"run_name": None}
    assert "train.json: run_name" in staged.removed
    file.write_text(json.dumps({**json.loads(file.read_text()), "name": "unet2d"}))
    (root / "configs" / "demo.json").write_text(json.dumps({"run_name": "demo"}))
    staged = stage(Bundle(root), tmp_path / "b")
    name = json.loads((tmp_path / "b" / "configs" / "train.json").read_text())["run_name"]
    assert name == Bundle.open("unet2d").content("train")["run_name"]
    assert json.loads((tmp_path / "b" / "configs" / "demo.json").read_text()) == {"run_name": "demo"}
    assert "demo.json: run_name" not in staged.removed


def test_case_names_of_the_record_leave_the_configs(root, tmp_path):
    (root / "run.json").write_text(json.dumps({"cases": {"train": ["miller"], "val": ["smith"]}}))
    (root / "configs" / "train.json").write_text(json.dumps({"only": ["smith", "miller"], "lr": 1}))
    staged = stage(Bundle(root), tmp_path / "a")
    assert json.loads((tmp_path / "a" / "configs" / "train.json").read_text()) == {"only": None, "lr": 1}
    assert "train.json: only" in staged.removed


def test_the_metadata_agrees_with_network_and_classes(root, tmp_path):
    file = root / "configs" / "metadata.json"
    data = {"inputs": {"image": {"num_channels": 1}}, "outputs": {"pred": {"num_channels": 118, "channel_def": {}}}}
    file.write_text(json.dumps({**json.loads(file.read_text()), "network_data_format": data, "changelog": {}}))
    labels = LabelMap(["liver", "spleen"])
    staged = stage(Bundle(root), tmp_path / "a")
    describe(staged, NetworkFacts(labels, 5, 3))
    softmax = json.loads((tmp_path / "a" / "configs" / "metadata.json").read_text())["network_data_format"]
    assert staged.metadata["network_data_format"] == softmax
    assert softmax["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "liver", "2": "spleen"}
    assert softmax["inputs"]["image"]["num_channels"] == len(softmax["inputs"]["image"]["channel_def"]) == 5
    staged = stage(Bundle(root), tmp_path / "b")
    describe(staged, NetworkFacts(labels, 1, 2))
    sigmoid = staged.metadata["network_data_format"]
    assert sigmoid["outputs"]["pred"]["channel_def"] == {"0": "liver", "1": "spleen"}
    assert json.loads((tmp_path / "b" / "label_map.json").read_text()) == labels.to_dict()


def test_a_bundle_that_takes_hu_is_for_ct(root, tmp_path):
    file = root / "configs" / "metadata.json"
    data = {"inputs": {"image": {"modality": "MR or CT"}}}
    file.write_text(json.dumps({**json.loads(file.read_text()), "network_data_format": data}))
    for name, takes_hu, modality in (("a", False, "MR or CT"), ("b", True, "CT")):
        staged = stage(Bundle(root), tmp_path / name)
        describe(staged, NetworkFacts(takes_hu=takes_hu))
        content = json.loads((tmp_path / name / "configs" / "metadata.json").read_text())
        assert content["network_data_format"]["inputs"]["image"]["modality"] == modality


def test_images_that_no_text_shows_are_left_out(root, tmp_path):
    for name in ("curve.png", "patient.png"):
        (root / "docs" / name).write_bytes(b"x")
    (root / "docs" / "README.md").write_text("![it](curve.png)")
    stage(Bundle(root), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "docs").iterdir()) == ["README.md", "curve.png"]


def test_lines_of_our_own_recipe_are_public(root, tmp_path):
    """The README of unet2d has the public name of a case of TotalSegmentator, which runs are trained with."""
    recipe = Bundle.open("unet2d").root
    (root / "configs" / "metadata.json").write_text((recipe / "configs" / "metadata.json").read_text())
    text = (recipe / "docs" / "README.md").read_text()
    assert "s0000" in text
    (root / "docs" / "README.md").write_text(text)
    (root / "run.json").write_text(json.dumps({"cases": {"train": ["s0000", "s0001"]}}))
    stage(Bundle(root), tmp_path / "a")
    (root / "docs" / "README.md").write_text(text + "\nIt fails on s0000.\n")
    with pytest.raises(DataError, match=r"docs/README\.md, line \d+: a case's name, 's0000'"):
        stage(Bundle(root), tmp_path / "b")


@pytest.mark.parametrize("name", ["LICENSE", "docs/README.md", "configs/metadata.json"])
def test_files_that_name_a_case_are_refused(root, tmp_path, name):
    (root / "run.json").write_text(json.dumps({"cases": {"train": ["miller"]}}))
    text = json.dumps({"name": "it", "authors": "miller"}) if name.endswith("json") else "one\nof miller"
    (root / name).write_text(text)
    with pytest.raises(DataError, match=rf"{name}, line \d: a case's name, 'miller'"):
        stage(Bundle(root), tmp_path / "out")


@pytest.mark.parametrize(
    ("key", "text", "why"),
    [
        ("version", "", "the text is empty"),
        ("version", "new", "a version is numbers with dots"),
        ("name", "../x", "must be one of a folder"),
        ("autors", "A", "Did you mean 'authors'"),
        ("intended_uses", "A", "Did you mean 'intended_use'"),
    ],
)
def test_invalid_metadata_texts_are_refused(root, tmp_path, key, text, why):
    with pytest.raises(ConfigError, match=why):
        stage(Bundle(root), tmp_path / "out", {key: text})


def test_versions_are_of_the_run_then_installed_ones(root, tmp_path):
    (root / "run.json").write_text(json.dumps({"versions": {"torch": "2.9.0+cu126", "monai": "1.6.0"}}))
    existing = versions(root, ["nibabel", "unheard"])
    assert (existing["torch"], existing["monai"]) == ("2.9.0", "1.6.0")
    assert existing["nibabel"][0].isdigit()
    assert "unheard" not in existing
    metadata = stage(Bundle(root), tmp_path / "a").metadata
    assert (metadata["pytorch_version"], metadata["monai_version"]) == ("2.9.0", "1.6.0")
    assert metadata["required_packages_version"] == {"nibabel": existing["nibabel"], "unheard": "2"}
    assert metadata["changelog"] == {"1.0.0": "Packed with trained weights"}


def test_packing_needs_an_inference_config(root, tmp_path):
    (root / "configs" / "inference.json").unlink()
    with pytest.raises(ConfigError, match=r"configs/inference\.json is missing"):
        stage(Bundle(root), tmp_path / "out")
