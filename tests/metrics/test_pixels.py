import numpy as np
import pytest
import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError

from medseg.errors import LabelError
from medseg.labels import LabelMap
from medseg.metrics import PixelF1

LABELS = LabelMap(["liver", "spleen", "kidney_left"])


def run(batches, metric=None):
    engine = Engine(lambda _, batch: batch)
    (metric or PixelF1(LABELS)).attach(engine, "f1")
    engine.run(batches)
    return engine.state


def f1(predictions, truths, index):
    """From the definition: precision and recall over all pixels together."""
    predicted, true = (np.concatenate([np.ravel(one) for one in side]) == index for side in (predictions, truths))
    hits = np.count_nonzero(predicted & true)
    precision, recall = hits / np.count_nonzero(predicted), hits / np.count_nonzero(true)
    return 2 * precision * recall / (precision + recall)


def test_pixels_of_all_images_count_together():
    rng = np.random.default_rng(0)
    truths = [rng.integers(0, 3, (1, 9, 7)) for _ in range(5)]
    predictions = [np.where(rng.random(one.shape) < 0.3, rng.integers(0, 3, one.shape), one) for one in truths]
    pairs = zip(predictions, truths, strict=True)
    state = run([([torch.tensor(one)], [torch.tensor(other)]) for one, other in pairs])
    wanted = [f1(predictions, truths, index) for index in (1, 2)]
    assert state.metrics["f1"] == pytest.approx(np.mean(wanted))
    assert state.metric_details["f1"] == {
        "by_structure": {"liver": pytest.approx(wanted[0]), "spleen": pytest.approx(wanted[1]), "kidney_left": None},
        "cases": 5,
    }


def test_an_image_without_a_structure_costs_nothing_but_a_false_pixel_does():
    empty, one = torch.tensor([[0, 0, 0]]), torch.tensor([[1, 1, 0]])
    assert run([([empty, one], [empty, one])]).metrics["f1"] == 1.0
    assert run([([one, one], [empty, one])]).metrics["f1"] == pytest.approx(2 / 3)


def test_structures_as_channels():
    truth = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 1, 1]])
    prediction = torch.tensor([[1, 0, 0], [0, 0, 0], [0, 1, 1]])
    found = run([([prediction], [truth])], PixelF1(LABELS, multilabel=True)).metric_details["f1"]["by_structure"]
    assert found == {"liver": pytest.approx(2 / 3), "spleen": None, "kidney_left": 1.0}


def test_who_was_not_annotated_takes_no_part():
    said = [["liver"]]
    state = run([([torch.tensor([[1, 2, 2]])], [torch.tensor([[1, 0, 0]])], said)])
    assert state.metric_details["f1"]["by_structure"] == {"liver": 1.0, "spleen": None, "kidney_left": None}
    with pytest.raises(LabelError, match="not annotated"):
        PixelF1(LABELS).update(([torch.tensor([[0]])], [torch.tensor([[2]])], said))


def test_of_no_image_nothing_can_be_said():
    with pytest.raises(NotComputableError, match="at least one image"):
        PixelF1(LABELS).compute()
