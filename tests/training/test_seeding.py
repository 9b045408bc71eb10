"""The contract: a sample depends on (seed, epoch, case, draw) alone, and an epoch can be begun in its middle."""

import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ignite.engine import Engine
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, EnsureTyped, Lambda, RandAffined, RandGaussianNoised, RandScaleIntensityd

from medseg.errors import ConfigError
from medseg.training import EpochSampler, SampleKey, SeededDataset, SetSamplerEpoch
from medseg.training.signals import end_workers

pytestmark = pytest.mark.slow

CASES, DRAWS, BATCH = 3, 4, 2


@pytest.fixture(autouse=True)
def no_processes_left():
    """What the garbage collector finds of a data loader waits five seconds for each of its processes."""
    yield
    end_workers()


def loader(workers=0, seed=5, start=None, persistent=False, ranks=1, rank=0):
    data = [{"image": torch.full((1, 6, 6), float(number + 1)), "case": number} for number in range(CASES)]
    transform = Compose(
        [
            EnsureTyped("image", track_meta=False),
            RandScaleIntensityd("image", prob=1.0, factors=0.5),
            RandAffined("image", prob=1.0, rotate_range=0.5, padding_mode="border"),
            Compose([RandGaussianNoised("image", prob=1.0)]),
            EnsureTyped("image", track_meta=False),
        ]
    )
    dataset = CacheDataset(data, transform, progress=False, copy_cache=False)
    sampler = EpochSampler(CASES, DRAWS, seed, rank, ranks)
    if start:
        sampler.set_position(*start)
    options = {"persistent_workers": persistent} if workers else {}
    return DataLoader(
        SeededDataset(dataset, seed), sampler=sampler, batch_size=BATCH, num_workers=workers, **options
    ), sampler


def epoch(number, **options):
    batches, sampler = loader(**options)
    sampler.set_position(number)
    return [(batch["case"].tolist(), batch["image"]) for batch in batches]


def same(one, other):
    return len(one) == len(other) and all(
        a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(one, other, strict=True)
    )


def test_samples_do_not_depend_on_the_number_of_workers():
    alone = epoch(2)
    assert same(alone, epoch(2, workers=1))
    assert same(alone, epoch(2, workers=2))


def test_samples_do_not_depend_on_what_was_drawn_before():
    batches, sampler = loader(workers=2, persistent=True)
    for number in (1, 2, 3):
        sampler.set_position(number)
        drawn = [(batch["case"].tolist(), batch["image"]) for batch in batches]
        assert same(drawn, epoch(number))


def test_epochs_seeds_and_draws_differ():
    one, two, other = epoch(1), epoch(2), epoch(1, seed=6)
    assert not same(one, two)
    assert not same(one, other)
    first_case = [image for cases, images in one for case, image in zip(cases, images, strict=True) if case == 0]
    assert len(first_case) == DRAWS
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(first_case, 2))


def test_an_epoch_holds_every_draw_of_every_case_once():
    sampler = EpochSampler(CASES, DRAWS)
    keys = list(sampler)
    assert sorted(keys) == [SampleKey(1, case, draw) for case in range(CASES) for draw in range(DRAWS)]
    assert keys != sorted(keys)


@given(st.integers(1, 9), st.integers(0, 12))
def test_an_epoch_begun_in_its_middle_goes_on_as_it_would_have(number, start):
    sampler = EpochSampler(CASES, DRAWS, seed=1)
    sampler.set_position(number)
    whole = list(sampler)
    sampler.set_position(number, start)
    assert len(sampler) == len(whole)
    assert list(sampler) == whole[start:]
    assert list(sampler) == whole  # the next time it is whole again


@given(st.integers(1, 5), st.integers(1, 7))
def test_ranks_part_an_epoch_between_them(number, ranks):
    parts = []
    for rank in range(ranks):
        sampler = EpochSampler(CASES, DRAWS, rank=rank, ranks=ranks)
        sampler.set_position(number)
        parts.append(list(sampler))
    whole = EpochSampler(CASES, DRAWS)
    whole.set_position(number)
    assert len({len(part) for part in parts}) == 1
    assert [key for keys in zip(*parts, strict=True) for key in keys][: CASES * DRAWS] == list(whole)


def batches_of(trainer, batches, sampler):
    """What an Ignite engine is given in each iteration."""
    seen = []
    engine = Engine(lambda _, batch: seen.append((engine.state.epoch, engine.state.iteration, batch["image"].clone())))
    SetSamplerEpoch(sampler).attach(engine)
    trainer(engine, batches)
    return seen


@pytest.mark.parametrize("workers", [0, 2])
def test_an_engine_that_goes_on_in_the_middle_of_an_epoch_sees_what_it_would_have_seen(workers):
    whole = batches_of(lambda engine, data: engine.run(data, max_epochs=3), *loader(workers, persistent=True))
    length, done = CASES * DRAWS // BATCH, 8  # eight iterations are one epoch of six and two more
    batches, sampler = loader(workers, persistent=True, start=(done // length + 1, done % length * BATCH))

    def go_on(engine, data):
        engine.load_state_dict({"iteration": done, "max_epochs": 3, "epoch_length": length})
        engine.run(data)

    rest = batches_of(go_on, batches, sampler)
    assert [(e, i) for e, i, _ in rest] == [(e, i) for e, i, _ in whole[done:]]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(rest, whole[done:], strict=True))


def test_epochs_shorter_than_the_loader_are_the_same_whether_the_one_before_was_seen_or_not():
    length = CASES * DRAWS // BATCH - 2
    whole = batches_of(lambda engine, data: engine.run(data, max_epochs=3, epoch_length=length), *loader())

    def go_on(engine, data):
        engine.load_state_dict({"iteration": length, "max_epochs": 3, "epoch_length": length})
        engine.run(data)

    rest = batches_of(go_on, *loader())
    assert [(e, i) for e, i, _ in rest] == [(e, i) for e, i, _ in whole[length:]]
    assert all(torch.equal(a[2], b[2]) for a, b in zip(rest, whole[length:], strict=True))


def test_an_epoch_longer_than_the_loader_is_refused():
    with pytest.raises(ConfigError, match=r"epoch_length: it must be at most 6.*samples_per_case"):
        batches_of(lambda engine, data: engine.run(data, max_epochs=1, epoch_length=7), *loader())


def test_each_epoch_of_an_engine_is_the_samplers_epoch():
    whole = batches_of(lambda engine, data: engine.run(data, max_epochs=2), *loader())
    images = [image for number in (1, 2) for _, image in epoch(number)]
    assert all(torch.equal(seen[2], image) for seen, image in zip(whole, images, strict=True))


def test_the_chance_of_the_process_is_left_alone():
    batches, _ = loader()
    dataset = batches.dataset
    before = np.random.get_state()[1].copy(), torch.get_rng_state(), random.getstate()
    dataset[SampleKey(1, 0, 0)]
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])
    assert random.getstate() == before[2]


def test_a_data_set_that_cannot_be_seeded_is_refused():
    with pytest.raises(ConfigError, match="the data set must be MONAI's, with a Compose"):
        SeededDataset([1, 2, 3])


@pytest.mark.parametrize("wrong", [{"cases": 0}, {"draws": 0}, {"rank": 1}, {"rank": -1}])
def test_a_sampler_that_cannot_be_is_refused(wrong):
    with pytest.raises(ConfigError, match="EpochSampler"):
        EpochSampler(**{"cases": 2, **wrong})


def test_a_plain_function_among_the_transforms_does_no_harm():
    dataset = CacheDataset([torch.ones(1)], Compose([Lambda(lambda x: x)]), progress=False)
    assert SeededDataset(dataset)[SampleKey(1, 0, 0)] == torch.ones(1)


def test_in_the_middle_of_an_epoch_somebody_must_know_how_large_a_batch_is():
    engine = Engine(lambda *_: None)
    SetSamplerEpoch(EpochSampler(CASES, DRAWS)).attach(engine)
    engine.load_state_dict({"iteration": 2, "max_epochs": 2, "epoch_length": 6})
    with pytest.raises(ConfigError, match="the batch size is not known"):
        engine.run(range(6))


def test_what_a_loader_draws_for_itself_is_taken_from_nobody():
    sampler = EpochSampler(CASES, DRAWS)
    seen = []
    engine = Engine(lambda *_: seen.append(torch.get_rng_state()))

    SetSamplerEpoch(sampler, batch_size=2).attach(engine)
    before = torch.get_rng_state()
    engine.run(torch.utils.data.DataLoader(range(4)), max_epochs=1)  # draws a seed for its processes
    assert torch.equal(seen[0], before)
