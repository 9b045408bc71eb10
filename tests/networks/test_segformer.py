"""Compare SegFormer with Hugging Face's forward, and its weights one by one."""

import copy
import io
import shlex
import sys

import pytest
import torch

from medseg.cli.options import parse_pairs
from medseg.errors import ConfigError, GeometryError, MissingExtraError, WeightsError
from medseg.inference.final_conv import split_final_conv
from medseg.networks import SegFormer, load_weights
from medseg.networks.segformer import VARIANTS, for_channels, require_variant

pytestmark = pytest.mark.slow

TINY = {
    "depths": [1, 1, 2, 1],
    "hidden_sizes": [8, 16, 24, 32],
    "num_attention_heads": [1, 2, 3, 4],
    "decoder_hidden_size": 16,
}


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"medseg\[segformer\]"):
        SegFormer(1, 2)


def test_channels_are_averaged_repeated_and_scaled():
    weight = torch.randn(5, 3, 7, 7, generator=torch.Generator().manual_seed(0))
    assert for_channels(weight, 3) is weight
    grey = torch.randn(2, 1, 20, 20, generator=torch.Generator().manual_seed(1))
    before = torch.nn.functional.conv2d(grey.repeat(1, 3, 1, 1), weight)
    for channels in (1, 2, 5):
        after = torch.nn.functional.conv2d(grey.repeat(1, channels, 1, 1), for_channels(weight, channels))
        torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers", reason="needs the extra segformer")


def tiny(in_channels=3, out_channels=4, **options):
    torch.manual_seed(0)
    return SegFormer(in_channels, out_channels, **{"variant": TINY, **options})


def whole(transformers, labels=150, kind="SegformerForSemanticSegmentation", **values):
    """Hugging Face's own network with random weights, every one of them different from its initial value."""
    network = getattr(transformers, kind)(transformers.SegformerConfig(num_labels=labels, **{**TINY, **values}))
    made = torch.Generator().manual_seed(7)
    for weight in [*network.parameters(), *(one for one in network.buffers() if one.is_floating_point())]:
        weight.data = torch.rand(weight.shape, generator=made) * 0.2 + 0.1
    return network


@pytest.mark.parametrize(
    ("variant", "millions"), [("b0", 3.7), ("b1", 13.7), ("b2", 27.4), ("b3", 47.2), ("b4", 64.0), ("b5", 84.6)]
)
def test_variants_have_the_published_sizes(transformers, variant, millions):
    with torch.device("meta"):
        network = SegFormer(3, 4, variant)
    assert sum(weight.numel() for weight in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


def test_the_default_is_b0(transformers):
    with torch.device("meta"):
        one, other = SegFormer(3, 4), SegFormer(3, 4, "b0")
    assert {k: v.shape for k, v in one.state_dict().items()} == {k: v.shape for k, v in other.state_dict().items()}


@pytest.mark.parametrize("size", [(29, 29), (64, 96), (97, 131), (33, 200)])
def test_logits_are_hugging_faces_at_the_size_of_the_image(transformers, size):
    theirs = whole(transformers, labels=4).eval()
    network = tiny().eval()
    network.stages, network.decode_head = theirs.segformer.stages, theirs.decode_head
    image = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        small = theirs(pixel_values=image).logits
        wanted = torch.nn.functional.interpolate(small, size=size, mode="bilinear", align_corners=False)
        assert small.shape[2:] == tuple(-(-one // 4) for one in size)
        torch.testing.assert_close(network(image), wanted)


def test_a_seed_makes_the_same_network(transformers):
    one, other = tiny(), tiny()
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
    torch.manual_seed(1)
    assert not torch.equal(SegFormer(3, 4, TINY).decode_head.classifier.weight, one.decode_head.classifier.weight)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_any_number_of_channels(transformers, channels):
    assert tiny(channels, 2).eval()(torch.zeros(1, channels, 32, 40)).shape == (1, 2, 32, 40)


def test_wrong_images_and_variants_are_refused(transformers):
    network = tiny(1)
    with pytest.raises(GeometryError, match=r"\(batch, 1, height, width\) [(]got \(1, 3, 32, 32\)"):
        network(torch.zeros(1, 3, 32, 32))
    with pytest.raises(GeometryError, match="29 pixels or more"):
        network(torch.zeros(1, 1, 28, 64))
    with pytest.raises(ConfigError, match=r"must be one of b0, .*Did you mean 'b1'"):
        SegFormer(3, 4, "B1")
    with pytest.raises(ConfigError, match=r"depth: is not a key of SegformerConfig.*Did you mean 'depths'"):
        SegFormer(3, 4, {"depth": [1, 1, 1, 1]})
    with pytest.raises(ConfigError, match="depths: must have a value for each of 4 stages"):
        SegFormer(3, 4, {"depths": [1, 1]})
    with pytest.raises(ConfigError, match="num_labels: must not be set here"):
        SegFormer(3, 4, {"num_labels": 2})
    with pytest.raises(ConfigError, match="is not what SegformerConfig takes"):
        SegFormer(3, 4, {"depths": "many"})
    for channels in (0, 2.5, True):
        with pytest.raises(ConfigError, match="in_channels: must be a whole number"):
            SegFormer(channels, 4)


def test_every_layer_but_the_classifier_comes_from_a_folder(transformers, tmp_path):
    theirs = whole(transformers)
    theirs.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    network, fresh = tiny(pretrained=tmp_path), tiny()
    given = {name.removeprefix("segformer."): weight for name, weight in theirs.state_dict().items()}
    own, random = network.state_dict(), fresh.state_dict()
    assert set(own) == set(given)
    assert len(own) > 50
    for name, weight in own.items():
        if name.startswith("decode_head.classifier."):
            assert torch.equal(weight, random[name]), name
        else:
            assert torch.equal(weight, given[name]), name
    assert network.training


@pytest.mark.parametrize("channels", [1, 5])
def test_weights_for_other_channels_respond_alike_to_a_gray_image(transformers, tmp_path, channels):
    theirs = whole(transformers).eval()
    theirs.save_pretrained(tmp_path)
    network = tiny(channels, pretrained=tmp_path).eval()
    grey = torch.randn(1, 1, 40, 40, generator=torch.Generator().manual_seed(3))
    one = network.stages[0](grey.repeat(1, channels, 1, 1))
    other = theirs.segformer.stages[0](grey.repeat(1, 3, 1, 1))
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_the_variant_defaults_to_that_of_the_folder(transformers, tmp_path):
    whole(transformers).save_pretrained(tmp_path)
    assert SegFormer(3, 4, pretrained=tmp_path).stages[3].layer_norm.weight.shape == (32,)
    with pytest.raises(WeightsError, match=r"variant b0, whose depths is \[2, 2, 2, 2\] [(]got another one"):
        SegFormer(3, 4, "b0", pretrained=tmp_path)
    whole(transformers, **VARIANTS["b0"], num_attention_heads=[1, 2, 5, 8]).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"got b0, .* Set variant=b0\."):
        SegFormer(3, 4, "b1", pretrained=tmp_path)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"depths": [1, 2, 1, 1]},
        {"hidden_sizes": [8, 16, 16, 24], "num_attention_heads": [1, 2, 2, 3]},
        {"decoder_hidden_size": 40, "mlp_ratios": [2, 2, 2, 2]},
    ],
)
@pytest.mark.parametrize("kind", ["SegformerForSemanticSegmentation", "SegformerForImageClassification"])
def test_the_variant_that_an_error_advises_is_taken(transformers, tmp_path, kind, values):
    whole(transformers, kind=kind, **values).save_pretrained(tmp_path)
    with pytest.raises(WeightsError) as error:
        SegFormer(3, 4, "b0", pretrained=tmp_path)
    (argument,) = shlex.split(str(error.value).partition(" Set ")[2].removesuffix("."))
    variant = parse_pairs([argument])["variant"]
    require_variant(variant)
    expected = SegFormer(3, 4, pretrained=tmp_path).stages.state_dict()
    state = SegFormer(3, 4, variant, pretrained=tmp_path).stages.state_dict()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_an_encoder_without_decoder_is_loaded(transformers, tmp_path):
    theirs = whole(transformers, kind="SegformerForImageClassification", labels=1000, decoder_hidden_size=64)
    theirs.save_pretrained(tmp_path)
    network, random, given = tiny(pretrained=tmp_path), tiny().state_dict(), theirs.segformer.state_dict()
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, (random if name.startswith("decode_head.") else given)[name]), name


def test_a_bin_file_is_read_without_executing_anything(transformers, tmp_path):
    theirs = whole(transformers)
    theirs.config.save_pretrained(tmp_path)
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    network = tiny(pretrained=str(tmp_path))
    assert torch.equal(network.stages[1].blocks[0].mlp.fc1.weight, theirs.segformer.stages[1].blocks[0].mlp.fc1.weight)
    torch.save({"weight": Canary(str(tmp_path / "canary"))}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="does not hold the complete weights"):
        tiny(pretrained=tmp_path)
    assert not (tmp_path / "canary").exists()


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_incomplete_and_foreign_folders_are_refused(transformers, tmp_path):
    from safetensors.torch import load_file, save_file

    theirs, file = whole(transformers), tmp_path / "model.safetensors"
    theirs.save_pretrained(tmp_path)
    good, weights = file.read_bytes(), load_file(file)
    stem = next(name for name in weights if weights[name].shape == (8, 3, 7, 7))
    save_file({name: weight for name, weight in weights.items() if name != stem}, file, {"format": "pt"})
    with pytest.raises(WeightsError, match=r"1 missing \(.*patch_embeddings.proj.weight\)"):
        tiny(pretrained=tmp_path)
    save_file({**weights, "segformer.more": torch.zeros(1)}, file, {"format": "pt"})
    with pytest.raises(WeightsError, match=r"1 unknown \(segformer.more\)"):
        tiny(pretrained=tmp_path)
    save_file({**weights, stem: torch.zeros(8, 4, 7, 7)}, file, {"format": "pt"})
    with pytest.raises(WeightsError, match="does not hold the complete weights of the SegFormer in its config"):
        tiny(pretrained=tmp_path)
    file.write_bytes(good[: len(good) // 2])
    with pytest.raises(WeightsError, match="does not hold the complete weights"):
        tiny(pretrained=tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(WeightsError, match="is not the config of a SegFormer [(]got bert"):
        tiny(pretrained=tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "segformer", "depths": "many"}')
    with pytest.raises(WeightsError, match=r"is not the config of a SegFormer [(].*depths"):
        tiny(pretrained=tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="is not the config of a SegFormer"):
        tiny(pretrained=tmp_path)


def test_random_weights_need_permission(transformers, monkeypatch, caplog):
    from medseg.networks import segformer
    from medseg.networks.weights import UnreachableError

    def away(name, extra):
        raise UnreachableError(name, "the hub cannot be reached")

    monkeypatch.setattr(segformer, "weights_folder", away)
    with pytest.raises(UnreachableError):
        tiny(pretrained="nvidia/mit-b0")
    with caplog.at_level("WARNING"):
        tiny(pretrained="nvidia/mit-b0", allow_missing_pretrained=True)
    assert "begins with random weights: nvidia/mit-b0: the hub cannot be reached" in caplog.text


def test_saved_weights_are_loaded_again(transformers, tmp_path):
    network, other = tiny().eval(), tiny(1, 4).eval()
    torch.save(network.state_dict(), tmp_path / "model.pt")
    torch.manual_seed(5)
    again = load_weights(SegFormer(3, 4, TINY), tmp_path / "model.pt").eval()
    image = torch.randn(1, 3, 40, 40)
    assert torch.equal(network(image), again(image))
    assert torch.equal(network(image), copy.deepcopy(network)(image))
    with pytest.raises(WeightsError, match="does not fit the network"):
        load_weights(other, tmp_path / "model.pt")


def test_checkpointing_gives_the_same_gradients_and_keeps_less(transformers):
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    gradients, saved = [], []
    for on in (False, True):
        network = tiny(drop_path=0.0, dropout=0.0, gradient_checkpointing=on).train()
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda one, s=sizes: s.append(one.numel()) or one, lambda one: one
        ):
            loss = network(image).square().mean()
        loss.backward()
        gradients.append([weight.grad for weight in network.parameters()])
        saved.append(sum(sizes))
    assert saved[1] < 0.7 * saved[0]
    torch.testing.assert_close(gradients[1], gradients[0])


def test_autocast_stays_close(transformers):
    network, image = tiny(), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(4))
    with torch.autocast("cpu", torch.bfloat16):
        logits = network.train()(image)
    logits.float().mean().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in network.parameters())
    network.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        near = network(image).float()
    torch.testing.assert_close(near, network(image), atol=0.02, rtol=0.05)


def test_inference_does_not_split_its_classifier(transformers):
    with split_final_conv(tiny().eval()) as (_, final_conv):
        assert final_conv is None  # logits are interpolated after it


SIZES = [(2, 3, 97, 131), (1, 3, 64, 64), (3, 3, 32, 50)]


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_holds_at_other_sizes(transformers):
    network = tiny().eval()
    traced = torch.jit.trace(network, torch.randn(1, 3, 64, 96))
    file = io.BytesIO()
    torch.jit.save(traced, file)
    file.seek(0)
    back = torch.jit.load(file)
    for size in SIZES:
        image = torch.randn(*size)
        with torch.no_grad():
            torch.testing.assert_close(back(image), network(image), atol=1e-4, rtol=0)


def agrees(network, path):
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in SIZES:
        image = torch.randn(*size)
        (result,) = session.run(None, {"image": image.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(result), network(image), atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_onnx_holds_at_other_sizes(transformers, tmp_path):
    pytest.importorskip("onnx", reason="needs onnx")
    network, path = tiny().eval(), tmp_path / "network.onnx"
    names = {"input_names": ["image"], "output_names": ["logits"]}
    axes = {name: {0: "batch", 2: "height", 3: "width"} for name in ("image", "logits")}
    torch.onnx.export(network, (torch.randn(2, 3, 64, 96),), path, dynamo=False, dynamic_axes=axes, **names)
    agrees(network, path)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_onnx_through_torch_export_holds_at_other_sizes(transformers, tmp_path):
    pytest.importorskip("onnxscript", reason="needs onnxscript")
    network, path = tiny().eval(), tmp_path / "network.onnx"
    free = {"image": dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)}
    torch.onnx.export(
        network,
        (torch.randn(2, 3, 64, 96),),
        path,
        input_names=["image"],
        output_names=["logits"],
        dynamo=True,
        dynamic_shapes=free,
    )
    agrees(network, path)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_it_compiles_for_fixed_sizes(transformers):
    image = torch.randn(2, 3, 64, 64)
    network = tiny(drop_path=0.0, dropout=0.0).train()
    other = copy.deepcopy(network)
    compiled = torch.compile(network, dynamic=False)  # with sizes left free torch 2.13 fails on the backward pass
    torch.testing.assert_close(compiled(image), other(image), atol=1e-4, rtol=0)
    compiled(image).square().mean().backward()
    other(image).square().mean().backward()
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, atol=1e-4, rtol=1e-3)
