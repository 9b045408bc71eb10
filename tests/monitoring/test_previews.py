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


def run(folder, epochs=(1,), sanity_check=False, draw=panels, **options):
    evaluator = SupervisedEvaluator(
        torch.device("cpu"),
        [volume("a"), volume("b"), volume("c")],
        torch.nn.Identity(),
        inferer=lambda inputs, net: (inputs > 0.5).to(torch.uint8),
        val_handlers=[Previews(folder, LABELS, draw, **options)],
    )
    evaluator.state.sanity_check = sanity_check
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


def test_the_validation_before_training_is_epoch_0(tmp_path):
    run(tmp_path / "previews", sanity_check=True, cases=1)
    assert [path.name for path in (tmp_path / "previews").iterdir()] == ["epoch_0000_a.png"]


def test_images_from_before_training_stay_when_a_run_is_resumed(tmp_path):
    first = tmp_path / "epoch_0000_a.png"
    run(tmp_path, sanity_check=True, cases=1)
    before = first.stat().st_mtime_ns
    assert not hasattr(run(tmp_path, sanity_check=True, cases=1).state, "pictures")
    assert first.stat().st_mtime_ns == before


def test_images_wait_to_be_recorded(tmp_path):
    state = run(tmp_path, epochs=(3,)).state
    assert state.previews == [
        {
            "epoch": 3,
            "case": case,
            "file": str(tmp_path / f"epoch_0003_{case}.png"),
            "caption": f"{case}, slice 1, epoch 3",
        }
        for case in "ab"
    ]


def test_an_image_has_one_slice_of_scan_truth_and_prediction(tmp_path):
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


def slices(seed=0):
    """Batches of 2D slices of three scans, one after the other; by name how many structures and pixels each holds."""
    rng = torch.Generator().manual_seed(seed)
    held = {"a_1": (1, 4), "a_2": (1, 12), "a_3": (2, 6), "b_1": (0, 0), "b_2": (1, 1), "c_1": (2, 30), "a_4": (2, 6)}
    items = []
    for name, (structures, pixels) in held.items():
        label = torch.zeros(1, 6, 8, dtype=torch.uint8)
        label.view(-1)[:pixels] = 1
        label.view(-1)[: max(0, structures - 1)] = 2
        image = torch.rand(3, 6, 8, generator=rng)
        items.append({"image": image, "label": label, "case": name, "scan": name[0]})
    return items


def run_slices(folder, draw, epochs=(1,), items=None, size=3, **options):
    items = slices() if items is None else items
    batches = [items[at : at + size] for at in range(0, len(items), size)]
    collated = [
        {
            key: torch.stack(held) if torch.is_tensor(held[0]) else held
            for key in part[0]
            if (held := [i[key] for i in part])
        }
        for part in batches
    ]
    evaluator = SupervisedEvaluator(
        torch.device("cpu"),
        collated,
        torch.nn.Identity(),
        inferer=lambda inputs, net: (inputs[:, :1] > 0.5).to(torch.uint8),
        val_handlers=[Previews(folder, LABELS, draw, **options)],
    )
    for epoch in epochs:
        evaluator.run(epoch)
    return evaluator


class Drawn(list):
    def __call__(self, *given):
        self.append(given)
        return Image.new("RGB", (1, 1))


@pytest.mark.parametrize("size", [1, 3, 7])
def test_of_2d_slices_the_fullest_of_each_first_scan_is_drawn(tmp_path, size):
    drawn = Drawn()
    state = run_slices(tmp_path / "seen", drawn, size=size).state
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == ["epoch_0001_a_3.png", "epoch_0001_b_2.png"]
    assert [one["caption"] for one in state.previews] == ["a_3, epoch 1", "b_2, epoch 1"]
    items = {item["case"]: item for item in slices()}
    for (image, truth, prediction, labels, _), name in zip(drawn, ("a_3", "b_2"), strict=True):
        assert np.array_equal(image, items[name]["image"][1])  # the middle one of what may be neighbors
        assert np.array_equal(truth, items[name]["label"][0])
        assert np.array_equal(prediction, items[name]["image"][0] > 0.5)
        assert labels == LABELS


def test_the_same_slice_is_drawn_at_each_epoch_and_no_other(tmp_path):
    run_slices(tmp_path / "seen", Drawn(), epochs=(1, 2, 3, 4), every_n_epochs=2, cases=3)
    assert sorted(path.name for path in (tmp_path / "seen").iterdir()) == [
        f"epoch_000{epoch}_{name}.png" for epoch in (2, 4) for name in ("a_3", "b_2", "c_1")
    ]


def test_a_slice_without_a_scan_counts_by_its_patient_or_alone(tmp_path):
    items = [{key: value for key, value in item.items() if key != "scan"} for item in slices()]
    run_slices(tmp_path / "alone", Drawn(), items=items)
    assert sorted(path.name for path in (tmp_path / "alone").iterdir()) == ["epoch_0001_a_1.png", "epoch_0001_a_2.png"]
    for item in items:
        item["patient"] = item["case"][0]
    run_slices(tmp_path / "patients", Drawn(), items=items)
    names = sorted(path.name for path in (tmp_path / "patients").iterdir())
    assert names == ["epoch_0001_a_3.png", "epoch_0001_b_2.png"]


def test_2d_slices_whose_structures_are_channels(tmp_path):
    items, drawn = slices()[:2], Drawn()
    both = torch.zeros(2, 6, 8, dtype=torch.uint8)
    both[0, 1:4, 1:4], both[1, 2:5, 2:5] = 1, 1
    items[0]["label"], items[1]["label"] = both * torch.tensor([1, 0], dtype=torch.uint8)[:, None, None], both
    run_slices(tmp_path, drawn, items=items)
    ((_, truth, _, _, caption),) = drawn
    assert caption == "a_2, epoch 1"
    assert np.array_equal(truth, np.where(both[1], 2, both[0]))
