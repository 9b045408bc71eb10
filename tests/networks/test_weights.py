import os
import pickle

import pytest
import safetensors.torch
import torch

from medseg.errors import WeightsError
from medseg.networks import load_weights


def net(classes=3, features=4):
    return torch.nn.Sequential(torch.nn.Conv2d(1, features, 3), torch.nn.Conv2d(features, classes, 1))


def test_every_tensor_is_loaded(tmp_path):
    source, target = net(), net()
    torch.save(source.state_dict(), tmp_path / "model.pt")
    assert load_weights(target, tmp_path / "model.pt") is target
    assert all(
        torch.equal(a, b) for a, b in zip(source.state_dict().values(), target.state_dict().values(), strict=True)
    )


def test_the_network_of_a_checkpoint_is_loaded(tmp_path):
    source, target = net(), net()
    torch.save({"network": source.state_dict(), "best": (0.5, 3)}, tmp_path / "best.pt")
    load_weights(target, tmp_path / "best.pt")
    assert torch.equal(source[0].weight, target[0].weight)


def test_another_number_of_classes_names_both(tmp_path):
    torch.save(net(classes=3).state_dict(), tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"with 5 output channels, .*1\.bias has shape \(5,\) [(]got shape \(3,\)"):
        load_weights(net(classes=5), tmp_path / "model.pt", 5)


def test_another_network_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"4 tensors are missing .* 2 are unknown"):
        load_weights(net(), tmp_path / "model.pt")


def test_a_file_that_is_missing_or_cut_short_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="there are no weights"):
        load_weights(net(), tmp_path / "model.pt")
    torch.save(net().state_dict(), tmp_path / "model.pt")
    content = (tmp_path / "model.pt").read_bytes()
    (tmp_path / "model.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(WeightsError, match="the weights cannot be read"):
        load_weights(net(), tmp_path / "model.pt")


def test_safetensors_are_preferred_and_other_weights_beside_them_are_refused(tmp_path):
    source, target = net(), net()
    path, safe = tmp_path / "model.pt", tmp_path / "model.safetensors"
    safetensors.torch.save_file(source.state_dict(), safe)
    load_weights(target, safe)
    load_weights(net(), path)
    path.write_bytes(b"not read")
    os.utime(path, (1, 1))
    assert torch.equal(load_weights(net(), path)[0].weight, source[0].weight)
    torch.save(source.state_dict(), path)
    os.utime(safe, (1, 1))
    assert torch.equal(load_weights(net(), path)[0].weight, source[0].weight)
    torch.save(net().state_dict(), path)
    with pytest.raises(WeightsError, match=r"newer than model\.safetensors beside it and holds other weights"):
        load_weights(net(), path)
    safe.write_bytes(b"cut short")
    with pytest.raises(WeightsError, match=r"model\.safetensors: the weights cannot be read"):
        load_weights(net(), path)


class Canary:
    def __reduce__(self):
        return (open, ("canary", "w"))


def test_nothing_in_the_file_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "model.pt").open("wb") as file:
        pickle.dump({"network": Canary()}, file, protocol=2)
    torch.save({"network": Canary()}, tmp_path / "zipped.pt")
    for name in ("model.pt", "zipped.pt"):
        with pytest.raises(WeightsError, match="the weights cannot be read"):
            load_weights(net(), tmp_path / name)
    assert not (tmp_path / "canary").exists()
