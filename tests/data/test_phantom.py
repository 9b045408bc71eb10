"""The phantom must be a real task: neither HU nor place alone may solve it, and a case must be like no other."""

import nibabel as nib
import numpy as np
import pytest

from medseg.catalogue import groups
from medseg.data import discover
from medseg.data.anatomy import solids
from medseg.data.phantom import Body, PhantomSpec, make_body, write_phantom
from medseg.errors import DataError, OutputError
from medseg.labels import LabelMap

pytestmark = pytest.mark.slow

TASK = PhantomSpec(train=5, test=2, val=0, size=(68, 48), spacing=(6.0, 6.0, 10.0), region="trunk")


def label_of(body: Body, labels: LabelMap) -> np.ndarray:
    label = np.zeros(body.hu.shape, np.uint8)
    for name in labels.overlap_priority():
        if name in body.masks:
            label[body.masks[name]] = labels.index(name)
    return label


def dice(prediction: np.ndarray, truth: np.ndarray, labels: LabelMap) -> float:
    """Mean over the structures present in the truth, written out."""
    scores = []
    for index in range(1, len(labels)):
        first, second = prediction == index, truth == index
        if second.any():
            scores.append(2 * (first & second).sum() / (first.sum() + second.sum()))
    return float(np.mean(scores))


@pytest.fixture(scope="module")
def bodies() -> list[Body]:
    return [make_body(TASK, number) for number in range(7)]


@pytest.mark.parametrize("group", ["all", "organs"])
def test_the_nearest_hu_does_not_solve_it(bodies, group):
    labels = LabelMap.totalsegmentator(group)
    truths = [label_of(body, labels) for body in bodies]
    total, count = np.zeros(len(labels)), np.zeros(len(labels))
    for body, truth in zip(bodies[:5], truths, strict=False):
        total += np.bincount(truth.ravel(), body.hu.ravel().astype(float), len(labels))
        count += np.bincount(truth.ravel(), minlength=len(labels))
    means = total / np.maximum(count, 1)
    means[count == 0] = np.inf
    means[0] = -100.0  # the body's fat; the air around it would make it easier still to beat
    for body, truth in zip(bodies[5:], truths[5:], strict=True):
        order = np.argsort(means)
        edges = (means[order][1:] + means[order][:-1])[np.isfinite(means[order][1:])] / 2
        nearest = order[np.searchsorted(edges, body.hu)]
        assert dice(nearest, truth, labels) < 0.4


@pytest.mark.parametrize("group", ["all", "organs"])
def test_the_mean_atlas_does_not_solve_it(bodies, group):
    labels = LabelMap.totalsegmentator(group)
    truths = [label_of(body, labels) for body in bodies]
    for truth in truths[5:]:
        votes = np.zeros((len(labels), *truth.shape), np.int32)
        for second in truths[:5]:
            k = np.round(np.linspace(0, second.shape[2] - 1, truth.shape[2])).astype(int)  # head to head
            np.add.at(votes, (second[:, :, k], *np.indices(truth.shape)), 1)
        assert dice(votes.argmax(axis=0), truth, labels) < 0.4


def test_all_117_structures_occur_and_lie_on_their_side():
    assert set(solids()) == set(groups()["all"])
    observed, spec = set(), PhantomSpec(size=(68, 48), spacing=(6.0, 6.0, 8.0))
    for number in range(12):
        body = make_body(spec, number)
        observed |= set(body.masks)
        for name, mask in body.masks.items():
            contralateral = name.replace("right", "left")
            if "right" in name and contralateral in body.masks:
                assert np.argwhere(mask)[:, 0].mean() > np.argwhere(body.masks[contralateral])[:, 0].mean(), name
    assert observed == set(groups()["all"])


def test_the_spine_is_in_order():
    body = make_body(PhantomSpec(size=(68, 48), spacing=(6.0, 6.0, 6.0), region="body"), 1)
    names = [name for name in groups()["vertebrae"] if name.startswith("vertebrae") and name in body.masks]
    heights = [np.argwhere(body.masks[name])[:, 2].mean() for name in names]
    assert len(names) == 25
    assert heights == sorted(heights)


def test_cases_differ_and_miss_structures(bodies):
    assert len({body.hu.shape for body in bodies}) > 1
    assert len({tuple(np.diag(body.affine)[:3]) for body in bodies}) == len(bodies)
    assert len({frozenset(body.masks) for body in bodies}) > 1
    for body in bodies:
        spacing = np.diag(body.affine)[:3]
        assert spacing[2] > spacing[0] * 1.2  # anisotropic


def test_the_same_seed_gives_the_same_voxels_and_another_does_not(bodies):
    again, second = make_body(TASK, 0), make_body(PhantomSpec(**{**vars(TASK), "seed": 1}), 0)
    assert np.array_equal(again.hu, bodies[0].hu)
    assert all(np.array_equal(again.masks[name], bodies[0].masks[name]) for name in again.masks)
    assert second.hu.shape != again.hu.shape or not np.array_equal(second.hu, again.hu)


def test_it_is_written_as_a_data_set_that_reads_back(phantom, tiny_spec):
    result = discover(phantom)
    assert len(result.cases) == 4
    assert (len(result.split.train), len(result.split.val), len(result.split.test)) == (2, 1, 1)
    body = make_body(tiny_spec, 2)
    image = nib.load(phantom / "p0002" / "ct.nii.gz")
    assert np.array_equal(np.asanyarray(image.dataobj), body.hu)
    np.testing.assert_allclose(image.affine, body.affine, atol=1e-4)
    for name in groups()["all"]:
        mask = np.asanyarray(nib.load(phantom / "p0002" / "segmentations" / f"{name}.nii.gz").dataobj)
        assert np.array_equal(mask > 0, body.masks.get(name, np.zeros(mask.shape, bool)))


def test_writing_it_again_changes_nothing(phantom, tiny_spec):
    before = {path: path.stat().st_mtime_ns for path in phantom.rglob("*")}
    write_phantom(phantom, tiny_spec)
    assert {path: path.stat().st_mtime_ns for path in phantom.rglob("*")} == before


def test_a_folder_with_something_else_is_not_touched(tmp_path, tiny_spec):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(OutputError, match="the folder must be new or empty"):
        write_phantom(tmp_path, tiny_spec)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupt_leaves_nothing(tmp_path, tiny_spec, monkeypatch):
    import medseg.data.phantom as module

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "set", PhantomSpec(train=1, val=0, test=0, size=(8, 8), spacing=(40, 30, 60)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "wrong", [{"train": 0}, {"size": (4, 4)}, {"spacing": (1, 1, 0)}, {"region": "leg"}, {"val": -1}]
)
def test_an_invalid_spec_is_refused(wrong):
    with pytest.raises(DataError, match="phantom"):
        PhantomSpec(**wrong)
