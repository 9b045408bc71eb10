"""Against MONAI: the same windows over each slice, all logits at once, then argmax."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.inferers import SliceInferer

from medseg.errors import ConfigError, GeometryError
from medseg.inference import StreamingInferer


def network(channels=1, classes=5):
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(channels, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, classes, 3, padding=1)
    ).eval()


@settings(deadline=None, max_examples=30)
@given(
    size=st.tuples(st.integers(5, 40), st.integers(5, 40), st.integers(1, 9)),
    roi=st.tuples(st.integers(8, 24), st.integers(8, 24)),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.75]),
    mode=st.sampled_from(["gaussian", "constant"]),
    slices=st.integers(1, 10),
    batch=st.integers(1, 5),
)
def test_labels_are_those_of_monais_logits(size, roi, overlap, mode, slices, batch):
    volume = torch.rand(1, 1, *size)
    with torch.no_grad():
        found = StreamingInferer(roi, batch, overlap, mode, slices=slices)(volume, network())
        logits = SliceInferer(roi_size=roi, sw_batch_size=1, spatial_dim=2, overlap=overlap, mode=mode)(
            volume, network()
        )
    wanted = logits.argmax(dim=1, keepdim=True)
    assert found.shape == wanted.shape
    assert found.dtype == torch.uint8
    top = logits.topk(2, dim=1).values
    ties = (top[:, 0] - top[:, 1]).abs() < 1e-4
    assert bool(((found.long() == wanted) | ties[:, None]).all())


def test_context_gives_each_slice_its_neighbours():
    volume = torch.rand(1, 1, 12, 12, 5)
    net = network(3)
    with torch.no_grad():
        found = StreamingInferer((12, 12), context=1, slices=2)(volume, net)
        for k in range(5):
            stack = torch.cat([volume[0, :, :, :, min(max(j, 0), 4)] for j in (k - 1, k, k + 1)])
            assert torch.equal(found[0, 0, :, :, k].long(), net(stack[None]).argmax(dim=1)[0])


def test_multilabel_channels_are_decided_one_by_one():
    volume = torch.rand(1, 1, 10, 12, 4)
    with torch.no_grad():
        found = StreamingInferer((12, 12), multilabel=True, threshold=0.6)(volume, network())
        logits = SliceInferer(roi_size=(12, 12), sw_batch_size=1, spatial_dim=2, mode="gaussian")(volume, network())
    assert torch.equal(found.bool(), torch.sigmoid(logits) > 0.6)


def test_all_logits_never_exist_at_once():
    seen = []

    def net(windows):
        seen.append(len(windows))
        return windows.repeat(1, 300, 1, 1)

    found = StreamingInferer((16, 16), sw_batch_size=2, slices=3)(torch.rand(1, 1, 16, 16, 30), net)
    assert max(seen) <= 2
    assert found.dtype == torch.int32  # 300 classes do not fit into 8 bits


def test_geometry_and_trace_are_kept():
    volume = MetaTensor(torch.rand(1, 1, 8, 8, 2), affine=3 * torch.eye(4), applied_operations=[{"class": "Spacing"}])
    found = StreamingInferer((8, 8))(volume, network())
    assert torch.equal(found.affine, volume.affine)
    assert found.applied_operations == volume.applied_operations


@pytest.mark.parametrize(
    "wrong",
    [
        {"roi_size": (8,)},
        {"roi_size": (0, 8)},
        {"overlap": 1.0},
        {"mode": "linear"},
        {"context": -1},
        {"slices": 0},
        {"threshold": 1.0},
    ],
)
def test_arguments_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match="StreamingInferer"):
        StreamingInferer(**{"roi_size": (8, 8), **wrong})


def test_a_slice_alone_is_refused():
    with pytest.raises(GeometryError, match="takes volumes"):
        StreamingInferer((8, 8))(torch.rand(1, 1, 8, 8), network())


def test_a_network_with_several_outputs_is_refused():
    with pytest.raises(ConfigError, match="one output"):
        StreamingInferer((8, 8))(torch.rand(1, 1, 8, 8, 1), lambda x: (x, x))
