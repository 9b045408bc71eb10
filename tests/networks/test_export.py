"""Exports give the network's output, or are not written."""

import builtins
import io
import zipfile

import pytest
import torch
from monai.networks.nets import BasicUNet, UNet

from medseg.errors import GeometryError, MissingExtraError, OutputError
from medseg.networks import SegFormer
from medseg.networks.export import to_onnx, to_torchscript

pytestmark = pytest.mark.slow


def unet2d(seed=0):
    torch.manual_seed(seed)
    return BasicUNet(spatial_dims=2, in_channels=1, out_channels=5, features=[4, 4, 8, 8, 8, 4])


def unet3d():
    return UNet(spatial_dims=3, in_channels=2, out_channels=3, channels=[4, 8], strides=[2], num_res_units=1)


def segformer():
    pytest.importorskip("transformers", reason="needs the extra segformer")
    tiny = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 1, 2, 2]}
    return SegFormer(3, 4, {**tiny, "decoder_hidden_size": 16})


NETWORKS = {"2d": (unet2d, (1, 1, 32, 32)), "3d": (unet3d, (1, 2, 16, 16, 16)), "hf": (segformer, (1, 3, 64, 64))}


def answer(network, image):
    with torch.no_grad():
        return network.eval()(image)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_trace_gives_the_networks_output_for_other_sizes_too(tmp_path, kind):
    make, shape = NETWORKS[kind]
    network = make().train()
    path = to_torchscript(network, tmp_path / "model.ts", shape)
    assert network.training
    loaded = torch.jit.load(path)
    for other in (shape, (3, shape[1], *(size * 3 for size in shape[2:]))):
        image = torch.randn(*other)
        assert torch.allclose(answer(loaded, image), answer(network, image), atol=1e-5)
    assert {name for name, _ in loaded.named_parameters()} == {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize("kind", NETWORKS)
def test_onnx_gives_the_networks_output_for_other_sizes_too(tmp_path, kind):
    runtime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    make, shape = NETWORKS[kind]
    network = make()
    path = to_onnx(network, tmp_path / "model.onnx", shape)
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for other in (shape, (2, shape[1], *(size * 3 for size in shape[2:]))):
        image = torch.randn(*other)
        (got,) = session.run(["pred"], {"image": image.numpy()})
        assert torch.allclose(torch.from_numpy(got), answer(network, image), atol=1e-4)


def test_exports_are_reproducible_and_name_no_local_paths(tmp_path):
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    for write, name in ((to_torchscript, "model.ts"), (to_onnx, "model.onnx")):
        network, shape = NETWORKS["2d"][0](), NETWORKS["2d"][1]
        first = write(network, tmp_path / "a" / name, shape).read_bytes()
        torch.jit.trace(torch.nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 4, 4))
        assert write(network, tmp_path / "b" / name, shape).read_bytes() == first
        assert write(unet2d(seed=1), tmp_path / "c" / name, shape).read_bytes() != first
        texts = [first]
        if name.endswith(".ts"):
            archive = zipfile.ZipFile(io.BytesIO(first))
            texts += [archive.read(entry) for entry in archive.namelist()]
        assert not any(b"site-packages" in text or str(tmp_path).encode() in text for text in texts)


class Chooses(torch.nn.Module):
    """Branch on the values, which a trace cannot record."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 2, 1)

    def forward(self, image):
        return self.conv(image) if image.sum() < 1e4 else self.conv(image) + 1


def test_an_export_that_gives_other_values_is_deleted(tmp_path):
    bright = torch.full((1, 1, 8, 8), 1e4)
    assert to_torchscript(Chooses(), tmp_path / "fits.ts", (1, 1, 8, 8), torch.zeros(1, 1, 8, 8)).is_file()
    with pytest.raises(OutputError, match=r"model\.ts: does not give the network's output for the sample"):
        to_torchscript(Chooses(), tmp_path / "model.ts", (1, 1, 8, 8), bright * 1e-1)
    assert [path.name for path in tmp_path.iterdir()] == ["fits.ts"]


class BySize(torch.nn.Module):
    def forward(self, image):
        return image if image.shape[-1] <= 8 else image * 2


def test_a_trace_that_is_wrong_for_another_size_is_deleted(tmp_path):
    with pytest.raises(OutputError, match=r"for random values, \(2, 1, 16, 16\)"):
        to_torchscript(BySize(), tmp_path / "model.ts", (1, 1, 8, 8))
    assert not list(tmp_path.iterdir())


class Listed(torch.nn.Module):
    def forward(self, image):
        return [image, image]


class Sorted(torch.nn.Module):
    """Do something that ONNX has no operator for."""

    def forward(self, image):
        return torch.linalg.svdvals(image)[..., None] * image


def test_networks_that_cannot_be_exported_are_refused(tmp_path):
    with pytest.raises(OutputError, match="Listed: must return one tensor to be exported [(]got list"):
        to_torchscript(Listed(), tmp_path / "model.ts", (1, 1, 8, 8))
    with pytest.raises(GeometryError, match=r"the network does not take it [(].*1 channels"):
        to_torchscript(unet2d(), tmp_path / "model.ts", (1, 3, 32, 32))
    for shape in ((1, 32, 32), (1, 0, 32, 32)):
        with pytest.raises(GeometryError, match="must be"):
            to_torchscript(unet2d(), tmp_path / "model.ts", shape)
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    with pytest.raises(OutputError, match="the network cannot be exported to ONNX"):
        to_onnx(Sorted(), tmp_path / "model.onnx", (1, 1, 8, 8))
    assert not list(tmp_path.iterdir())


def test_without_onnx_the_extra_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.partition(".")[0] in ("onnx", "onnxruntime"):
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr("medseg.optional.importlib.import_module", lambda name: absent(name))
    with pytest.raises(MissingExtraError, match=r"pip install 'medseg\[onnx\]'"):
        to_onnx(unet2d(), tmp_path / "model.onnx", (1, 1, 32, 32))
    assert not list(tmp_path.iterdir())
