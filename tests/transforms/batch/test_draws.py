import numpy as np
import pytest
import torch
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, RandAffine
from scipy import stats

from medseg import LabelMap
from medseg.errors import ConfigError, DataError, LabelError
from medseg.training import EpochSampler, SeededDataset
from medseg.transforms.batch import Draws, RandAugmentd

ALL = {
    "mirror": {"prob": 0.4, "axes": [0, 1]},
    "affine": {"prob": 0.7, "rotate_range": 0.26, "translate_range": [12, 6], "scale_range": 0.15},
    "gamma": {"prob": 0.2, "gamma": [0.8, 1.25]},
    "scale_intensity": {"prob": 0.3, "factors": 0.1},
    "shift_intensity": {"prob": 0.3, "offsets": [-0.05, 0.1]},
    "contrast": {"prob": 0.25, "factors": [-0.25, 0.25]},
    "noise": {"prob": 0.2, "std": 0.02},
    "smooth": {"prob": 0.1, "sigma": [0.3, 0.8]},
    "low_resolution": {"prob": 0.15, "zoom_range": [0.5, 1.0]},
}
PAIRED = LabelMap(["liver", "kidney_left", "kidney_right"])
COUNT = 4000


def item(**changes):
    return {"image": torch.rand(1, 6, 5), "label": torch.zeros(1, 6, 5, dtype=torch.int32), "case": "s1", **changes}


@pytest.fixture(scope="module")
def many():
    transform = RandAugmentd(**ALL, labels=PAIRED).set_random_state(0)
    one = item()
    return Draws.of(torch.stack([transform(one)["augment"] for _ in range(COUNT)]))


@pytest.mark.parametrize(
    ("field", "prob", "low", "high"),
    [
        ("angle", 0.7, -0.26, 0.26),
        ("shift_i", 0.7, -12, 12),
        ("shift_j", 0.7, -6, 6),
        ("scale_i", 0.7, 0.85, 1.15),
        ("scale_j", 0.7, 0.85, 1.15),
        ("gamma", 0.2, 0.8, 1.25),
        ("factor", 0.3, -0.1, 0.1),
        ("offset", 0.3, -0.05, 0.1),
        ("contrast", 0.25, -0.25, 0.25),
        ("std", 0.2, 0, 0.02),
        ("noise_seed", 0.2, 0, 2**31),
        ("sigma_i", 0.1, 0.3, 0.8),
        ("sigma_j", 0.1, 0.3, 0.8),
        ("zoom", 0.15, 0.5, 1.0),
    ],
)
def test_each_is_drawn_as_often_as_told_and_evenly_from_its_range(many, field, prob, low, high):
    values = getattr(many, field)
    drawn = values[~np.isnan(values)]
    assert abs(len(drawn) / COUNT - prob) < 5 * np.sqrt(prob * (1 - prob) / COUNT)
    assert stats.kstest(drawn, stats.uniform(low, high - low).cdf).pvalue > 1e-4


def test_mirrors_are_drawn_for_each_axis(many):
    both = ~np.isnan(many.mirror_i) & ~np.isnan(many.mirror_j)
    for values in (many.mirror_i, many.mirror_j):
        assert abs(np.mean(values == 1) - 0.4) < 0.04
        assert set(values[~np.isnan(values)]) == {1.0}
    assert abs(both.mean() - 0.16) < 0.03


def test_one_transform_is_drawn_whole_and_without_regard_to_the_others(many):
    there = {name: ~np.isnan(values) for name, values in many._asdict().items()}
    for one, other in (("angle", "scale_j"), ("std", "noise_seed"), ("sigma_i", "sigma_j")):
        assert np.array_equal(there[one], there[other])
    both = np.mean(there["angle"] & there["factor"])
    assert abs(both - 0.21) < 0.035
    inside = ~np.isnan(many.angle)
    assert abs(np.corrcoef(many.scale_i[inside], many.scale_j[inside])[0, 1]) < 0.1


def test_the_affine_is_drawn_as_monai_draws_it(many):
    monai = RandAffine(prob=1.0, rotate_range=0.26, translate_range=(12, 6), scale_range=(0.15, 0.15))
    monai.set_random_state(1)
    grid, drawn = monai.rand_affine_grid, []
    for _ in range(1000):
        grid.randomize()
        drawn.append([*grid.rotate_params, *grid.translate_params, *grid.scale_params])
    ours = np.stack([many.angle, many.shift_i, many.shift_j, many.scale_i, many.scale_j], axis=1)
    for column, mine in zip(np.array(drawn).T, ours[~np.isnan(many.angle)].T, strict=True):
        assert stats.ks_2samp(column, mine).pvalue > 1e-4


def test_nothing_is_drawn_of_what_was_not_asked_for():
    row = RandAugmentd()(item())["augment"]
    assert row.dtype == torch.float64
    assert torch.isnan(row).all()


def test_the_item_given_stays_as_it_is():
    given = item()
    made = RandAugmentd(**ALL, labels=PAIRED)(given)
    assert "augment" not in given
    assert made["image"] is given["image"]


def rows(workers, seed=0, epoch=1, ranks=1, rank=0):
    data = [item(case=f"s{number}") for number in range(3)]
    augment = RandAugmentd(**ALL, labels=PAIRED)
    dataset = SeededDataset(CacheDataset(data, Compose([augment]), progress=False, copy_cache=False), seed)
    sampler = EpochSampler(3, 4, seed, rank, ranks)
    sampler.set_position(epoch)
    keys = list(sampler)
    sampler.set_position(epoch)
    loader = DataLoader(dataset, sampler=sampler, batch_size=2, num_workers=workers)
    return dict(zip(keys, torch.cat([batch["augment"] for batch in loader]).nan_to_num(-9), strict=True))


def test_draws_are_a_function_of_seed_epoch_case_and_draw():
    alone = rows(0)
    assert len({tuple(row.tolist()) for row in alone.values()}) == 12
    for other in (rows(1), rows(2)):
        assert alone.keys() == other.keys()
        assert all(torch.equal(alone[key], other[key]) for key in alone)
    parts = rows(0, ranks=2, rank=0) | rows(1, ranks=2, rank=1)
    assert all(torch.equal(alone[key], parts[key]) for key in alone)
    assert not any(torch.equal(row, alone[key]) for key, row in rows(0, seed=1).items() if key in alone)
    assert not alone.keys() & rows(0, epoch=2).keys()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"noise": {"prob": 1.5, "std": 0.1}}, "noise#prob: it must be a probability from 0 to 1 .got 1.5"),
        ({"noise": {"prob": -0.1, "std": 0.1}}, "noise#prob: it must be a probability"),
        ({"affine": {"prob": float("nan")}}, "affine#prob: it must be a probability"),
        ({"gamma": {"gamma": [0.5, 2]}}, "gamma#prob: it must be a probability from 0 to 1 .got None"),
        ({"noise": {"prob": 1.0, "sdt": 0.1}}, "noise#sdt: noise has the keys prob, std.*Did you mean 'std'"),
        ({"noise": 0.5}, "noise: it must be a mapping"),
        ({"noise": {"prob": 1.0, "std": -1}}, "noise#std: it must be a number of 0 or more"),
        ({"noise": {"prob": 1.0}}, "noise#std"),
        ({"gamma": {"prob": 1.0, "gamma": [0, 2]}}, "gamma#gamma: it must be a pair above 0"),
        ({"gamma": {"prob": 1.0, "gamma": 2}}, "gamma#gamma: it must be a pair above 0"),
        ({"smooth": {"prob": 1.0, "sigma": [0.0, 1.0]}}, "smooth#sigma: it must be a pair above 0"),
        (
            {"low_resolution": {"prob": 1.0, "zoom_range": [0.5, 1.5]}},
            "zoom_range: it must be a pair above 0 and",
        ),
        ({"contrast": {"prob": 1.0, "factors": [1, 2, 3]}}, "contrast#factors: it must be a number or a pair"),
        ({"contrast": {"prob": 1.0, "factors": "a"}}, "contrast#factors: it must be a number or a pair"),
        ({"affine": {"prob": 1.0, "scale_range": 1.0}}, "affine#scale_range: it must be below 1"),
        ({"affine": {"prob": 1.0, "rotate_range": -0.1}}, "affine#rotate_range: it must be a number of 0 or more"),
        ({"affine": {"prob": 1.0, "translate_range": [1, 2, 3]}}, "affine#translate_range: .* or 2 of them"),
        ({"affine": {"prob": 1.0, "rotate": 0.1}}, "affine#rotate: affine has the keys.*'rotate_range'"),
        ({"mirror": {"prob": 1.0, "axes": [2]}}, "mirror#axes: it must be 0, 1 or both"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong, says):
    with pytest.raises(ConfigError, match=says):
        RandAugmentd(**wrong)


def test_left_and_right_are_mirrored_only_where_pairs_are_known():
    mirror = {"prob": 0.5, "axes": [0]}
    with pytest.raises(LabelError, match="it is not known which structures are paired"):
        RandAugmentd(mirror=mirror)
    with pytest.raises(LabelError, match="kidney_left has no contralateral"):
        RandAugmentd(mirror=mirror, labels=LabelMap(["liver", "kidney_left"]))
    assert RandAugmentd(mirror=mirror, labels=PAIRED).contralaterals.tolist() == [0, 1, 3, 2]
    assert RandAugmentd(mirror=mirror, labels=LabelMap(["liver", "spleen"])).contralaterals.tolist() == [0, 1, 2]
    for harmless in ({"prob": 0.5, "axes": [1]}, {"prob": 0.0, "axes": [0]}):
        assert RandAugmentd(mirror=harmless, labels=LabelMap(["kidney_left"])).contralaterals is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"label": torch.zeros(1, 6, 4)}, r"case s1: image and label must have one size.*\(6, 5\) and \(6, 4\)"),
        ({"image": torch.zeros(1, 6, 5, 4)}, r"case s1: image and label must be 2D.*got \(1, 6, 5, 4\)"),
        ({"label": torch.zeros(6, 5)}, "case s1: image and label must be 2D"),
        ({"image": torch.full((1, 6, 5), float("nan"))}, "case s1: its image holds NaN or infinity"),
        ({"image": torch.tensor([float("inf"), float("-inf"), 0.0] * 10).reshape(1, 6, 5)}, "holds NaN or infinity"),
    ],
)
def test_samples_that_cannot_be_name_the_case(changes, says):
    with pytest.raises(DataError, match=says):
        RandAugmentd()(item(**changes))


def test_large_intensities_are_no_infinity():
    assert RandAugmentd()(item(image=torch.full((1, 6, 5), 3e38)))["augment"] is not None


@pytest.mark.parametrize("rows", [torch.zeros(4), torch.zeros(4, 3), torch.full((2, 16), float("inf"))])
def test_rows_that_are_none_are_refused(rows):
    with pytest.raises(DataError, match="'augment' of the batch"):
        Draws.of(rows)
