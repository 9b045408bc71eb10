"""Files of weights in both formats, and whether configs load them."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch

from medseg.bundle.verify.weights import check_loading, check_weights
from medseg.errors import WeightsError
from medseg.networks.weights import read_weights
from tests.bundle.verify.broken import change, save_weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_safetensors_are_read_as_their_own_library_reads_them(tmp_path, dtype):
    state = {
        "a": torch.arange(6).reshape(2, 3).to(dtype),
        "empty": torch.zeros(0, 2, dtype=dtype),
        "one": torch.ones((), dtype=dtype),
    }
    safetensors.torch.save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    tensors = read_weights(tmp_path / "model.safetensors")
    assert set(tensors) == set(state)
    assert all(torch.equal(tensors[name], state[name]) and tensors[name].dtype == dtype for name in state)


def test_a_checkpoint_holds_the_network_under_its_name(tmp_path):
    for name in ("network", "model", "state_dict"):
        torch.save({name: {"a": torch.ones(1)}, "epoch": 3}, tmp_path / "x.pt")
        assert list(read_weights(tmp_path / "x.pt")) == ["a"]
    torch.save({"epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="a state_dict of tensors"):
        read_weights(tmp_path / "x.pt")


def test_both_formats_of_the_same_weights_agree(codes_of, plain):
    state = torch.load(plain / "models/model.pt", weights_only=True)
    safetensors.torch.save_file(state, plain / "models/model.safetensors")
    assert codes_of(check_weights) == []


def test_a_safetensors_file_cut_short(codes_of, plain):
    state = torch.load(plain / "models/model.pt", weights_only=True)
    safetensors.torch.save_file(state, plain / "models/model.safetensors")
    complete = (plain / "models/model.safetensors").read_bytes()
    for size in (4, 100, len(complete) - 8):
        (plain / "models/model.safetensors").write_bytes(complete[:size])
        assert codes_of(check_weights) == [("weights-damaged", "models/model.safetensors")]


def test_a_pickle_is_not_executed(codes_of, plain, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "canary"), "w"))

    torch.save({"a": Evil()}, plain / "models/model.pt")
    assert codes_of(check_weights) == [("weights-damaged", "models/model.pt")]
    assert not (tmp_path / "canary").exists()


def test_a_run_has_the_same_weights_as_its_best_checkpoint(codes_of, plain):
    (plain / "run.json").write_text("{}")
    save_weights(plain, name="checkpoints/best.pt")
    assert codes_of(check_weights) == []
    save_weights(plain, name="checkpoints/best.pt", seed=5)
    assert codes_of(check_weights) == [("weights-exchanged", "models/model.pt")]


def test_a_complete_bundle_loads_its_weights(codes_of):
    assert codes_of(check_loading) == []


def test_a_recipe_has_no_weights_to_load(codes_of):
    gone = [lambda root: (root / "models/model.pt").unlink(),
            lambda root: change(root, "inference", network="$@network_def.to(@device)")]  # fmt: skip
    assert codes_of(check_loading, *gone) == []


def test_evaluate_and_inference_are_both_checked(codes_of):
    faults = [lambda root, name=name: change(root, name, network="$@network_def") for name in ("evaluate", "inference")]
    places = ["configs/evaluate.json", "configs/inference.json"]
    assert codes_of(check_loading, *faults) == [("weights-not-loaded", location) for location in places]


def test_a_checkpoint_loader_counts_as_loading(codes_of):
    loader = {"_target_": "CheckpointLoader", "load_path": "@ckpt_path", "load_dict": {"model": "@network"}}
    changes = {"network": "$@network_def", "checkpointloader": loader}
    assert codes_of(check_loading, lambda root: change(root, "inference", **changes)) == []


def test_weights_under_another_name(codes_of):
    renamed = [lambda root: (root / "models/model.pt").rename(root / "models/model.safetensors")]
    places = [f"configs/{name}.json, ckpt_path" for name in ("evaluate", "inference")]
    assert codes_of(check_loading, *renamed) == [("weights-missing", location) for location in places]
