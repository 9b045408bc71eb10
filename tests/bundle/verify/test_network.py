"""One forward pass compared with the metadata."""

from __future__ import annotations

import pytest
import torch
from monai.bundle.scripts import _get_fake_spatial_shape

from medseg.bundle.verify import network
from medseg.bundle.verify.bundle_files import BundleFiles
from medseg.bundle.verify.network import check_network
from tests.bundle.verify.broken import NAMES, change, edit, network_data_format

DATA = "configs/metadata.json, network_data_format"


@pytest.mark.parametrize("said", [96, "8*n", "2**p", "2**p*n", "32 * n + 1", "(n + 1) * 16"])
@pytest.mark.parametrize(("n", "p"), [(1, 1), (3, 5)])
def test_sizes_are_those_of_monai(said, n, p):
    assert (network.size_of(said, n, p),) == _get_fake_spatial_shape([said], p=p, n=n)


@pytest.mark.parametrize("said", ["8*m", "__import__('os')", "2**99", "9**9**9", "0", "-8", "8*", None, 2.5])
def test_what_is_no_size(said):
    with pytest.raises(ValueError, match="size"):
        network.size_of(said)


def shaped(shape, channels=1):
    return edit("metadata", network_data_format=network_data_format(channels, NAMES, shape))


@pytest.mark.parametrize("shape", [[32, 64], ["4*n", "4*n"], ["*", "2**p"]])
def test_shapes_that_hold(codes_of, shape):
    assert codes_of(check_network, shaped(shape)) == []


def test_a_shape_that_holds_for_larger_images_alone_is_a_warning(plain):
    deep = {"channels": [4, 4, 4, 4], "strides": [2, 2, 2], "norm": "batch"}
    for config in ("train", "evaluate", "inference"):
        change(plain, config, network_def=lambda there: {**there, **deep, "num_res_units": 1})
    shaped(["4*n", "4*n"])(plain)
    (one,) = check_network(BundleFiles(plain))
    assert (one.severity, one.code) == ("warning", "network-shape")
    assert "holds only for [8, 8]" in one.message


def test_large_inputs_are_followed_without_computing_and_the_network_stays(plain):
    built = BundleFiles(plain).network
    before = {name: value.clone() for name, value in built.state_dict().items()}
    given = network.run(built, (1, 1, 2048, 2048))
    assert given.device.type == "meta"
    assert given.shape == (1, 4, 2048, 2048)
    assert built.training
    assert all(torch.equal(value, before[name]) for name, value in built.state_dict().items())


@pytest.mark.parametrize("look", [lambda x: float(x.max()), lambda x: len(torch.nonzero(x)), lambda x: x.numpy().max()])
def test_a_network_that_looks_at_values_is_computed(look):
    class Looks(torch.nn.Module):
        def forward(self, x):
            return x + look(x)

    given = network.run(Looks(), (1, 1, 1024, 1024))
    assert given.device.type == "cpu"


def test_several_outputs_count_by_the_first():
    held = network._output(
        [torch.zeros(1, 2, 4), torch.zeros(1, 9, 1)], {"num_channels": 2, "dtype": "float32"}, [4], "x"
    )
    assert list(held) == []


def test_no_network_and_none_at_hand(codes_of):
    fault = edit("inference", network_def="$torch.device('cpu')")
    assert codes_of(check_network, fault) == [("network-fails", "configs/inference.json, network_def")]


def test_classes_that_come_from_the_data_are_a_note(plain):
    for config in ("train", "evaluate", "inference"):
        change(plain, config, labels="$medseg.data.discover(@dataset_dir).labels")
    (one,) = check_network(BundleFiles(plain))
    assert (one.severity, one.code) == ("note", "network-unknown")


def test_a_package_that_the_network_needs_is_named(plain, monkeypatch):
    def needs(*_):
        raise ImportError("required package `einops` is not installed")

    monkeypatch.setattr(network, "run", needs)
    (one,) = check_network(BundleFiles(plain))
    assert (one.code, one.location) == ("network-fails", "configs/inference.json, network_def")
    assert "einops" in one.message
