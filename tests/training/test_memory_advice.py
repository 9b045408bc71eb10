import pytest
import torch
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler
from monai.networks.nets import BasicUNet

from medseg.losses import DiceCELoss
from medseg.training import memory_advice  # the module
from medseg.training.memory import estimate
from medseg.training.memory_advice import Device, advise

pytestmark = pytest.mark.slow

FEATURES = [8, 8, 16, 32, 64, 8]
SETTINGS = {
    "train": {
        "dataset": {"cache_rate": "@cached"},
        "dataloader": {"batch_size": "@batch_size", "num_workers": 2},
        "trainer": {"accumulation_steps": "@accumulation_steps", "amp": "@amp"},
    },
    "validate": {"inferer": "@inferer"},
    "accumulation_steps": 1,
    "amp": False,
    "cached": 1.0,
    "batch_size": 8,
    "patch_size": [64, 64],
    "network_def": {"_target_": "BasicUNet", "features": FEATURES, "in_channels": "@in_channels"},
}
SHAPE = (8, 1, 64, 64)


@pytest.fixture(scope="module")
def network():
    return BasicUNet(2, 1, 5, features=FEATURES)


def needs(network, shape=SHAPE, **how):
    return estimate(network, shape, **how).total


def by_key(ways):
    return {next(iter(way.overrides)): way for way in ways}


def test_every_way_says_what_it_really_takes(network):
    available = needs(network, (4, 1, 64, 64)) + 1
    ways = advise(network, SHAPE, available, SETTINGS, accumulation=2, can_amp=True)
    found = by_key(ways)
    assert set(found) == {"batch_size", "patch_size", "network_def#features", "amp"}
    assert [way.memory for way in ways] == sorted(way.memory for way in ways)
    batch = found["batch_size"]
    assert batch.overrides == {"batch_size": 4, "accumulation_steps": 4}
    assert (batch.memory, batch.fits) == (available - 1, True)
    assert str(batch).endswith("batch_size=4 accumulation_steps=4  (the same effective batch)")
    patch = found["patch_size"].overrides["patch_size"]
    assert found["patch_size"].memory == needs(network, (8, 1, *patch))
    assert found["network_def#features"].overrides == {"network_def#features": [4, 4, 8, 16, 32, 4]}
    assert found["amp"].memory == needs(network, lower=True)
    assert all(way.fits == (way.memory <= available) for way in ways)


def test_no_more_is_given_up_than_is_needed(network):
    little = needs(network, (2, 1, 64, 64)) + 1
    ways = by_key(advise(network, SHAPE, little, SETTINGS))
    assert ways["batch_size"].overrides["batch_size"] == 2
    assert by_key(advise(network, SHAPE, 10**12, SETTINGS))["batch_size"].overrides["batch_size"] == 4


def test_where_nothing_is_enough_all_is_tried_together(network):
    ways = advise(network, SHAPE, 1000, SETTINGS, can_amp=True)
    assert not any(way.fits for way in ways)
    assert set(ways[0].overrides) == {"batch_size", "accumulation_steps", "patch_size", "amp"}
    assert ways[0].overrides["accumulation_steps"] == 8
    assert str(ways[0]).startswith("too big")


def test_what_was_measured_corrects_what_was_estimated(network):
    plain, twice = (by_key(advise(network, SHAPE, 10**12, SETTINGS, factor=factor)) for factor in (1.0, 2.0))
    assert twice["batch_size"].memory == pytest.approx(2 * plain["batch_size"].memory, abs=2)


def test_settings_that_are_made_from_others_are_left_alone(network):
    settings = {
        "train": {"dataloader": {"batch_size": "$@b * 2"}},
        "patch_size": "@p",
        "network_def": {"features": "@f"},
    }
    ways = advise(network, SHAPE, 1, settings)
    assert ways == []


# In a trainer


class Fails(torch.nn.Module):
    """A network that runs out of memory in its second forward pass."""

    def __init__(self, error, when=2):
        super().__init__()
        self.inner, self.error, self.left = BasicUNet(2, 1, 5, features=FEATURES), error, when

    def forward(self, image):
        if not isinstance(image, torch._subclasses.FakeTensor):
            self.left -= 1
            if not self.left:
                raise self.error
        return self.inner(image)


def batches(count=3):
    return [{"image": torch.randn(SHAPE), "label": torch.randint(0, 5, SHAPE)} for _ in range(count)]


def note_of(error, settings=SETTINGS, accumulation=1, validates=False):
    network = Fails(error, 3 if validates else 2)
    handlers = []
    if validates:
        data = batches(2)
        handlers = [ValidationHandler(1, SupervisedEvaluator(torch.device("cpu"), data, network, decollate=False))]
    trainer = SupervisedTrainer(
        torch.device("cpu"), 1, batches(1 if validates else 3), network, torch.optim.AdamW(network.parameters()),
        DiceCELoss(), train_handlers=handlers, decollate=False, accumulation_steps=accumulation,
    )  # fmt: skip
    with pytest.raises(type(error)) as caught, memory_advice.memory_advice(trainer, settings):
        trainer.run()
    assert caught.value is error
    notes = getattr(error, "__notes__", [])
    assert len(notes) <= 1
    return notes[0] if notes else None


CPU = "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 5000000 bytes. Error code 12 (Cannot allocate memory)"  # noqa: E501


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), RuntimeError(CPU)]
)
def test_an_error_of_memory_says_what_was_asked_for_and_what_would_fit(error, monkeypatch):
    total = needs(BasicUNet(2, 1, 5, features=FEATURES), (6, 1, 64, 64))
    monkeypatch.setattr(memory_advice, "device_now", lambda *_: Device("Card of 12 MB", total, 0, total))
    note = note_of(error, accumulation=2)
    assert note.startswith("Memory ran out: Card of 12 MB has 0.0")
    asked = "It asked for: batch_size=8, patch_size='[64, 64]', accumulation_steps=2, amp=false, network_def#features="
    assert asked in note
    assert "and asked for 0.0" in note
    (line,) = [line for line in note.splitlines() if "batch_size=4 " in line or "batch_size=2 " in line]
    assert line.strip().startswith("fits")
    assert "the same effective batch" in line


def test_on_this_machine_it_goes_by_what_the_machine_has():
    note = note_of(RuntimeError(CPU))
    assert "the CPU's memory has" in note
    have = memory_advice.device_now(torch.device("cpu"))
    assert have.total > 0
    assert 0 <= have.others <= have.total


def test_the_config_is_read_from_the_folder_of_the_run(tmp_path):
    import json

    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.json").write_text(json.dumps(SETTINGS))
    assert "network_def#features=" in note_of(RuntimeError(CPU), tmp_path)
    assert "network_def" not in note_of(RuntimeError(CPU), tmp_path / "nothing")


def test_validation_has_ways_of_its_own():
    assert "inferer#sw_batch_size=1" in note_of(RuntimeError(CPU), validates=True)


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's "
                      "workers are out of shared memory. Please try to raise your shared memory limit."), "--shm-size"),
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2>"), "--shm-size"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "cached=0.5"),
        (MemoryError(), "train#dataloader#num_workers=0"),
    ],
)  # fmt: skip
def test_processes_that_load_data_have_ways_of_their_own(error, word):
    assert word in note_of(error)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("memory of an elephant")])
def test_other_errors_go_by_as_they_are(error):
    assert note_of(error) is None


def test_a_network_that_cannot_be_counted_does_not_hide_the_error(monkeypatch):
    def broken(*_, **__):
        raise NotImplementedError

    monkeypatch.setattr(memory_advice, "estimate", broken)
    assert note_of(RuntimeError(CPU)) is None
