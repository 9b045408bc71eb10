"""Each way to decide, against NumPy on all logits at once."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor

from medseg.errors import ConfigError
from medseg.inference import StreamingInferer, kernels
from medseg.inference.label_decoder import LabelDecoder

ROI = (9, 8)


class Overlapping(torch.nn.Module):
    """Channels that are there in about half of the voxels each, in patches."""

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
    """The same, as if resampled from a grid of that shape."""
    affine = np.diag([*(a / b for a, b in zip(source, shape, strict=True)), 1.0])
    meta = {"original_affine": np.eye(4), "spatial_shape": np.array(source)}
    return MetaTensor(volume(seed, shape)[None], affine=torch.from_numpy(affine), meta=meta)


def painted(logits, order, cut=0.0):
    """By hand: paint one channel after the other."""
    label = np.zeros(logits.shape[1:], int)
    for index in order:
        label[logits[index - 1] > cut] = index
    return label


def unsure(logits, cut=0.0):
    return (np.abs(logits - cut) < 1e-4).any(axis=0)


@settings(deadline=None, max_examples=25)
@given(order=st.permutations(range(1, 12)), seed=st.integers(0, 99), fused=st.booleans(),
       source=st.sampled_from([None, (14, 13, 5), (21, 17, 8), (9, 8, 3)]), roi=st.sampled_from([ROI, (16, 16)]),
       precision=st.sampled_from(["fp32", "bf16"]))  # fmt: skip
def test_painting_is_that_of_the_interpolated_channels(order, seed, fused, source, roi, precision):
    image = volume(seed)[None] if source is None else from_scan(seed, (14, 13, 5), source)
    shared = {"roi_size": roi, "output": "network" if source is None else "source", "precision": precision}
    with pytest.MonkeyPatch.context() as patch:
        if not fused:
            patch.setattr(kernels, "_kernels", lambda: None)
        logits = StreamingInferer(**shared, logits=True)(image, Overlapping()).numpy()[0]
        found = StreamingInferer(**shared, multilabel=True, packing="labels", overlap_priority=order)(
            image, Overlapping()
        )
    assert found.shape == (1, 1, *logits.shape[1:])
    expected = painted(logits, order)
    assert len(np.unique(expected)) > 2
    assert (found.numpy()[0, 0] != expected)[~unsure(logits)].sum() == 0


def test_bits_are_the_channels():
    image, net = from_scan(1, (14, 13, 5), (20, 17, 8)), Overlapping()
    shared = {"roi_size": ROI, "output": "source", "multilabel": True, "threshold": [0.3 + 0.04 * n for n in range(11)]}
    channels = StreamingInferer(**shared)(image, net).numpy()[0]
    bits = StreamingInferer(**shared, packing="bits")(image, net).numpy()[0]
    assert bits.shape == (2, *channels.shape[1:])
    assert np.array_equal(np.unpackbits(bits, axis=0, bitorder="little", count=11), channels)
    logits = StreamingInferer(ROI, output="source", logits=True)(image, net).numpy()[0]
    cuts = np.log([t / (1 - t) for t in shared["threshold"]])[:, None, None, None]
    assert np.array_equal(channels > 0, logits > cuts.astype(np.float32))


def test_thresholds_by_channel_hold_in_painting():
    image, net = volume(2)[None], Overlapping()
    thresholds = [0.9, 0.1] + [0.5] * 9
    logits = StreamingInferer(ROI, logits=True)(image, net).numpy()[0]
    found = StreamingInferer(ROI, multilabel=True, packing="labels", threshold=thresholds)(image, net).numpy()[0, 0]
    cuts = np.log(np.array(thresholds) / (1 - np.array(thresholds)))
    assert np.array_equal(found, painted(logits - cuts[:, None, None, None].astype(np.float32), range(1, 12)))


@pytest.mark.parametrize("packing", ["channels", "bits", "labels"])
def test_only_what_is_asked_for_is_painted(packing):
    image, net = volume(4)[None], Overlapping()
    shared = {"roi_size": ROI, "multilabel": True, "packing": packing}
    whole = StreamingInferer(**{**shared, "packing": "channels"})(image, net).numpy()[0]
    some = StreamingInferer(**shared, only=[2, 7])(image, net).numpy()[0]
    if packing == "labels":
        expected = np.where(whole[6] > 0, 7, np.where(whole[1] > 0, 2, 0))[None]
    else:
        expected = whole * np.isin(np.arange(11), [1, 6])[:, None, None, None]
        some = some if packing == "channels" else np.unpackbits(some, axis=0, bitorder="little", count=11)
    assert np.array_equal(some, expected)


@pytest.mark.parametrize("roi", [ROI, (16, 16)])
def test_confidence_is_the_mean_probability_of_what_was_decided(roi):
    image, net = volume(5)[None], Overlapping()
    logits = StreamingInferer(roi, logits=True)(image, net)[0].double()
    found = StreamingInferer(roi, confidence=True)(image, net)
    sure, label = torch.softmax(logits, 0).max(dim=0)
    assert torch.equal(found.as_tensor()[0, 0].long(), label)
    expected = [float(sure[label == n].mean()) for n in range(11)]
    assert np.allclose(found.meta["confidence"][0], expected, atol=1e-5, equal_nan=True)
    assert np.isfinite(expected).sum() > 3
    many = StreamingInferer(roi, confidence=True, multilabel=True)(image, net).meta["confidence"][0]
    assert np.isnan(many[0])
    share = torch.sigmoid(logits)
    assert np.allclose(many[1:], [float(one[one > 0.5].mean()) for one in share], atol=1e-5, equal_nan=True)


def test_confidence_stands_beside_what_is_known_of_the_scan():
    image = from_scan(0, (14, 13, 5), (20, 17, 8))
    found = StreamingInferer(ROI, output="source", confidence=True)(image, Overlapping())
    assert len(found.meta["confidence"][0]) == 11
    assert "confidence" not in image.meta
    plain = StreamingInferer(ROI, output="source")(image, Overlapping())
    assert torch.equal(found.as_tensor(), plain.as_tensor())


@pytest.mark.parametrize(
    "wrong",
    [
        {"threshold": 0.0},
        {"threshold": []},
        {"packing": "zip", "multilabel": True},
        {"packing": "bits"},
        {"logits": True, "only": [1]},
        {"logits": True, "confidence": True},
    ],
)
def test_arguments_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError):
        LabelDecoder(**wrong)


def test_orders_and_thresholds_that_do_not_fit_the_network_are_refused():
    with pytest.raises(ConfigError, match="one for each of the 3 channels"):
        LabelDecoder(multilabel=True, threshold=[0.5, 0.5]).cuts(3)
    for order in ([1, 1], [0, 1], [4]):
        with pytest.raises(ConfigError, match="from 1 to 3"):
            LabelDecoder(multilabel=True, packing="labels", overlap_priority=order).painting(3)
