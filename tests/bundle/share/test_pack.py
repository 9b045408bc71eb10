"""What a packed bundle holds, and what it does not."""

from __future__ import annotations

import io
import json
import pickle
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.bundle import Bundle, Predictor, run_bundle
from medseg.bundle.share import install_bundle, pack_bundle
from medseg.bundle.share.pack import write_state
from medseg.errors import ConfigError, DataError, OutputError, UntrustedError, WeightsError
from medseg.networks.weights import read_weights

pytestmark = pytest.mark.slow

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


def test_a_packed_bundle_has_exactly_the_documented_files(packed):
    with zipfile.ZipFile(packed) as archive:
        assert {name.partition("/")[0] for name in archive.namelist()} == {"unet2d"}
    assert set(read(packed)) == PROMISED


def test_a_packed_bundle_names_no_path_case_or_run(packed, trained, phantom):
    record = json.loads((trained / "run.json").read_text())
    cases = [id for side in record["cases"].values() for id in side]
    secret = [str(phantom), str(trained), record["host"] + '"', record["identity"], *cases]
    for name, content in read(packed).items():
        texts = [content]
        if name.endswith(".ts"):
            inner = zipfile.ZipFile(io.BytesIO(content))
            texts = [inner.read(entry) for entry in inner.namelist()]
        for text in texts:
            assert not [word for word in secret if word.encode() in text], name
    assert json.loads(read(packed)["configs/train.json"])["dataset_dir"] is None


def test_the_same_bundle_gives_the_same_bytes(packed, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "elsewhere")
    again = pack_bundle(
        tmp_path / "elsewhere", tmp_path / "other-name.zip", torchscript=True, metadata={"name": "unet2d"}
    )
    assert again.read_bytes() == packed.read_bytes()


def test_both_weight_files_hold_the_same_weights(packed, trained, tmp_path):
    files = read(packed)
    (tmp_path / "model.safetensors").write_bytes(files["models/model.safetensors"])
    mine = torch.load(trained / "models" / "model.pt", weights_only=True)
    for stored in (
        torch.load(io.BytesIO(files["models/model.pt"]), weights_only=True),
        read_weights(tmp_path / "model.safetensors"),
    ):
        assert stored.keys() == mine.keys()
        assert all(torch.equal(stored[name], mine[name]) for name in mine)


def test_the_packed_metadata_describes_the_weights(packed, trained):
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


def test_a_packed_bundle_predicts_the_same_voxels_in_python(packed, trained, phantom, tmp_path):
    packed_path = install_bundle(packed, tmp_path / "there")
    scan = phantom / "p0002" / "ct.nii.gz"
    here = Predictor(Bundle(trained), {"device": "cpu"}).predict_case(scan).label
    there = Predictor(Bundle(packed_path.root), {"device": "cpu"}).predict_case(scan).label
    assert len(np.unique(here)) > 1
    assert np.array_equal(there, here)
    assert pack_bundle(packed_path.root, tmp_path / "again.zip", torchscript=True).read_bytes() == packed.read_bytes()
    used = pack_bundle(packed_path.root, tmp_path / "used.zip", metadata={"intended_use": "Teaching."})
    card, first = (read(path)["docs/model_card.md"].decode() for path in (used, packed))
    assert "Teaching." in card
    assert card.partition("## Classes")[2] == first.partition("## Classes")[2]
    assert "| liver |" in card
    run_bundle(
        Bundle(packed_path.root), "run", "inference", (), {"dataset_dir": str(phantom), "output_dir": str(tmp_path)}
    )
    assert (tmp_path / "p0002.nii.gz").is_file()


def test_metadata_texts_can_be_replaced(packed, trained, tmp_path):
    texts = {"version": "2.0.0", "intended_use": "Teaching.", "new_key": "said"}
    packed_path = pack_bundle(trained, tmp_path / "a.zip", metadata=texts)
    metadata = json.loads(read(packed_path)["configs/metadata.json"])
    assert {key: metadata[key] for key in texts} == texts
    assert metadata["changelog"]["2.0.0"]
    assert "Teaching." in read(packed_path)["docs/model_card.md"].decode()
    with pytest.raises(ConfigError, match="metadata, network_data_format: only texts can be changed here"):
        pack_bundle(trained, tmp_path / "b.zip", metadata={"network_data_format": "2D"})


def test_the_export_is_compared_on_the_users_scan(trained, phantom, tmp_path):
    scan = phantom / "p0000" / "ct.nii.gz"
    packed_path = pack_bundle(trained, tmp_path / "a.zip", torchscript=True, check_on=scan)
    assert set(read(packed_path)) == PROMISED
    (tmp_path / "broken.nii.gz").write_bytes(b"no scan")
    with pytest.raises(DataError, match=r"broken\.nii\.gz"):
        pack_bundle(trained, tmp_path / "b.zip", torchscript=True, check_on=tmp_path / "broken.nii.gz")
    assert not (tmp_path / "b.zip").exists()


def test_unfit_bundles_are_refused_and_leave_nothing(trained, tmp_path):
    with pytest.raises(WeightsError, match="the trained weights are missing"):
        pack_bundle("unet2d", tmp_path / "a.zip")
    with pytest.raises(OutputError, match=r"a packed bundle is a zip file"):
        pack_bundle(trained, tmp_path / "a.tar")
    shutil.copytree(trained, tmp_path / "run")
    model = tmp_path / "run" / "models" / "model.pt"
    model.write_bytes(model.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"model\.pt: the weights cannot be read"):
        pack_bundle(tmp_path / "run", tmp_path / "a.zip")
    torch.save({"a": torch.zeros(2)}, model)
    with pytest.raises(WeightsError, match="holds the weights of another network") as caught:
        pack_bundle(tmp_path / "run", tmp_path / "a.zip")
    assert str(caught.value).startswith(str(tmp_path / "run"))
    assert "medseg-pack-" not in str(caught.value)
    inference = json.loads((trained / "configs" / "inference.json").read_text())
    inference["amp"] = "$__import__('os').system('touch canary')"
    (tmp_path / "run" / "configs" / "inference.json").write_text(json.dumps(inference))
    for file in (trained / "models").iterdir():
        shutil.copyfile(file, tmp_path / "run" / "models" / file.name)
    with pytest.raises(UntrustedError, match=r"without trust its key 'amp' does not run"):
        pack_bundle(tmp_path / "run", tmp_path / "a.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_checkpoint_gives_the_weights_of_its_network(tmp_path):
    state = {"a.weight": torch.arange(4.0), "a.count": torch.tensor(3)}
    torch.save({"network": state, "optimizer": {"lr": 0.1}}, tmp_path / "last.pt")
    torch.save(state, tmp_path / "model.pt")
    for name in ("last.pt", "model.pt"):
        stored_state = read_weights(tmp_path / name)
        assert stored_state.keys() == state.keys()
        assert all(torch.equal(stored_state[key], state[key]) for key in state)


def test_the_same_weights_give_the_same_bytes_and_memory_format(tmp_path):
    state = {
        "b": torch.randn(4, 3, 3, 3).contiguous(memory_format=torch.channels_last),
        "a": torch.randn(6).bfloat16(),
        "view": torch.randn(8)[2:4],
        "steps": torch.tensor(7),
        "on": torch.tensor([True, False, True]),
        "half ü": torch.randn(3).half(),
        "none": torch.zeros(0, 4),
    }
    first = [path.read_bytes() for path in write_state(state, tmp_path / "one")]
    again = [path.read_bytes() for path in write_state(dict(state), tmp_path / "two")]
    assert first == again
    back = read_weights(tmp_path / "one" / "model.pt")
    assert back["b"].is_contiguous(memory_format=torch.channels_last)
    plain = read_weights(tmp_path / "one" / "model.safetensors")
    assert plain.keys() == state.keys()
    assert all(torch.equal(plain[name], state[name]) for name in state)
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_numbers_that_safetensors_does_not_have_are_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"^model\.safetensors: the weights cannot be written \(\w+"):
        write_state({"z": torch.zeros(1, dtype=torch.complex128)}, tmp_path)


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_pickles_and_damaged_weights_are_refused(tmp_path, capsys):
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    torch.save({"a": Evil()}, tmp_path / "evil2.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04")
    for name in ("evil.pt", "evil2.pt", "cut.pt"):
        with pytest.raises(WeightsError, match=rf"{name[:-3]}\.pt: the weights cannot be read"):
            read_weights(tmp_path / name)
    assert "executed" not in capsys.readouterr().out
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"a": 1}, tmp_path / "numbers.pt")
    for name in ("list", "numbers"):
        with pytest.raises(WeightsError, match="it must hold a state_dict of tensors"):
            read_weights(tmp_path / f"{name}.pt")


BUNDLES = Path(__file__).resolve().parents[3] / "bundles"
OTHERS = sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/inference.json"))
OTHERS.remove("unet2d")  # which the other tests here are about
SMALL = {"max_epochs": 1, "device": "cpu", "num_workers": 0, "batch_size": 2}
SETTINGS = {
    "segformer2d": {
        **SMALL,
        "image_size": [64, 64],
        "data#phantom": {"train": 1, "val": 1, "slices": 2, "size": [64, 72]},
        "variant": {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "decoder_hidden_size": 16},
    }
}
EXTRA = {"segformer2d": "transformers"}


@pytest.mark.parametrize("name", OTHERS)
def test_every_bundle_is_packed_and_reproduces_its_masks(name, tmp_path):
    pytest.importorskip(EXTRA[name], reason=f"{name} needs it")
    overrides = {**SETTINGS[name], "output_dir": str(tmp_path / "runs")}
    run_bundle(Bundle.open(name), "training", "train", (), overrides)
    (record,) = (tmp_path / "runs").glob(f"{name}/*/run.json")
    path = pack_bundle(record.parent, tmp_path / "a.zip")
    with zipfile.ZipFile(path) as archive:
        secret = [str(tmp_path).encode(), json.loads(record.read_text())["identity"].encode()]
        assert not [entry for entry in archive.namelist() for word in secret if word in archive.read(entry)]
    packed_path = install_bundle(path, tmp_path / "there")
    assert packed_path.test is not None
    assert packed_path.test.files > 0
    assert packed_path.test.differing == 0
