"""What a first look spares changes nothing within the box around what it saw."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from medseg.inference import StreamingInferer
from medseg.inference.coarse_roi import first_pass, seen_in, within
from medseg.inference.kernels import Axis, Layer
from medseg.inference.windows import Plan


class Counting(torch.nn.Module):
    """Says 1 above 0.5 and 2 above 1.5, and counts the windows it sees."""

    def __init__(self, dims=2):
        super().__init__()
        self.seen = 0
        self.head = (torch.nn.Conv2d if dims == 2 else torch.nn.Conv3d)(1, 3, 1)
        self.head.weight.data = torch.tensor([0.0, 1.0, 2.0]).reshape(3, *[1] * (dims + 1))
        self.head.bias.data = torch.tensor([0.0, -0.5, -2.0])

    def forward(self, windows):
        self.seen += len(windows)
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
    whole, few = Counting(dims), Counting(dims)
    expected = StreamingInferer(roi, overlap=0.5, only=[2])(image, whole)
    found = StreamingInferer(roi, overlap=0.5, only=[2], skip_empty=True)(image, few)
    assert expected.sum() == 2 * 8 * 12 * 12
    assert torch.equal(found, expected)
    assert few.seen < 0.75 * whole.seen


def test_what_lies_apart_on_the_scans_grid_is_the_same():
    meta = {"original_affine": np.eye(4), "spatial_shape": np.array([96, 90, 120])}
    image = MetaTensor(body(), affine=torch.diag(torch.tensor([1.5, 1.5, 1.5, 1.0], dtype=torch.float64)), meta=meta)
    shared = {"roi_size": (24, 24), "overlap": 0.5, "only": [2], "output": "source"}
    found = StreamingInferer(**shared, skip_empty=True)(image, Counting()).as_tensor()
    assert torch.equal(found, StreamingInferer(**shared)(image, Counting()).as_tensor())
    assert found.any()


@pytest.mark.parametrize(
    ("more", "channels"), [({}, 1), ({"multilabel": True}, 3), ({"multilabel": True, "packing": "bits"}, 1)]
)
def test_where_nothing_is_seen_nothing_comes_out(more, channels, caplog):
    image = torch.full((1, 1, 20, 20, 30), -1.0)
    with caplog.at_level("INFO"):
        found = StreamingInferer((20, 20), only=[2], skip_empty=True, **more)(image, Counting())
    assert found.shape == (1, channels, 20, 20, 30)
    assert not found.any()
    assert "Nothing of what is wanted was seen" in caplog.text


def test_a_first_look_that_would_cost_as_much_is_not_taken():
    image = MetaTensor(body((64, 60, 12)), affine=torch.diag(torch.tensor([1.0, 1.0, 9.0, 1.0], dtype=torch.float64)))
    net = Counting()
    StreamingInferer((64, 64), only=[2], skip_empty=True)(image, net)
    assert net.seen == 12


def test_confidence_counts_only_what_was_run():
    image = body()
    shared = {"roi_size": (24, 24), "overlap": 0.5, "only": [2], "confidence": True}
    sure = StreamingInferer(**shared, skip_empty=True)(image, Counting()).meta["confidence"][0]
    expected = StreamingInferer(**shared)(image, Counting()).meta["confidence"][0]
    assert sure[2] == pytest.approx(expected[2])


def test_every_so_manieth_slice_and_the_last_is_looked_at():
    plan = first_pass((10, 40, 40), (1, 24, 24), 4)
    assert sorted({start[0] for start in plan}) == [0, 4, 8, 9]
    assert first_pass((40, 40, 40), (24, 24, 24), 4).starts[0] == (0, 16)


def test_the_box_holds_all_that_was_seen_and_a_margin():
    plan = Plan((60, 50, 40), (1, 50, 40), ((0,), (0,), (0,)))
    spots = {12: (20, 21), 36: (30, 35)}
    layers = []
    for k in range(0, 60, 4):
        best = torch.zeros(50, 40, dtype=torch.uint8)
        if k in spots:
            best[spots[k]] = 5
        layers.append((k, Layer(best, None, best)))
    assert seen_in(layers, [5], plan, 4) == ((8, 41), (4, 47), (5, 40))
    assert seen_in(layers, [4], plan, 4) is None


def test_an_axis_ends_where_the_box_does():
    axis = Axis(np.array([0, 1, 1, 2, 3]), np.array([0, 0, 0.5, 0, 0], np.float32), np.ones(5, bool))
    assert within(axis, (1, 3)).inside.tolist() == [False, True, True, True, False]
