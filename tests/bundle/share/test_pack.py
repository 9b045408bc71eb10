"""What a packed bundle holds, and what it does not."""

import io
import json
import re
import shutil
import zipfile

import numpy as np
import pytest
import torch

from medseg.bundle import Bundle, Predictor, run_bundle
from medseg.bundle.share import install_bundle, pack_bundle
from medseg.bundle.verify.weights import read_state as read_by_verification
from medseg.errors import ConfigError, DataError, OutputError, UntrustedError, WeightsError

PROMISED = {
    "LICENSE",
    "configs/evaluate.json",
    "configs/inference.json",
    "configs/logging.conf",
    "configs/metadata.json",
    "configs/train.json",
    "docs/README.md",
    "docs/model_card.md",
    "label_map.json",
    "manifest.json",
    "models/model.pt",
    "models/model.safetensors",
    "models/model.ts",
    "requirements.lock",
    "selftest/expected/phantom.nii.gz",
    "selftest/input/phantom.nii.gz",
    "selftest/selftest.json",
}


def read(path):
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


def test_all_that_was_promised_is_in_it_and_nothing_else(packed):
    with zipfile.ZipFile(packed) as archive:
        assert {name.partition("/")[0] for name in archive.namelist()} == {"unet2d"}
    assert set(read(packed)) == PROMISED


def test_it_tells_nothing_of_this_machine_of_cases_or_of_the_run(packed, trained, phantom):
    record = json.loads((trained / "run.json").read_text())
    cases = [id for side in record["cases"].values() for id in side]
    secret = [str(phantom), str(trained), record["host"] + '"', record["identity"], *cases]
    for name, content in read(packed).items():
        texts = [content]
        if name.endswith(".ts"):
            inner = zipfile.ZipFile(io.BytesIO(content))
            texts = [inner.read(one) for one in inner.namelist()]
        for text in texts:
            assert not [word for word in secret if word.encode() in text], name
    assert json.loads(read(packed)["configs/train.json"])["dataset_dir"] is None


def test_the_same_bundle_gives_the_same_bytes_wherever_it_lies_and_whenever_it_is_packed(packed, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "elsewhere")
    again = pack_bundle(tmp_path / "elsewhere", tmp_path / "other-name.zip", torchscript=True)
    assert again.read_bytes() == packed.read_bytes()


def test_weights_lie_there_twice_and_are_the_same(packed, trained, tmp_path):
    files = read(packed)
    (tmp_path / "model.safetensors").write_bytes(files["models/model.safetensors"])
    mine = torch.load(trained / "models" / "model.pt", weights_only=True)
    for given in (
        torch.load(io.BytesIO(files["models/model.pt"]), weights_only=True),
        read_by_verification(tmp_path / "model.safetensors"),
    ):
        assert given.keys() == mine.keys()
        assert all(torch.equal(given[name], mine[name]) for name in mine)


def test_the_metadata_says_what_the_weights_are(packed, trained):
    metadata = json.loads(read(packed)["configs/metadata.json"])
    outputs = metadata["network_data_format"]["outputs"]["pred"]
    labels = Bundle(trained).resolve("inference").get_parsed_content("labels")
    assert outputs["num_channels"] == 5
    assert outputs["channel_def"] == labels.to_dict() == json.loads(read(packed)["label_map.json"])
    assert metadata["version"] in metadata["changelog"]
    assert metadata["pytorch_version"] == torch.__version__.partition("+")[0]
    history = json.loads((trained / "training_history.json").read_text())
    best = max(score for score in history["mean_dice"] if score is not None)
    assert metadata["eval_metrics"]["val_mean_dice"] == pytest.approx(best, abs=1e-4)
    assert set(metadata["eval_metrics"]) == {"val_mean_dice", *(f"val_dice_{name}" for name in labels)}
    assert "without weights" not in metadata["description"]


def test_the_lock_names_every_package_by_one_version(packed):
    lines = [line for line in read(packed)["requirements.lock"].decode().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.!]+", line) for line in lines)
    names = [line.partition("==")[0] for line in lines]
    assert {"monai", "torch", "numpy", "nibabel", "pytorch-ignite", "typing-extensions"} <= set(names)
    assert "medseg" not in names
    assert "pytest" not in names
    assert len(set(names)) == len(names)


def test_the_packed_bundle_gives_the_same_voxels_also_from_python_alone(packed, trained, phantom, tmp_path):
    made = install_bundle(packed, tmp_path / "there")
    scan = phantom / "p0002" / "ct.nii.gz"
    here = Predictor(Bundle(trained), {"device": "cpu"}).predict_case(scan).label
    there = Predictor(Bundle(made.root), {"device": "cpu"}).predict_case(scan).label
    assert len(np.unique(here)) > 1
    assert np.array_equal(there, here)
    assert pack_bundle(made.root, tmp_path / "again.zip", torchscript=True).read_bytes() == packed.read_bytes()
    used = pack_bundle(made.root, tmp_path / "used.zip", metadata={"intended_use": "Teaching."})
    card, first = (read(path)["docs/model_card.md"].decode() for path in (used, packed))
    assert "Teaching." in card
    assert card.partition("## Classes")[2] == first.partition("## Classes")[2]
    assert "| liver |" in card
    run_bundle(Bundle(made.root), "run", "inference", (), {"dataset_dir": str(phantom), "output_dir": str(tmp_path)})
    assert (tmp_path / "p0002.nii.gz").is_file()


def test_a_changed_text_a_new_version_and_what_cannot_be_one(packed, trained, tmp_path):
    texts = {"version": "2.0.0", "intended_use": "Teaching.", "new_key": "said"}
    made = pack_bundle(trained, tmp_path / "a.zip", metadata=texts)
    metadata = json.loads(read(made)["configs/metadata.json"])
    assert {key: metadata[key] for key in texts} == texts
    assert metadata["changelog"]["2.0.0"]
    assert "Teaching." in read(made)["docs/model_card.md"].decode()
    with pytest.raises(ConfigError, match="metadata, network_data_format: must be a text"):
        pack_bundle(trained, tmp_path / "b.zip", metadata={"network_data_format": "2D"})


def test_a_trace_is_held_against_the_network_on_a_scan_of_ones_own(trained, phantom, tmp_path):
    scan = phantom / "p0000" / "ct.nii.gz"
    made = pack_bundle(trained, tmp_path / "a.zip", torchscript=True, check_on=scan)
    assert set(read(made)) == PROMISED
    (tmp_path / "broken.nii.gz").write_bytes(b"no scan")
    with pytest.raises(DataError, match=r"broken\.nii\.gz"):
        pack_bundle(trained, tmp_path / "b.zip", torchscript=True, check_on=tmp_path / "broken.nii.gz")
    assert not (tmp_path / "b.zip").exists()


def test_what_is_not_fit_to_be_shared_is_refused_and_leaves_nothing(trained, tmp_path):
    with pytest.raises(WeightsError, match="must hold the trained weights"):
        pack_bundle("unet2d", tmp_path / "a.zip")
    with pytest.raises(OutputError, match=r"must be a file called \.zip"):
        pack_bundle(trained, tmp_path / "a.tar")
    shutil.copytree(trained, tmp_path / "run")
    model = tmp_path / "run" / "models" / "model.pt"
    model.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"model\.pt: must be a whole file of weights"):
        pack_bundle(tmp_path / "run", tmp_path / "a.zip")
    torch.save({"a": torch.zeros(2)}, model)
    with pytest.raises(WeightsError, match="must belong to this network") as caught:
        pack_bundle(tmp_path / "run", tmp_path / "a.zip")
    assert str(caught.value).startswith(str(tmp_path / "run"))
    assert "medseg-pack-" not in str(caught.value)
    inference = json.loads((trained / "configs" / "inference.json").read_text())
    inference["amp"] = "$__import__('os').system('touch canary')"
    (tmp_path / "run" / "configs" / "inference.json").write_text(json.dumps(inference))
    with pytest.raises(UntrustedError, match=r"/run: it could do harm, with .*in configs/inference\.json, amp: "):
        pack_bundle(tmp_path / "run", tmp_path / "a.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
