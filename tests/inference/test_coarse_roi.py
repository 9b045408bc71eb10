"""A coarse pass changes nothing within the box around what it showed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg.inference import InferenceOptions, StreamingInferer
from medseg.inference.coarse_roi import bounding_box, coarse_plan, restrict
from medseg.inference.kernels import AxisMap, Layer
from medseg.inference.windows import WindowPlan

COARSE = InferenceOptions(structures=[2], coarse_first=True)


class Counting(torch.nn.Module):
    """Label voxels 1 above 0.5 and 2 above 1.5, and count the windows."""

    def __init__(self, dims=2):
        super().__init__()
        self.windows = 0
        self.head = (torch.nn.Conv2d if dims == 2 else torch.nn.Conv3d)(1, 3, 1)
        self.head.weight.data = torch.tensor([0.0, 1.0, 2.0]).reshape(3, *[1] * (dims + 1))
        self.head.bias.data = torch.tensor([0.0, -0.5, -2.0])

    def forward(self, windows):
        self.windows += len(windows)
        return self.head(windows)


def body(shape=(64, 60, 80)):
    """1 in a large box, 2 in a small one."""
    image = torch.zeros(1, 1, *shape)
    image[:, :, 10:50, 10:50, 4:76] = 1
    image[:, :, 30:38, 28:40, 40:52] = 2
    return image


@pytest.mark.parametrize(("roi", "dims"), [((64, 64), 2), ((24, 24), 2), ((12, 12, 12), 3)])
def test_the_same_comes_out_of_fewer_windows(roi, dims):
    image = body()
    full, coarse = Counting(dims), Counting(dims)
    inferer = StreamingInferer(roi, overlap=0.5)
    expected = inferer(image, full, options=InferenceOptions(structures=[2]))
    labels = inferer(image, coarse, options=COARSE)
    assert expected.sum() == 2 * 8 * 12 * 12
    assert torch.equal(labels, expected)
    assert coarse.windows < 0.75 * full.windows


def test_the_same_comes_out_on_the_grid_of_the_scan():
    meta = {"original_affine": np.eye(4), "spatial_shape": np.array([96, 90, 120])}
    image = MetaTensor(body(), affine=torch.diag(torch.tensor([1.5, 1.5, 1.5, 1.0], dtype=torch.float64)), meta=meta)
    inferer = StreamingInferer((24, 24), overlap=0.5, output_grid="source")
    labels = inferer(image, Counting(), options=COARSE).as_tensor()
    expected = inferer(image, Counting(), options=InferenceOptions(structures=[2])).as_tensor()
    assert torch.equal(labels, expected)
    assert labels.any()


@pytest.mark.parametrize(
    ("settings", "channels"), [({}, 1), ({"multilabel": True}, 3), ({"multilabel": True, "decode": "bits"}, 1)]
)
def test_without_any_structure_the_result_is_background(settings, channels, caplog):
    image = torch.full((1, 1, 20, 20, 30), -1.0)
    with caplog.at_level("INFO"):
        labels = StreamingInferer((20, 20), **settings)(image, Counting(), options=COARSE)
    assert labels.shape == (1, channels, 20, 20, 30)
    assert not labels.any()
    assert "found none of the structures" in caplog.text


def test_a_coarse_pass_that_would_cost_as_much_is_left_out():
    image = MetaTensor(body((64, 60, 12)), affine=torch.diag(torch.tensor([1.0, 1.0, 9.0, 1.0], dtype=torch.float64)))
    net = Counting()
    StreamingInferer((64, 64))(image, net, options=COARSE)
    assert net.windows == 12


def test_confidence_counts_only_what_was_run():
    image = body()
    inferer = StreamingInferer((24, 24), overlap=0.5)
    options = InferenceOptions(structures=[2], confidence=True)
    expected = inferer(image, Counting(), options=options).meta["confidence"][0]
    confidence = inferer(image, Counting(), options=replace(options, coarse_first=True)).meta["confidence"][0]
    assert confidence[2] == pytest.approx(expected[2])


def test_the_coarse_pass_runs_every_nth_slice_and_the_last():
    plan = coarse_plan((10, 40, 40), (1, 24, 24), 4)
    assert sorted({start[0] for start in plan}) == [0, 4, 8, 9]
    assert coarse_plan((40, 40, 40), (24, 24, 24), 4).starts[0] == (0, 16)


def test_the_box_holds_all_structures_and_a_margin():
    plan = WindowPlan((60, 50, 40), (1, 50, 40), ((0,), (0,), (0,)))
    spots = {12: (20, 21), 36: (30, 35)}
    layers = []
    for k in range(0, 60, 4):
        labels = torch.zeros(50, 40, dtype=torch.uint8)
        if k in spots:
            labels[spots[k]] = 5
        layers.append((k, Layer(labels, None, labels)))
    assert bounding_box(layers, [5], plan, 4) == ((8, 41), (4, 47), (5, 40))
    assert bounding_box(layers, [4], plan, 4) is None


def test_an_axis_ends_where_the_box_does():
    axis = AxisMap(np.array([0, 1, 1, 2, 3]), np.array([0, 0, 0.5, 0, 0], np.float32), np.ones(5, bool))
    assert restrict(axis, (1, 3)).inside.tolist() == [False, True, True, True, False]
