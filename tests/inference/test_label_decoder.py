"""Compare each way to decode with NumPy on all logits at once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from medseg.errors import ConfigError, LabelError
from medseg.inference import InferenceOptions, StreamingInferer, kernels
from medseg.inference.label_decoder import LabelDecoder
from medseg.labels import LabelMap

ROI = (9, 8)
WITH_CONFIDENCE = InferenceOptions(confidence=True)


class Overlapping(torch.nn.Module):
    """Return channels that are present in about half of the voxels each, in patches."""

    def __init__(self, channels=11):
        super().__init__()
        torch.manual_seed(3)
        self.conv = torch.nn.Conv2d(1, channels, 5, padding=2)

    def forward(self, windows):
        return 8 * self.conv(windows - 0.5)


def volume(seed=0, shape=(14, 13, 5)):
    rough = torch.rand(1, 1, 4, 4, 3, generator=torch.Generator().manual_seed(seed))
    image = torch.nn.functional.interpolate(rough, size=shape, mode="trilinear")
    return image[0]


def from_scan(seed, shape, source):
    """Return the same, as if resampled from a grid of that shape."""
    affine = np.diag([*(a / b for a, b in zip(source, shape, strict=True)), 1.0])
    meta = {"original_affine": np.eye(4), "spatial_shape": np.array(source)}
    return MetaTensor(volume(seed, shape)[None], affine=torch.from_numpy(affine), meta=meta)


def painted(logits, order, cut=0.0):
    """Paint one channel after the other."""
    label = np.zeros(logits.shape[1:], int)
    for index in order:
        label[logits[index - 1] > cut] = index
    return label


def near_threshold(logits, cut=0.0):
    return (np.abs(logits - cut) < 1e-4).any(axis=0)


@settings(deadline=None, max_examples=25)
@given(order=st.permutations(range(1, 12)), seed=st.integers(0, 99), fused=st.booleans(),
       source=st.sampled_from([None, (14, 13, 5), (21, 17, 8), (9, 8, 3)]), roi=st.sampled_from([ROI, (16, 16)]),
       precision=st.sampled_from(["fp32", "bf16"]))  # fmt: skip
def test_flattened_labels_are_those_of_the_interpolated_channels(order, seed, fused, source, roi, precision):
    image = volume(seed)[None] if source is None else from_scan(seed, (14, 13, 5), source)
    shared = {"roi_size": roi, "output_grid": "network" if source is None else "source", "precision": precision}
    with pytest.MonkeyPatch.context() as patch:
        if not fused:
            patch.setattr(kernels, "_loops", lambda: None)
        logits = StreamingInferer(**shared, decode="logits")(image, Overlapping()).numpy()[0]
        inferer = StreamingInferer(**shared, multilabel=True, decode="labels", overlap_priority=order)
        labels = inferer(image, Overlapping())
    assert labels.shape == (1, 1, *logits.shape[1:])
    expected = painted(logits, order)
    assert len(np.unique(expected)) > 2
    assert (labels.numpy()[0, 0] != expected)[~near_threshold(logits)].sum() == 0


def test_bits_hold_the_channels():
    image, net = from_scan(1, (14, 13, 5), (20, 17, 8)), Overlapping()
    thresholds = [0.3 + 0.04 * n for n in range(11)]
    shared = {"roi_size": ROI, "output_grid": "source", "multilabel": True, "threshold": thresholds}
    channels = StreamingInferer(**shared)(image, net).numpy()[0]
    bits = StreamingInferer(**shared, decode="bits")(image, net).numpy()[0]
    assert bits.shape == (2, *channels.shape[1:])
    assert np.array_equal(np.unpackbits(bits, axis=0, bitorder="little", count=11), channels)
    logits = StreamingInferer(ROI, output_grid="source", decode="logits")(image, net).numpy()[0]
    cuts = np.log([t / (1 - t) for t in thresholds])[:, None, None, None]
    assert np.array_equal(channels > 0, logits > cuts.astype(np.float32))


def test_each_channel_has_its_own_threshold_when_flattened():
    image, net = volume(2)[None], Overlapping()
    thresholds = [0.9, 0.1] + [0.5] * 9
    logits = StreamingInferer(ROI, decode="logits")(image, net).numpy()[0]
    labels = StreamingInferer(ROI, multilabel=True, decode="labels", threshold=thresholds)(image, net).numpy()[0, 0]
    cuts = np.log(np.array(thresholds) / (1 - np.array(thresholds)))
    assert np.array_equal(labels, painted(logits - cuts[:, None, None, None].astype(np.float32), range(1, 12)))


@pytest.mark.parametrize("decode", ["channels", "bits", "labels"])
def test_only_the_requested_structures_are_decoded(decode):
    image, net = volume(4)[None], Overlapping()
    channels = StreamingInferer(ROI, multilabel=True)(image, net).numpy()[0]
    inferer = StreamingInferer(ROI, multilabel=True, decode=decode)
    output = inferer(image, net, options=InferenceOptions(structures=[2, 7])).numpy()[0]
    if decode == "labels":
        expected = np.where(channels[6] > 0, 7, np.where(channels[1] > 0, 2, 0))[None]
    else:
        expected = channels * np.isin(np.arange(11), [1, 6])[:, None, None, None]
        output = output if decode == "channels" else np.unpackbits(output, axis=0, bitorder="little", count=11)
    assert np.array_equal(output, expected)


@pytest.mark.parametrize("roi", [ROI, (16, 16)])
def test_confidence_is_the_mean_probability_of_each_label(roi):
    image, net = volume(5)[None], Overlapping()
    logits = StreamingInferer(roi, decode="logits")(image, net)[0].double()
    output = StreamingInferer(roi)(image, net, options=WITH_CONFIDENCE)
    probability, label = torch.softmax(logits, 0).max(dim=0)
    assert torch.equal(output.as_tensor()[0, 0].long(), label)
    expected = [float(probability[label == n].mean()) for n in range(11)]
    assert np.allclose(output.meta["confidence"][0], expected, atol=1e-5, equal_nan=True)
    assert np.isfinite(expected).sum() > 3
    multilabel = StreamingInferer(roi, multilabel=True)(image, net, options=WITH_CONFIDENCE).meta["confidence"][0]
    assert np.isnan(multilabel[0])
    expected = [float(channel[channel > 0.5].mean()) for channel in torch.sigmoid(logits)]
    assert np.allclose(multilabel[1:], expected, atol=1e-5, equal_nan=True)


def test_confidence_is_metadata_of_the_output_alone():
    image = from_scan(0, (14, 13, 5), (20, 17, 8))
    inferer = StreamingInferer(ROI, output_grid="source")
    output = inferer(image, Overlapping(), options=WITH_CONFIDENCE)
    assert len(output.meta["confidence"][0]) == 11
    assert "confidence" not in image.meta
    plain = inferer(image, Overlapping())
    assert "confidence" not in plain.meta
    assert torch.equal(output.as_tensor(), plain.as_tensor())


def test_a_label_map_gives_priority_contralaterals_and_names():
    labels = LabelMap(["kidney_left", "kidney_right", "liver", "kidney_cyst_left", "kidney_cyst_right"])
    net, image = Overlapping(5), volume(6)[None]
    inferer = StreamingInferer(ROI, multilabel=True, decode="labels", labels=labels, flips=[[0]])
    order = [labels.index(name) for name in labels.overlap_priority()]
    assert order[-1] in (4, 5)  # cysts lie inside kidneys
    options = {"overlap_priority": order, "flips": [[0]], "contralaterals": [1, 0, 2, 4, 3]}
    explicit = StreamingInferer(ROI, multilabel=True, decode="labels", **options)
    assert torch.equal(inferer(image, net), explicit(image, net))
    by_name, by_value = InferenceOptions(structures=["liver"]), InferenceOptions(structures=[3])
    assert torch.equal(inferer(image, net, options=by_name), explicit(image, net, options=by_value))
    single = StreamingInferer(ROI, labels=labels, flips=[[0]], decode="logits")
    explicit = StreamingInferer(ROI, flips=[[0]], contralaterals=[0, 2, 1, 3, 5, 4], decode="logits")
    assert torch.equal(single(image, Overlapping(6)), explicit(image, Overlapping(6)))


def test_a_network_with_other_channels_than_its_label_map_is_refused():
    inferer = StreamingInferer(ROI, labels=LabelMap(["liver", "spleen"]))
    with pytest.raises(ConfigError) as error:
        inferer(volume()[None], Overlapping(4))
    problem = "the network returns 4 channels, but its label map needs 3"
    assert str(error.value) == f"StreamingInferer, labels: {problem}."
    with pytest.raises(LabelError, match="kidney_right"):
        StreamingInferer(ROI, labels=LabelMap(["kidney_left"]), flips=[[0]])
    with pytest.raises(ConfigError, match="names need an inferer with labels"):
        StreamingInferer(ROI)(volume()[None], Overlapping(), options=InferenceOptions(structures=["liver"]))


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0.0},
        {"threshold": []},
        {"decode": "zip", "multilabel": True},
        {"decode": "bits"},
        {"decode": "channels"},
        {"decode": "logits", "structures": [1]},
    ],
)
def test_decoders_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ConfigError):
        LabelDecoder(**wrong)


def test_confidence_of_logits_is_refused():
    with pytest.raises(ConfigError, match="confidence"):
        StreamingInferer(ROI, decode="logits")(volume()[None], Overlapping(), options=WITH_CONFIDENCE)


def test_priorities_and_thresholds_that_do_not_fit_the_network_are_refused():
    with pytest.raises(ConfigError, match="one for each of the 3 channels"):
        LabelDecoder(multilabel=True, threshold=[0.5, 0.5]).logit_thresholds(3)
    for order in ([1, 1], [0, 1], [4]):
        with pytest.raises(ConfigError, match="from 1 to 3"):
            LabelDecoder(multilabel=True, decode="labels", overlap_priority=order).priority(3)
