"""Compare with MONAI: all logits at once, interpolated to the output grid, then argmax."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.inferers import SliceInferer, sliding_window_inference
from monai.transforms import Compose, CropForegroundd, Invertd, Orientationd, Spacingd

from medseg.errors import ConfigError, DataError, GeometryError
from medseg.inference import InferenceOptions, StreamingInferer, kernels


def network(channels=1, classes=5, dims=2, head=3):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d if dims == 2 else torch.nn.Conv3d
    return torch.nn.Sequential(
        conv(channels, 8, 3, padding=1), torch.nn.ReLU(), conv(8, classes, head, padding=head // 2)
    ).eval()


def scan(shape, affine, seed=0):
    """Return a smooth volume on a grid of its own, as LoadImaged does."""
    rough = torch.rand(1, 1, 4, 5, 6, generator=torch.Generator().manual_seed(seed))
    volume = torch.nn.functional.interpolate(rough, size=shape, mode="trilinear")[0]
    affine = torch.as_tensor(affine, dtype=torch.float64)
    meta = {"original_affine": affine.numpy(), "spatial_shape": np.array(shape), "filename_or_obj": "scan.nii.gz"}
    return MetaTensor(volume, affine=affine, meta=meta)


def require_labels_of(logits, labels, share=1e-5):
    """Require that labels are those of the logits wherever these do not tie, but for a share of the voxels."""
    top = logits.topk(2, dim=1).values
    ties = (top[:, 0] - top[:, 1]).abs() < 1e-4 * top.abs().amax()
    wrong = (labels[:, 0].long() != logits.argmax(dim=1)) & ~ties
    assert int(wrong.sum()) <= share * wrong.numel()


def affine_of(axes, spacing):
    """Return an affine with these axes ('LPS', 'IAR' ...) and spacing."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, letter in enumerate(axes):
        row = ["LR", "PA", "IS"].index(next(pair for pair in ("LR", "PA", "IS") if letter in pair))
        affine[row, column] = spacing[column] * (1 if letter in "RAS" else -1)
    affine[:3, 3] = 7, -11, 13
    return affine


GRIDS = st.tuples(
    st.tuples(st.integers(5, 26), st.integers(5, 26), st.integers(3, 14)),
    st.sampled_from(["RAS", "LPS", "LAS", "PIR", "SLA", "IAR", "ARS"]),
    st.tuples(*[st.sampled_from([0.7, 1.0, 1.37, 2.0, 3.1]) for _ in range(3)]),
)
WINDOWS = {
    "overlap": st.sampled_from([0.0, 0.25, 0.5, 0.75]),
    "mode": st.sampled_from(["gaussian", "constant"]),
    "batch": st.integers(1, 5),
}


@settings(deadline=None, max_examples=30)
@given(size=st.tuples(st.integers(5, 40), st.integers(5, 40), st.integers(1, 9)),
       roi=st.tuples(st.integers(8, 24), st.integers(8, 24)), head=st.sampled_from([1, 3]), **WINDOWS)  # fmt: skip
def test_slices_have_the_labels_of_monais_logits(size, roi, head, overlap, mode, batch):
    volume, net = torch.rand(1, 1, *size), network(head=head)
    labels = StreamingInferer(roi, batch, overlap, mode)(volume, net)
    with torch.no_grad():
        logits = SliceInferer(roi_size=roi, sw_batch_size=1, spatial_dim=2, overlap=overlap, mode=mode)(volume, net)
    assert labels.shape == (1, 1, *size)
    assert labels.dtype == torch.uint8
    require_labels_of(logits, labels)


@settings(deadline=None, max_examples=20)
@given(size=st.tuples(*[st.integers(4, 22)] * 3), roi=st.tuples(*[st.integers(6, 14)] * 3),
       head=st.sampled_from([1, 3]), **WINDOWS)  # fmt: skip
def test_volumes_have_the_labels_of_monais_logits(size, roi, head, overlap, mode, batch):
    volume, net = torch.rand(1, 1, *size), network(dims=3, head=head)
    labels = StreamingInferer(roi, batch, overlap, mode)(volume, net)
    with torch.no_grad():
        logits = sliding_window_inference(volume, roi, 1, net, overlap=overlap, mode=mode)
    require_labels_of(logits, labels)


@settings(deadline=None, max_examples=40)
@given(grid=GRIDS, spacing=st.tuples(*[st.sampled_from([-1.0, 0.9, 1.5, 2.2])] * 3), dims=st.sampled_from([2, 3]),
       fused=st.booleans(), overlap=WINDOWS["overlap"], mode=WINDOWS["mode"])  # fmt: skip
def test_labels_on_the_grid_of_the_scan_are_those_of_inverted_logits(grid, spacing, dims, fused, overlap, mode):
    shape, axes, source_spacing = grid
    roi, net = ((9, 8), network()) if dims == 2 else ((9, 8, 7), network(dims=3))
    transform = Compose([Orientationd("image", "RAS", labels=None), Spacingd("image", spacing, mode="bilinear")])
    item = transform({"image": scan(shape, affine_of(axes, source_spacing))})
    with pytest.MonkeyPatch.context() as patch:
        if not fused:
            patch.setattr(kernels, "_loops", lambda: None)
        labels = StreamingInferer(roi, 3, overlap, mode, output_grid="source")(item["image"][None], net)
    assert labels.shape[2:] == shape
    assert np.allclose(labels.affine, affine_of(axes, source_spacing))
    with torch.no_grad():
        if dims == 2:
            inferer = SliceInferer(roi_size=roi, sw_batch_size=1, spatial_dim=2, overlap=overlap, mode=mode)
            logits = inferer(item["image"][None], net)
        else:
            logits = sliding_window_inference(item["image"][None], roi, 1, net, overlap=overlap, mode=mode)
    item["pred"] = MetaTensor(logits[0], meta=item["image"].meta, applied_operations=item["image"].applied_operations)
    inverted = Invertd("pred", transform, orig_keys="image", nearest_interp=False, to_tensor=True)(item)["pred"]
    require_labels_of(inverted[None].as_tensor(), labels)


def test_voxels_outside_a_crop_are_background():
    transform = Compose([Orientationd("image", "RAS", labels=None), CropForegroundd("image", "image")])
    image = scan((20, 18, 9), affine_of("LPS", (1, 1, 2)))
    image[:, :4], image[:, :, 15:] = 0, 0
    item = transform({"image": image})
    net = network()
    with torch.no_grad():
        net[2].bias[0] -= 5  # the network itself gives background nowhere
    labels = StreamingInferer((32, 32), output_grid="source")(item["image"][None], net)[0, 0]
    assert labels.shape == (20, 18, 9)
    assert not labels[:4].any()
    assert not labels[:, 15:].any()
    assert (labels[4:, :15] > 0).all()


@pytest.mark.parametrize("output_grid", ["source", "network"])
def test_each_scan_of_a_batch_keeps_its_own_affine(output_grid):
    transform = Orientationd("image", "RAS", labels=None)
    affines = [affine_of("LPS", (1, 1, 2)), affine_of("RAS", (1, 2, 1))]
    items = [transform({"image": scan((12, 10, 9), affine, seed)}) for seed, affine in enumerate(affines)]
    inferer, net = StreamingInferer((8, 8), output_grid=output_grid), network()
    batch = list_data_collate(items)["image"]
    outputs = decollate_batch(inferer(batch, net))
    for item, affine, output in zip(items, affines, outputs, strict=True):
        assert np.allclose(output.affine, affine if output_grid == "source" else item["image"].affine)
        single = inferer(item["image"][None], net)
        assert torch.equal(output.as_tensor(), single[0].as_tensor())
        assert np.allclose(single.affine, output.affine)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_may_lie_along_any_axis(axis):
    volume, net = torch.rand(1, 1, 9, 10, 11), network()
    labels = StreamingInferer((8, 8), spatial_dim=axis)(volume, net)
    monai = SliceInferer(roi_size=(8, 8), sw_batch_size=1, spatial_dim=axis, overlap=0.25, mode="gaussian")
    with torch.no_grad():
        require_labels_of(monai(volume, net), labels)


def test_context_gives_each_slice_its_neighbors():
    volume = torch.rand(1, 1, 12, 12, 5)
    net = network(3)
    result = StreamingInferer((12, 12), context=1)(volume, net)
    with torch.no_grad():
        for k in range(5):
            stack = torch.cat([volume[0, :, :, :, min(max(j, 0), 4)] for j in (k - 1, k, k + 1)])
            assert torch.equal(result[0, 0, :, :, k].long(), net(stack[None]).argmax(dim=1)[0])


def test_multilabel_channels_are_decoded_one_by_one():
    volume, net = torch.rand(1, 1, 10, 12, 4), network()
    result = StreamingInferer((12, 12), multilabel=True, threshold=0.6)(volume, net)
    with torch.no_grad():
        logits = SliceInferer(roi_size=(12, 12), sw_batch_size=1, spatial_dim=2, mode="gaussian")(volume, net)
    assert torch.equal(result.bool(), torch.sigmoid(logits) > 0.6)


def test_logits_are_those_of_monai():
    volume, net = torch.rand(1, 1, 20, 22, 4), network()
    logits = StreamingInferer((12, 12), overlap=0.5, decode="logits")(volume, net)
    monai = SliceInferer(roi_size=(12, 12), sw_batch_size=1, spatial_dim=2, overlap=0.5, mode="gaussian")
    with torch.no_grad():
        assert torch.allclose(logits, monai(volume, net), atol=1e-5)


def test_flipped_views_are_averaged_with_contralaterals_exchanged():
    volume, net, contralaterals = torch.rand(1, 1, 12, 12, 3), network(), [0, 2, 1, 3, 4]
    result = StreamingInferer((12, 12), flips=[[0], [0, 1]], contralaterals=contralaterals, decode="logits")(
        volume, net
    )
    with torch.no_grad():

        def plain(part):
            return SliceInferer(roi_size=(12, 12), sw_batch_size=1, spatial_dim=2, mode="constant")(part, net)

        expected = plain(volume) + plain(volume.flip(2)).flip(2)[:, contralaterals]
        expected += plain(volume.flip((2, 3))).flip((2, 3))[:, contralaterals]
    assert torch.allclose(result, expected / 3, atol=1e-5)


def test_only_the_requested_structures_come_out():
    volume, net, inferer = torch.rand(1, 1, 12, 12, 3), network(), StreamingInferer((12, 12))
    labels, part = inferer(volume, net), inferer(volume, net, options=InferenceOptions(structures=[2, 3]))
    assert torch.equal(part, torch.where((labels == 2) | (labels == 3), labels, 0))


def test_all_logits_never_exist_at_once():
    batches = []

    def net(windows):
        batches.append(len(windows))
        return windows.repeat(1, 300, 1, 1)

    labels = StreamingInferer((16, 16), sw_batch_size=2)(torch.rand(1, 1, 16, 16, 30), net)
    assert max(batches) <= 2
    assert labels.dtype == torch.int16  # 300 classes do not fit into 8 bits


def test_options_of_a_call_change_that_call_alone():
    volume, batches = torch.rand(1, 1, 16, 16, 6), []

    def net(windows):
        batches.append(len(windows))
        return torch.cat([windows, 1 - windows], dim=1)

    inferer = StreamingInferer((16, 16), sw_batch_size=2)
    expected = inferer(volume, net)
    options = InferenceOptions(sw_batch_size=3, structures=[1], confidence=True, progress=True)
    restricted = inferer(volume, net, options=options)
    assert torch.equal(restricted, torch.where(expected == 1, expected, 0))
    assert "confidence" in restricted.meta
    assert torch.equal(inferer(volume, net), expected)
    assert batches == [2, 2, 2, 3, 3, 2, 2, 2]
    with pytest.raises(ConfigError, match="sw_batch_size"):
        InferenceOptions(sw_batch_size=0)


def test_a_batch_that_does_not_fit_is_halved_with_a_warning(caplog):
    batches = []

    def net(windows):
        batches.append(len(windows))
        if len(windows) > 1:
            raise torch.OutOfMemoryError
        return torch.cat([windows, 1 - windows], dim=1)

    volume = torch.rand(1, 1, 8, 8, 5)
    labels = StreamingInferer((8, 8), sw_batch_size=4)(volume, net)
    assert torch.equal(labels[0, 0].bool(), volume[0, 0] < 0.5)
    assert "do not fit into the GPU's memory" in caplog.text
    assert batches == [4, 2, 1, 1, 2, 1, 1, 1]


def test_half_precision_stays_close_on_a_real_network():
    volume, net = scan((24, 24, 6), np.eye(4))[None], network()
    single, half = (StreamingInferer((24, 24), precision=precision)(volume, net) for precision in ("fp32", "bf16"))
    assert (single != half).float().mean() < 0.05


def test_geometry_and_trace_are_kept_on_the_networks_grid():
    volume = MetaTensor(torch.rand(1, 1, 8, 8, 2), affine=3 * torch.eye(4), applied_operations=[{"class": "Spacing"}])
    result = StreamingInferer((8, 8))(volume, network())
    assert torch.equal(result.affine, volume.affine)
    assert result.applied_operations == volume.applied_operations


@pytest.mark.parametrize(
    "wrong",
    [
        {"roi_size": (8,)},
        {"roi_size": (0, 8)},
        {"overlap": 1.0},
        {"mode": "linear"},
        {"context": -1},
        {"roi_size": (8, 8, 8), "context": 1},
        {"threshold": 1.0},
        {"output_grid": "scan"},
        {"spatial_dim": 3},
        {"precision": "int8"},
        {"flips": [[2]]},
        {"sw_batch_size": 0},
        {"sw_batch_size": "all"},
        {"decode": "channels"},
    ],
)
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        StreamingInferer(**{"roi_size": (8, 8), **wrong})


def test_inputs_of_another_shape_or_not_finite_are_refused():
    with pytest.raises(GeometryError, match="the input must have the shape"):
        StreamingInferer((8, 8, 2))(torch.rand(1, 1, 8, 8), network())
    for value in (float("nan"), float("inf")):
        volume = scan((8, 8, 2), np.eye(4))
        volume[0, 1, 1, 1] = value
        with pytest.raises(DataError, match=r"scan\.nii\.gz: the network needs finite values"):
            StreamingInferer((8, 8))(volume[None], network())


def test_a_source_grid_that_is_unknown_or_oblique_is_refused():
    volume = torch.rand(1, 1, 8, 8, 2)
    with pytest.raises(GeometryError, match="plain tensor"):
        StreamingInferer((8, 8), output_grid="source")(volume, network())
    with pytest.raises(GeometryError, match="on which grid it was read"):
        StreamingInferer((8, 8), output_grid="source")(MetaTensor(volume), network())
    turned = scan((8, 8, 2), np.eye(4))
    turned.affine = torch.tensor([[0.9, -0.4, 0, 0], [0.4, 0.9, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    with pytest.raises(GeometryError, match=r"scan\.nii\.gz: its axes are not at right angles"):
        StreamingInferer((8, 8), output_grid="source")(turned[None], network())


def test_a_network_with_several_outputs_or_another_size_is_refused():
    for net in (lambda x: (x, x), lambda x: x[:, :, ::2]):
        with pytest.raises(ConfigError, match="must return one tensor of the size of its windows"):
            StreamingInferer((8, 8))(torch.rand(1, 1, 8, 8, 1), net)


def test_images_have_the_labels_of_the_network_on_each():
    net, images = network(3), torch.rand(5, 3, 16, 20, generator=torch.Generator().manual_seed(1))
    for batch in (1, 2, 8):
        labels = StreamingInferer((16, 20), batch)(images, net)
        assert (labels.shape, labels.dtype) == ((5, 1, 16, 20), torch.uint8)
        with torch.no_grad():
            require_labels_of(net(images), labels, share=0)
            for image, label in zip(images, labels, strict=True):
                require_labels_of(net(image[None]), label[None], share=0)


def test_an_image_larger_than_the_window_has_the_labels_of_monais_windows():
    net, images = network(), torch.rand(2, 1, 30, 21, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits = sliding_window_inference(images, (16, 16), 4, net, overlap=0.5, mode="gaussian")
    require_labels_of(logits, StreamingInferer((16, 16), 4, overlap=0.5)(images, net))


def test_multilabel_channels_of_images_are_decoded_one_by_one():
    net, images = network(classes=3), torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = net(images) > 0
    result = StreamingInferer((16, 16), multilabel=True)(images, net)
    assert result.shape == (2, 3, 16, 16)
    assert torch.equal(result, expected.to(torch.uint8))
    assert 0 < result.float().mean() < 1


@pytest.mark.parametrize(("size", "source"), [((16, 24), (32, 48)), ((16, 24), (10, 15)), ((24, 18), (40, 30))])
def test_labels_of_an_image_lie_on_the_grid_it_was_read_on(size, source):
    source_affine = torch.diag(torch.tensor([0.7, 1.3, 1, 1], dtype=torch.float64))
    factors = [before / after for before, after in zip(source, size, strict=True)]
    affine = source_affine @ torch.diag(torch.tensor([*factors, 1, 1], dtype=torch.float64))
    # Coordinates are those of pixel centers.
    affine[:2, 3] = source_affine.diag()[:2] * (torch.tensor(factors, dtype=torch.float64) - 1) / 2
    meta = {"original_affine": source_affine.numpy(), "spatial_shape": np.array(source), "filename_or_obj": "a.png"}
    image = MetaTensor(torch.rand(1, *size, generator=torch.Generator().manual_seed(4)), affine=affine, meta=meta)
    net = network()
    labels = StreamingInferer(size, output_grid="source")(image[None], net)
    with torch.no_grad():
        logits = net(image.as_tensor()[None])
    assert labels.shape == (1, 1, *source)
    require_labels_of(torch.nn.functional.interpolate(logits, size=source, mode="bilinear"), labels)


def test_an_image_keeps_its_metadata_and_a_batch_has_none():
    image = MetaTensor(torch.rand(1, 8, 8), affine=3 * torch.eye(4), meta={"filename_or_obj": "a.png"})
    result = StreamingInferer((8, 8))(image[None], network())
    assert torch.equal(result.affine, image.affine)
    assert result.meta["filename_or_obj"] == "a.png"
    many = list_data_collate([{"image": image}, {"image": image}])["image"]
    assert type(StreamingInferer((8, 8))(many, network())) is torch.Tensor


def test_images_with_settings_of_volumes_are_refused():
    images, problem = torch.rand(2, 1, 8, 8), "2D images need context=0, spatial_dim=2, confidence=False, and one image"
    for wrong in ({"context": 1}, {"spatial_dim": 0}, {"output_grid": "source"}):
        with pytest.raises(GeometryError, match=problem):
            StreamingInferer((8, 8), **wrong)(images, network())
    with pytest.raises(GeometryError, match=problem):
        StreamingInferer((8, 8))(images, network(), options=InferenceOptions(confidence=True))
    with pytest.raises(GeometryError, match="plain tensor"):
        StreamingInferer((8, 8), output_grid="source")(images[:1], network())
    with pytest.raises(GeometryError, match="the input must have the shape"):
        StreamingInferer((8, 8))(torch.rand(0, 1, 8, 8), network())
