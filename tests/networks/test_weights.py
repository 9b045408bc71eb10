import os
import pickle

import pytest
import safetensors.torch
import torch

from medseg.errors import ConfigError, WeightsError
from medseg.networks import init_weights, load_weights


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


ODD = {
    "sparse": lambda tensor: tensor.to_sparse(),
    "of no values": lambda tensor: tensor.to("meta"),
    "complex": lambda tensor: tensor * (1 + 1j),
    "whole numbers": lambda tensor: (100 * tensor).to(torch.int8),
    "truth values": lambda tensor: tensor > 0,
}


@pytest.mark.parametrize("kind", ODD)
def test_tensors_that_would_be_loaded_as_other_values_are_refused(tmp_path, kind):
    state = net().state_dict()
    torch.save({**state, "0.weight": ODD[kind](state["0.weight"])}, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match=r"0\.weight"):
        load_weights(net(), tmp_path / "model.pt")


def test_weights_that_hold_themselves_are_refused_and_do_not_hang(tmp_path):
    content = {}
    content["model"] = {"net": content}
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(WeightsError, match="state_dict of tensors"):
        load_weights(net(), tmp_path / "model.pt")


def prefixed(state, prefix):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


WRAPPED = {
    "DataParallel": lambda state: prefixed(state, "module."),
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "compiled in part": lambda state: {name.replace("0.", "0._orig_mod."): tensor for name, tensor in state.items()},
    "both": lambda state: prefixed(state, "_orig_mod.module."),
    "Lightning": lambda state: {"state_dict": prefixed(state, "net."), "epoch": 3},
    "a dictionary": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "both of them": lambda state: {"model_state_dict": prefixed(state, "module.")},
}


@pytest.mark.parametrize("how", WRAPPED)
def test_what_a_wrapper_put_around_weights_is_stripped_and_said(tmp_path, caplog, how):
    caplog.set_level("INFO")
    source, target, other = net(), net(), net()
    torch.save(WRAPPED[how](source.state_dict()), tmp_path / "model.pt")
    load_weights(target, tmp_path / "model.pt")
    assert caplog.text.count("model.pt: stripped from its names: '") == 1
    init_weights(other, tmp_path / "model.pt")
    for network in (target, other):
        assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in source.state_dict().items())


def test_weights_of_the_network_itself_are_not_touched(tmp_path, caplog):
    caplog.set_level("INFO")
    wrapped = torch.nn.Sequential()
    wrapped.add_module("module", net())
    torch.save({"network": wrapped.state_dict()}, tmp_path / "last.pt")
    load_weights(wrapped, tmp_path / "last.pt")
    assert not caplog.text
    torch.save({"a.0.weight": torch.ones(2), "b.0.weight": torch.ones(2)}, tmp_path / "two.pt")
    with pytest.raises(WeightsError, match="holds the weights of another network"):
        load_weights(net(), tmp_path / "two.pt")


def test_a_training_begins_with_what_fits_and_says_what_does_not(tmp_path, caplog):
    caplog.set_level("INFO")
    source, target = net(classes=5), net(classes=3)
    target.add_module("extra", torch.nn.Linear(2, 2))
    head = target[1].weight.clone()
    torch.save(source.state_dict(), tmp_path / "model.pt")
    assert init_weights(target, None) is target
    assert init_weights(target, tmp_path / "model.pt") is target
    assert torch.equal(target[0].weight, source[0].weight)
    assert torch.equal(target[1].weight, head)
    assert "2 of 6 tensors taken from" in caplog.text
    assert "Left random, no such tensor there: extra.weight, extra.bias" in caplog.text
    assert "Left random, another shape there: 1.weight, 1.bias" in caplog.text
    torch.save(torch.nn.Linear(7, 7).state_dict(), tmp_path / "model.pt")
    with pytest.raises(WeightsError, match="none of its tensors fits the network"):
        init_weights(target, tmp_path / "model.pt")


def test_weights_to_begin_with_are_found_by_run_bundle_and_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDSEG_RUNS", raising=False)
    source = net()
    for folder in ("runs/unet2d/20260101-000000-first", "bundles/own", "apart"):
        (tmp_path / folder / "configs").mkdir(parents=True)
        (tmp_path / folder / "configs" / "metadata.json").write_text("{}")
        (tmp_path / folder / "models").mkdir()
        torch.save(source.state_dict(), tmp_path / folder / "models" / "model.pt")
    (tmp_path / "runs/unet2d/20260101-000000-first/run.json").write_text("{}")
    for name in ("runs/unet2d/20260101-000000-first", "first", "own", "apart", "apart/models/model.pt"):
        assert torch.equal(init_weights(net(), name)[0].weight, source[0].weight)
    (tmp_path / "apart" / "models" / "model.pt").unlink()
    with pytest.raises(WeightsError, match="it has no trained weights"):
        init_weights(net(), "apart")
    with pytest.raises(ConfigError, match="there is no bundle or run of that name"):
        init_weights(net(), "nothing")
