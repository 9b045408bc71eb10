"""Weights are read without executing anything and written as tensors alone."""

import pickle

import pytest
import torch

from medseg.bundle.share.weights import read_state, safetensors, write_state
from medseg.bundle.verify.weights import read_state as read_by_verification
from medseg.errors import WeightsError


def test_of_a_checkpoint_the_network_is_taken(tmp_path):
    state = {"a.weight": torch.arange(4.0), "a.count": torch.tensor(3)}
    torch.save({"network": state, "optimizer": {"lr": 0.1}}, tmp_path / "last.pt")
    torch.save(state, tmp_path / "model.pt")
    for name in ("last.pt", "model.pt"):
        found = read_state(tmp_path / name)
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], state[key]) for key in state)


def test_the_same_weights_give_the_same_bytes_and_keep_their_order_in_memory(tmp_path):
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
    back = read_state(tmp_path / "one" / "model.pt")
    assert back["b"].is_contiguous(memory_format=torch.channels_last)
    plain = read_by_verification(tmp_path / "one" / "model.safetensors")
    assert plain.keys() == state.keys()
    assert all(torch.equal(plain[name], state[name]) for name in state)
    assert all(torch.equal(back[name], state[name]) for name in state)


def test_the_library_of_the_format_reads_the_same_as_it_writes_itself(tmp_path):
    library = pytest.importorskip("safetensors.torch")
    state = {"a": torch.randn(2, 3), "b": torch.arange(5), "c": torch.tensor([True]), "d": torch.randn(3).bfloat16()}
    content = safetensors(state)
    found = library.load(content)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    assert all(torch.equal(library.load(library.save(state))[name], found[name]) for name in state)
    with pytest.raises(WeightsError, match=r"tensor z: must hold one of F64.*complex64"):
        safetensors({"z": torch.zeros(1, dtype=torch.complex64)})


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_what_would_execute_is_damaged_or_is_none_is_refused(tmp_path, capsys):
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Evil(), protocol=2))
    torch.save({"a": Evil()}, tmp_path / "evil2.pt")
    (tmp_path / "cut.pt").write_bytes(b"PK\x03\x04")
    for name in ("evil.pt", "evil2.pt", "cut.pt"):
        with pytest.raises(WeightsError, match=rf"{name[:-3]}\.pt: must be a whole file of weights"):
            read_state(tmp_path / name)
    assert "executed" not in capsys.readouterr().out
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save({"a": 1}, tmp_path / "numbers.pt")
    for name in ("list", "numbers"):
        with pytest.raises(WeightsError, match="must hold a state_dict"):
            read_state(tmp_path / f"{name}.pt")
    with pytest.raises(WeightsError, match="no such file"):
        read_state(tmp_path / "missing.pt")
