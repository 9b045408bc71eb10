"""Files of weights, in either format."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch

from medseg.bundle.verify import weights
from tests.bundle.verify.broken import save_weights


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_safetensors_are_read_as_their_own_library_reads_them(tmp_path, dtype):
    state = {
        "a": torch.arange(6).reshape(2, 3).to(dtype),
        "empty": torch.zeros(0, 2, dtype=dtype),
        "one": torch.ones((), dtype=dtype),
    }
    safetensors.torch.save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    found = weights.read(tmp_path / "model.safetensors")
    assert set(found) == set(state)
    assert all(torch.equal(found[name], state[name]) and found[name].dtype == dtype for name in state)


def test_a_checkpoint_holds_the_network_under_its_name(tmp_path):
    for name in ("network", "model", "state_dict"):
        torch.save({name: {"a": torch.ones(1)}, "epoch": 3}, tmp_path / "x.pt")
        assert list(weights.read(tmp_path / "x.pt")) == ["a"]
    torch.save({"epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="something else"):
        weights.read(tmp_path / "x.pt")


def test_both_formats_of_the_same_weights_agree(found, plain):
    state = torch.load(plain / "models/model.pt", weights_only=True)
    safetensors.torch.save_file(state, plain / "models/model.safetensors")
    assert found(weights) == []


def test_a_safetensors_file_cut_short(found, plain):
    state = torch.load(plain / "models/model.pt", weights_only=True)
    safetensors.torch.save_file(state, plain / "models/model.safetensors")
    whole = (plain / "models/model.safetensors").read_bytes()
    for size in (4, 100, len(whole) - 8):
        (plain / "models/model.safetensors").write_bytes(whole[:size])
        assert found(weights) == [("weights-damaged", "models/model.safetensors")]


def test_a_pickle_is_not_executed(found, plain, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "canary"), "w"))

    torch.save({"a": Evil()}, plain / "models/model.pt")
    assert found(weights) == [("weights-damaged", "models/model.pt")]
    assert not (tmp_path / "canary").exists()


def test_a_run_keeps_the_same_weights_twice(found, plain):
    (plain / "run.json").write_text("{}")
    save_weights(plain, name="checkpoints/best.pt")
    assert found(weights) == []
    save_weights(plain, name="checkpoints/best.pt", seed=5)
    assert found(weights) == [("weights-exchanged", "models/model.pt")]
