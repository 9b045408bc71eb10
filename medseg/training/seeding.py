"""Random numbers as a function of (seed, epoch, case, draw), and the state of all generators.

Not MONAI's and PyTorch's way of one generator a worker: there a sample depends on how many workers there are and on
what they drew before, and a run that stops in the middle of an epoch cannot resume bit for bit. Here the sampler hands
out keys that identify each draw, so any process makes the same sample of it.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping, Sized
from typing import Any, NamedTuple

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader
from monai.transforms import Compose, Randomizable

from medseg.errors import ConfigError
from medseg.training.signals import end_workers_at_exit, ignore_signals


def rng_state() -> dict[str, Any]:
    """Return the state of all generators, as tensors and numbers that `torch.load(weights_only=True)` reads.

    >>> state = rng_state()
    >>> first = torch.rand(1)
    >>> set_rng_state(state)
    >>> bool(first == torch.rand(1))
    True
    """
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002  (others draw from it)
    state: dict[str, Any] = {
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore all generators to a state of `rng_state`; a GPU that is gone is skipped."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available():
        for number, cuda_state in enumerate(state.get("cuda", ())[: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(cuda_state, number)


@contextlib.contextmanager
def rng_kept() -> Iterator[None]:
    """Restore all generators at the end, whatever was drawn inside."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)


class SampleKey(NamedTuple):
    """Identify one draw: its epoch, its case (position in the data set), and its number among the draws of the case."""

    epoch: int
    case: int
    draw: int


def random_state(seed: int, key: SampleKey) -> np.random.RandomState:
    """Return the random state of one draw; different keys give different ones.

    >>> random_state(0, SampleKey(1, 2, 3)).randint(10**6) == random_state(0, SampleKey(1, 3, 2)).randint(10**6)
    False
    """
    return np.random.RandomState(np.random.PCG64(np.random.SeedSequence([seed, *key])))


class EpochSampler(torch.utils.data.Sampler[SampleKey]):
    """Give the order of an epoch's draws: every case as often as the others, shuffled by (seed, epoch).

    Not PyTorch's `RandomSampler` or `DistributedSampler`: it can start in the middle of an epoch, and the
    keys of an epoch are the same whatever the number of ranks. `SetSamplerEpoch` keeps it at the trainer's epoch.

    Args:
        cases: number of cases.
        draws: draws from each case in an epoch.
        seed: of the order.
        rank: this process among `ranks`; each takes every `ranks`-th draw.
        ranks: number of processes.

    Raises:
        ConfigError: no case, no draw, or a rank that does not exist.
    """

    def __init__(self, cases: int, draws: int = 1, seed: int = 0, rank: int = 0, ranks: int = 1) -> None:
        if cases < 1 or draws < 1 or not 0 <= rank < ranks:
            problem = "it needs at least one case, one draw, and a rank below the number of ranks"
            raise ConfigError("EpochSampler", problem, f"got cases={cases}, draws={draws}, rank={rank}, ranks={ranks}")
        self.cases = cases
        self.draws = draws
        self.seed = seed
        self.rank = rank
        self.ranks = ranks
        self.epoch = 1
        self.start = 0

    def set_position(self, epoch: int, start: int = 0) -> None:
        """Go to an epoch (from 1 on), and skip its first `start` samples of this rank once."""
        self.epoch = epoch
        self.start = start

    def __len__(self) -> int:
        """Return the samples of an epoch on this rank; uneven ends are filled from the front."""
        return -(-self.cases * self.draws // self.ranks)

    def __iter__(self) -> Iterator[SampleKey]:
        """Yield the keys of the epoch, from `start` on."""
        total = self.cases * self.draws
        order = np.random.default_rng([self.seed, self.epoch]).permutation(total)
        numbers = np.resize(order, len(self) * self.ranks)[self.rank :: self.ranks]
        start, self.start = self.start, 0
        for number in numbers[start:]:
            yield SampleKey(self.epoch, int(number) // self.draws, int(number) % self.draws)


class SetSamplerEpoch:
    """Keep a sampler where the trainer is: in its epoch, and behind the iterations of it that are done.

    Not what MONAI does by itself for a `DistributedSampler`, which knows epochs alone. It also restores the random
    state after a data loader drew a seed for its processes at the start of an epoch: so the state is the same before
    an epoch's first batch and after it, whether the epoch is entered at its first batch or in the middle.

    Args:
        sampler: the sampler of the training data.
        batch_size: samples in an iteration; None asks the trainer's data loader.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int | None = None) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self._rng: dict[str, Any] | None = None

    def attach(self, engine: Engine) -> None:
        """Before each epoch go to it."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)
        engine.add_event_handler(Events.GET_BATCH_COMPLETED, self._first_batch)

    def __call__(self, engine: Engine) -> None:
        """Go to the epoch, and in it to where the trainer resumes.

        Raises:
            ConfigError: the batch size is not known in the middle of an epoch, or an epoch has more iterations than the
                data loader has batches.
        """
        state = engine.state
        batches = len(state.dataloader) if isinstance(state.dataloader, Sized) else None
        if batches is not None and state.epoch_length is not None:
            if state.epoch_length > batches:
                problem = f"it must be at most {batches}, the batches of the data loader"
                fix = "Raise samples_per_case for longer epochs."
                raise ConfigError("train#trainer#epoch_length", problem, f"got {state.epoch_length}", fix)
            if state.epoch_length < batches:  # each epoch in its own order, whether the one before was seen or not
                engine._dataloader_iter = None
        done = state.iteration % state.epoch_length if state.epoch_length else 0
        size = self.batch_size or getattr(state.dataloader, "batch_size", None)
        if done and size is None:
            problem = "the batch size is not known, which resuming in the middle of an epoch needs"
            raise ConfigError("SetSamplerEpoch", problem, "", "Give batch_size.")
        self.sampler.set_position(state.epoch, done * (size or 0))
        self._rng = rng_state()

    def _first_batch(self, engine: Engine) -> None:
        if self._rng is not None:
            set_rng_state(self._rng)
            self._rng = None


class SeededDataset(torch.utils.data.Dataset[Any]):
    """Let the random transforms of a MONAI data set draw by the key of the sample.

    Args:
        dataset: a MONAI data set, its `transform` a `Compose`; `CacheDataset(copy_cache=False)` for speed.
        seed: of the run.

    Raises:
        ConfigError: the data set has no transform that can be seeded.
    """

    def __init__(self, dataset: Any, seed: int = 0) -> None:
        transform = getattr(dataset, "transform", None)
        if not isinstance(transform, Compose):
            problem = "the data set must be MONAI's, with a Compose as its transform"
            raise ConfigError("SeededDataset", problem, f"got {type(dataset).__name__}")
        self.dataset = dataset
        self.seed = seed
        self._guarded = False
        end_workers_at_exit()
        self._random = [step for step in transform.flatten().transforms if isinstance(step, Randomizable)]

    def __len__(self) -> int:
        """Return the number of cases."""
        return len(self.dataset)

    def __getitem__(self, key: SampleKey) -> Any:
        """Return the sample that the key identifies."""
        if not self._guarded and torch.utils.data.get_worker_info() is not None:
            self._guarded = True
            ignore_signals()
        state = random_state(self.seed, key)
        for step in self._random:
            step.set_random_state(state=state)
        return self.dataset[key.case]


def seeded_loader(
    dataset: Any,
    batch_size: int,
    samples_per_case: int = 1,
    seed: int = 0,
    num_workers: int = 0,
    device: str | torch.device = "cpu",
    **options: Any,
) -> DataLoader:
    """Return a data loader whose samples depend on (seed, epoch, case, draw) alone, whatever the number of processes.

    Its `sampler` is an `EpochSampler`: `SetSamplerEpoch` keeps it at the trainer's epoch, and in a loop of your own
    `loader.sampler.set_position(epoch)` does.

    Args:
        dataset: a MONAI data set, its `transform` a `Compose`; `CacheDataset(copy_cache=False)` for speed.
        batch_size: samples in a batch.
        samples_per_case: how often each case is drawn in an epoch.
        seed: of the order, and of all random transforms.
        num_workers: processes that load; they stay from epoch to epoch.
        device: where batches go: for CUDA they are loaded into pinned memory.
        options: further arguments of MONAI's `DataLoader`.

    Example:
        >>> from monai.data import Dataset
        >>> from monai.transforms import RandShiftIntensity
        >>> loader = seeded_loader(Dataset([torch.zeros(1, 2)], Compose([RandShiftIntensity(1.0, prob=1.0)])), 1, 2)
        >>> loader.sampler.set_position(epoch=3)
        >>> first = list(loader)
        >>> loader.sampler.set_position(epoch=3)
        >>> all(torch.equal(a, b) for a, b in zip(first, loader))
        True
    """
    return DataLoader(
        SeededDataset(dataset, seed),
        batch_size=batch_size,
        sampler=EpochSampler(len(dataset), samples_per_case, seed),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=torch.device(device).type == "cuda",
        **options,
    )
