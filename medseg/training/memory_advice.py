"""What to change when memory ran out: computed from the network, the batch and the device."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medseg import resources
from medseg.training.memory import Memory, estimate

logger = logging.getLogger(__name__)

_GB = 1e9
_DEVICE = re.compile(
    r"CUDA out of memory|DefaultCPUAllocator: (can't allocate|not enough) memory|MPS backend out of memory"
    r"|CUBLAS_STATUS_ALLOC_FAILED|CUDNN_STATUS_ALLOC_FAILED|CUDA error: out of memory",
    re.IGNORECASE,
)
_SHARED = re.compile(r"bus error|shared memory \(shm\)|shared memory\(shm\)|unable to (mmap|open shared memory)", re.I)
_KILLED = re.compile(r"DataLoader worker .*(killed by signal: Killed|exited unexpectedly)", re.DOTALL)
_ASKED = re.compile(r"allocate ([\d.]+) (bytes|[KMG]i?B)?", re.IGNORECASE)
_UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_WIDTHS = ("features", "channels", "feature_size", "init_filters")  # how networks call their numbers of channels
_USABLE = 0.95  # of what is free; the rest goes into gaps between blocks


@dataclass(frozen=True)
class Advice:
    """One way to take less memory.

    Args:
        overrides: what to change, by config key.
        memory: what a step then takes, in bytes.
        fits: whether that is there.
        effect: what else it changes.
    """

    overrides: Mapping[str, Any]
    memory: int
    fits: bool
    effect: str = ""

    def __str__(self) -> str:
        """A line with the overrides as they can be pasted behind `medseg train`."""
        pasted = " ".join(f"{key}={_value(value)}" for key, value in self.overrides.items())
        return f"{'fits   ' if self.fits else 'too big'} {self.memory / _GB:7.2f} GB  {pasted}" + (
            f"  ({self.effect})" if self.effect else ""
        )


def _value(value: Any) -> str:
    text = json.dumps(value)
    return f"'{text}'" if " " in text else text


def advise(
    network: torch.nn.Module,
    input_shape: Sequence[int],
    available: float,
    settings: Mapping[str, Any] | None = None,
    accumulation: int = 1,
    can_amp: bool = False,
    factor: float = 1.0,
    **how: Any,
) -> list[Advice]:
    """Settings with which a training step takes less memory, largest effect first.

    Args:
        network: the network.
        input_shape: `(B, C, I, J[, K])` of the batch for which memory was not enough.
        available: bytes that a step may take.
        settings: the effective config; None for one that is not known.
        accumulation: batches whose gradients are summed before a step.
        can_amp: whether AMP is off and could be on.
        factor: what the device held, as a multiple of what was estimated for it.
        how: what else `estimate` takes.
    """
    settings, (batch, channels, *patch) = settings or {}, input_shape
    rate = "accumulation_steps"

    def made(overrides: dict[str, Any], effect: str, shape: Sequence[int], **changes: Any) -> Advice | None:
        try:
            memory = int(estimate(network, shape, **{**how, **changes}).total * factor)
        except (RuntimeError, ValueError):
            return None  # the network does not take this shape
        return Advice(overrides, memory, memory <= available, effect)

    found: list[Advice] = []

    def first_that_fits(options: list[Advice | None]) -> None:
        real = [one for one in options if one is not None]
        fitting = [one for one in real if one.fits]
        found.extend(fitting[:1] or real[-1:])

    halves = [batch // 2**n for n in range(1, batch.bit_length())]
    if not isinstance(settings.get("batch_size", batch), int):
        halves = []  # made from other settings
    if halves:
        same = "the same effective batch"
        first_that_fits(
            [
                made(
                    {"batch_size": size, rate: accumulation * batch // size},
                    same if accumulation * batch % size == 0 else "nearly the same effective batch",
                    (size, channels, *patch),
                )
                for size in halves
            ]
        )
    smaller = _smaller_patches(patch) if settings.get("patch_size", patch) == patch else []
    if smaller:
        effect = "sees less around each voxel"
        first_that_fits([made({"patch_size": one}, effect, (batch, channels, *one)) for one in smaller])
    width = _width(settings.get("network_def"))
    if width is not None:
        found += filter(None, [made(dict([width]), "another network, trained anew", input_shape, width=0.5)])
    if can_amp:
        found += filter(None, [made({"amp": True}, "16 bit where that is safe", input_shape, lower=True)])
    if not any(one.fits for one in found) and halves and smaller:
        together = {"batch_size": 1, rate: accumulation * batch, "patch_size": smaller[-1]}
        changes: dict[str, Any] = {"lower": True} if can_amp else {}
        if can_amp:
            together["amp"] = True
        found += filter(None, [made(together, "all together", (1, channels, *smaller[-1]), **changes)])
    return sorted(found, key=lambda one: one.memory)


def _smaller_patches(patch: Sequence[int]) -> list[list[int]]:
    """Three quarters, a half and a quarter of a patch, in multiples of the power of two (to 32) that divides it."""
    step = next(size for size in (32, 16, 8, 4, 2, 1) if all(side % size == 0 for side in patch))
    made = [[max(step, round(side * share / step) * step) for side in patch] for share in (0.75, 0.5, 0.25)]
    return [one for number, one in enumerate(made) if one != list(patch) and one not in made[:number]]


def _width(network_def: Any) -> tuple[str, Any] | None:
    """The setting of the network's width and its half, where it has one that can be halved."""
    for name in _WIDTHS:
        value = network_def.get(name) if isinstance(network_def, Mapping) else None
        numbers: list[Any] = value if isinstance(value, list) else [value]
        if all(isinstance(one, int) and one % (24 if name == "feature_size" else 2) == 0 for one in numbers):
            half = [one // 2 for one in numbers]
            return f"network_def#{name}", half if isinstance(value, list) else half[0]
    return None


@dataclass(frozen=True)
class Device:
    """What a device has, in bytes.

    Args:
        name: as people know it.
        total: all of its memory.
        others: what others hold of it, and what this process held before it trained.
        held: what training held at its fullest; None where that is not known.
    """

    name: str
    total: int
    others: int
    held: int | None = None


def device_now(device: torch.device, before: int = 0) -> Device:
    """What a device has now; for a CPU, `before` is what the process held before it trained."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        others = total - free - torch.cuda.memory_reserved(device)
        return Device(torch.cuda.get_device_name(device), total, others, torch.cuda.max_memory_allocated(device))
    memory, mine = resources.ram(), resources.process_ram()
    others = max(0, memory.total - memory.free - mine) + before
    return Device(
        "the CPU's memory", memory.total, min(others, memory.total), max(0, mine - before) if before else None
    )


@contextlib.contextmanager
def memory_advice(trainer: Any, settings: Mapping[str, Any] | str | Path | None = None) -> Iterator[None]:
    """Add to an error of memory what this run asked for and what would fit; any other goes by as it is.

    Not a handler: where one of these returns or raises on EXCEPTION_RAISED, others never see the error.

    Args:
        trainer: MONAI's trainer, which runs inside.
        settings: its effective config, or the folder of the run, which holds it.
    """
    before = resources.process_ram()
    try:
        yield
    except Exception as error:
        try:
            note = note_for(error, trainer, _settings(settings), before)
        except Exception as failed:  # what is said of an error must not hide it
            logger.debug("No advice on memory: %s", failed)
            note = None
        if note is not None:
            error.add_note(note)
        raise


def _settings(said: Mapping[str, Any] | str | Path | None) -> Mapping[str, Any]:
    if isinstance(said, (str, Path)):
        path = Path(said) / "configs" / "train.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    return said or {}


def note_for(error: BaseException, trainer: Any, settings: Mapping[str, Any], before: int = 0) -> str | None:
    """What there is to say of an error; None where it is not one of memory."""
    text = str(error)
    if _SHARED.search(text):
        return (
            "The processes that load data ran out of shared memory (/dev/shm). Any of these helps:\n"
            "  num_workers=0 (or fewer), or a smaller batch_size\n"
            "  docker run --shm-size=8g, or --ipc=host"
        )
    if isinstance(error, MemoryError) or _KILLED.search(text):
        return (
            "The machine ran out of memory (RAM), or the system killed a process that loads data. Any of these helps:\n"
            "  cache_rate=0.5 (or 0: files are read anew), use_store=true after medseg data prepare with a store\n"
            "  num_workers=0 (or fewer): each process holds what it loads"
        )
    if not isinstance(error, torch.OutOfMemoryError) and not _DEVICE.search(text):
        return None
    if _in_validation(error):
        return "Memory ran out while validating: inferer#sw_batch_size=1 and a smaller patch_size take less there."
    shape = _shape_of(trainer)
    if shape is None:
        return "Memory ran out before the first batch was there. A smaller batch_size takes less."
    device = torch.device(trainer.state.device or "cpu")
    lower = bool(trainer.amp) if device.type == "cuda" else bool(getattr(trainer.inferer, "bf16", False))
    how = {"optimizer": trainer.optimizer, "lower": lower, "loss_buffers": _loss_buffers(trainer.loss_function)}
    now = estimate(trainer.network, shape, **how)
    have, asked = device_now(device, before), _asked(text)
    available = (have.total - have.others) * _USABLE
    # What it held and asked for is what it needs at least. Where that should have fitted, there is less than it seems
    # (a limit of the shell's, gaps between blocks): no more than what it held.
    factor = max(1.0, ((have.held or 0) + asked) / now.total)
    if now.total * factor <= available:
        available = min(have.held or now.total, now.total * factor * 0.98)
    accumulation = int(getattr(trainer, "accumulation_steps", 1))
    ways = advise(
        trainer.network, shape, available, settings, accumulation,
        can_amp=device.type == "cuda" and not trainer.amp, factor=factor, **how,
    )  # fmt: skip
    said = {"batch_size": shape[0], "patch_size": list(shape[2:]), "accumulation_steps": accumulation}
    said |= {"amp": bool(trainer.amp), **_width_now(settings)}
    needs = f"{now.total * factor / _GB:.2f} GB{_measured(have, asked)}: {_parts(now, factor)}"
    return "\n".join(
        [
            f"Memory ran out: {have.name} has {have.total / _GB:.2f} GB, {available / _GB:.2f} GB of it for this run.",
            f"A step of this run takes about {needs}.",
            "It asked for: " + ", ".join(f"{key}={_value(value)}" for key, value in said.items()),
            "What takes less, largest effect first (estimated):",
            *(f"  {way}" for way in ways),
        ]
    )


def _measured(have: Device, asked: int) -> str:
    if have.held is None:
        return ""
    return f" (it held {have.held / _GB:.2f} GB and asked for {asked / _GB:.2f} GB more)"


def _parts(now: Memory, factor: float) -> str:
    network = now.parameters + now.gradients + now.optimizer
    parts = {"network, gradients and optimizer": network, "activations": now.activations + now.working}
    parts["logits and loss"] = now.logits
    return ", ".join(f"{name} {size * factor / _GB:.2f}" for name, size in parts.items())


def _width_now(settings: Mapping[str, Any]) -> dict[str, Any]:
    network = settings.get("network_def")
    width = _width(network)
    return {width[0]: network[width[0].rpartition("#")[2]]} if width and isinstance(network, Mapping) else {}


def _asked(text: str) -> int:
    """The bytes that an allocator says it was asked for."""
    found = _ASKED.search(text)
    return int(float(found[1].rstrip(".")) * _UNITS.get((found[2] or "bytes").lower(), 1)) if found else 0


def _shape_of(trainer: Any) -> tuple[int, ...] | None:
    for location in (trainer.state.output, trainer.state.batch):
        image = location.get("image") if isinstance(location, Mapping) else None
        if isinstance(image, torch.Tensor):
            return tuple(image.shape)
    return None


def _in_validation(error: BaseException) -> bool:
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_globals.get("__name__") == "monai.engines.evaluator":
            return True
        trace = trace.tb_next
    return False


def _loss_buffers(loss: Any) -> float:
    """Buffers of the size of the logits: this package's losses make the gradient alone, others a handful."""
    return 2.0 if type(loss).__module__.startswith("medseg.losses") else 5.0
