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


@pytest.mark.parametrize("size", [96, "8*n", "2**p", "2**p*n", "32 * n + 1", "(n + 1) * 16"])
@pytest.mark.parametrize(("n", "p"), [(1, 1), (3, 5)])
def test_sizes_are_those_of_monai(size, n, p):
    assert (network.size_of(size, n, p),) == _get_fake_spatial_shape([size], p=p, n=n)


@pytest.mark.parametrize("size", ["8*m", "__import__('os')", "2**99", "9**9**9", "0", "-8", "8*", None, 2.5])
def test_an_invalid_size_is_refused(size):
    with pytest.raises(ValueError, match="size"):
        network.size_of(size)


def shaped(shape, channels=1):
    return edit("metadata", network_data_format=network_data_format(channels, NAMES, shape))


@pytest.mark.parametrize("shape", [[32, 64], ["4*n", "4*n"], ["*", "2**p"]])
def test_valid_shapes(codes_of, shape):
    assert codes_of(check_network, shaped(shape)) == []


def test_a_shape_that_holds_for_larger_images_alone_is_a_warning(plain):
    deep = {"channels": [4, 4, 4, 4], "strides": [2, 2, 2], "norm": "batch"}
    for config in ("train", "evaluate", "inference"):
        change(plain, config, network_def=lambda current: {**current, **deep, "num_res_units": 1})
    shaped(["4*n", "4*n"])(plain)
    (finding,) = check_network(BundleFiles(plain))
    assert (finding.severity, finding.code) == ("warning", "network-shape")
    assert "holds only for [8, 8]" in finding.message


def test_large_inputs_are_traced_on_meta_and_the_network_is_unchanged(plain):
    built = BundleFiles(plain).network
    before = {name: value.clone() for name, value in built.state_dict().items()}
    result = network.run(built, (1, 1, 2048, 2048))
    assert result.device.type == "meta"
    assert result.shape == (1, 4, 2048, 2048)
    assert built.training
    assert all(torch.equal(value, before[name]) for name, value in built.state_dict().items())


@pytest.mark.parametrize("look", [lambda x: float(x.max()), lambda x: len(torch.nonzero(x)), lambda x: x.numpy().max()])
def test_a_network_that_looks_at_values_is_computed(look):
    class Looks(torch.nn.Module):
        def forward(self, x):
            return x + look(x)

    result = network.run(Looks(), (1, 1, 1024, 1024))
    assert result.device.type == "cpu"


def test_the_first_of_several_outputs_counts():
    findings = network._output(
        [torch.zeros(1, 2, 4), torch.zeros(1, 9, 1)], {"num_channels": 2, "dtype": "float32"}, [4], "x"
    )
    assert list(findings) == []


def test_an_object_that_is_not_a_network(codes_of):
    fault = edit("inference", network_def="$torch.device('cpu')")
    assert codes_of(check_network, fault) == [("network-fails", "configs/inference.json, network_def")]


def test_classes_that_come_from_the_data_are_a_note(plain):
    for config in ("train", "evaluate", "inference"):
        change(plain, config, labels="$medseg.data.discover(@dataset_dir).labels")
    (finding,) = check_network(BundleFiles(plain))
    assert (finding.severity, finding.code) == ("note", "network-unknown")


def test_a_package_that_the_network_needs_is_named(plain, monkeypatch):
    def needs(*_):
        raise ImportError("required package `einops` is not installed")

    monkeypatch.setattr(network, "run", needs)
    (finding,) = check_network(BundleFiles(plain))
    assert (finding.code, finding.location) == ("network-fails", "configs/inference.json, network_def")
    assert "einops" in finding.message
