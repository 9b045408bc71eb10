import numpy as np
import pytest
import torch
from monai.engines import SupervisedEvaluator
from PIL import Image

from medseg.labels import LabelMap
from medseg.monitoring import Previews
from medseg.monitoring.previews import busiest_slice
from medseg.report import panels

LABELS = LabelMap(["liver", "spleen"])


def volume(case):
    label = torch.zeros(1, 1, 12, 10, 4, dtype=torch.uint8)
    label[..., 2:6, 2:6, 1], label[..., 7:9, 2:6, 1], label[..., 2:9, 2:9, 3] = 1, 2, 1
    return {"image": torch.rand(1, 1, 12, 10, 4), "label": label, "case": [case]}


def run(folder, epochs=(1,), first_look=False, draw=panels, **options):
    evaluator = SupervisedEvaluator(
        torch.device("cpu"),
        [volume("a"), volume("b"), volume("c")],
        torch.nn.Identity(),
        inferer=lambda inputs, net: (inputs > 0.5).to(torch.uint8),
        val_handlers=[Previews(folder, LABELS, draw, **options)],
    )
    evaluator.state.first_look = first_look
    for epoch in epochs:
        evaluator.run(epoch)
    return evaluator


def test_the_first_cases_are_drawn_at_each_epoch(tmp_path):
    run(tmp_path / "previews", epochs=(1, 2))
    names = sorted(path.name for path in (tmp_path / "previews").iterdir())
    assert names == ["epoch_0001_a.png", "epoch_0001_b.png", "epoch_0002_a.png", "epoch_0002_b.png"]
    with Image.open(tmp_path / "previews" / names[0]) as picture:
        assert picture.width > 900


def test_only_every_nth_epoch_is_drawn_or_none(tmp_path):
    run(tmp_path / "third", epochs=(1, 2, 3, 4), every_n_epochs=3, cases=1)
    run(tmp_path / "never", every_n_epochs=0)
    assert [path.name for path in (tmp_path / "third").iterdir()] == ["epoch_0003_a.png"]
    assert not (tmp_path / "never").exists()


def test_the_look_before_training_is_epoch_0(tmp_path):
    run(tmp_path / "previews", first_look=True, cases=1)
    assert [path.name for path in (tmp_path / "previews").iterdir()] == ["epoch_0000_a.png"]


def test_a_look_before_training_stays_as_it_was_when_the_run_is_resumed(tmp_path):
    first = tmp_path / "epoch_0000_a.png"
    run(tmp_path, first_look=True, cases=1)
    before = first.stat().st_mtime_ns
    assert not hasattr(run(tmp_path, first_look=True, cases=1).state, "pictures")
    assert first.stat().st_mtime_ns == before


def test_what_was_drawn_waits_to_be_recorded(tmp_path):
    state = run(tmp_path, epochs=(3,)).state
    assert state.pictures == [
        {
            "epoch": 3,
            "case": case,
            "file": str(tmp_path / f"epoch_0003_{case}.png"),
            "caption": f"{case}, slice 1, epoch 3",
        }
        for case in "ab"
    ]


def test_what_is_drawn_is_one_slice_of_image_truth_and_prediction(tmp_path):
    drawn = []

    def draw(*given):
        drawn.append(given)
        return Image.new("RGB", (1, 1))

    run(tmp_path, draw=draw, cases=1)
    image, truth, prediction, labels, caption = drawn[0]
    assert labels == LABELS
    assert caption == "a, slice 1, epoch 1"
    assert np.array_equal(np.unique(truth), [0, 1, 2])
    assert np.array_equal(prediction, image > 0.5)


@pytest.mark.parametrize(
    ("channels", "wanted"),
    [
        ([[[[0, 1, 1], [0, 2, 1]]]], 1),  # two structures beat one
        ([[[[1, 1, 0], [0, 1, 0]]]], 1),  # of one structure the fuller slice
        ([[[[1, 1, 0]]], [[[0, 1, 0]]]], 1),  # the same with a channel for each
    ],
)
def test_the_busiest_slice(channels, wanted):
    assert busiest_slice(np.array(channels, dtype=np.uint8)) == wanted
