"""Advise what to change when memory ran out, computed from the network, the batch and the device."""

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
from medseg.config.paths import at
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
_REQUESTED = re.compile(r"allocate ([\d.]+) (bytes|[KMG]i?B)?", re.IGNORECASE)
_UNITS = {"bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}
_WIDTHS = ("features", "channels", "feature_size", "init_filters")  # arguments of networks for their channels
_USABLE = 0.95  # of the free memory; gaps between blocks take the rest
# Where MONAI has settings in a config; the user's key is the one that is referred to there.
_BATCH, _STEPS = "train#dataloader#batch_size", "train#trainer#accumulation_steps"
_AMP, _CACHE, _WORKERS = "train#trainer#amp", "train#dataset#cache_rate", "train#dataloader#num_workers"
_INFERER = "validate#inferer"


@dataclass(frozen=True)
class Advice:
    """Hold one way to take less memory.

    Args:
        overrides: what to change, by config key.
        memory: what a step then takes, in bytes.
        fits: whether that much is free.
        effect: what else it changes.
    """

    overrides: Mapping[str, Any]
    memory: int
    fits: bool
    effect: str = ""

    def __str__(self) -> str:
        """Return a line with the overrides as `medseg train` takes them."""
        pairs = " ".join(f"{key}={_value(value)}" for key, value in self.overrides.items())
        text = f"{'fits   ' if self.fits else 'too big'} {self.memory / _GB:7.2f} GB  {pairs}"
        return f"{text}  ({self.effect})" if self.effect else text


def _value(value: Any) -> str:
    text = json.dumps(value)
    return f"'{text}'" if " " in text else text


def _key(settings: Mapping[str, Any], path: str) -> tuple[str, Any]:
    """Return the key with which a user changes the setting at one of MONAI's paths, and its value.

    >>> _key({"lr": 0.1, "optimizer": {"lr": "@lr"}}, "optimizer#lr"), _key({}, "train#trainer#amp")
    (('lr', 0.1), ('amp', None))
    """
    value = at(settings, path)
    if isinstance(value, str) and value.startswith("@") and at(settings, value[1:]) is not None:
        return value[1:], at(settings, value[1:])
    return (path if value is not None else path.rpartition("#")[2]), value


def _patch_key(settings: Mapping[str, Any], patch: Sequence[int]) -> str | None:
    """Return the top-level key that holds the size of the patch; None where it is computed."""
    if not settings:
        return "patch_size"
    return next((key for key, value in settings.items() if isinstance(value, list) and value == list(patch)), None)


def advise(
    network: torch.nn.Module,
    input_shape: Sequence[int],
    available: float,
    settings: Mapping[str, Any] | None = None,
    accumulation: int = 1,
    can_amp: bool = False,
    factor: float = 1.0,
    **options: Any,
) -> list[Advice]:
    """Return settings with which a training step takes less memory, largest effect first.

    Args:
        network: the network.
        input_shape: `(B, C, I, J[, K])` of the batch that did not fit.
        available: bytes that a step may take.
        settings: the effective config; None for one that is not known.
        accumulation: batches whose gradients are summed before a step.
        can_amp: whether AMP is off and could be on.
        factor: what the device held, as a multiple of what was estimated for it.
        options: further arguments of `estimate`.
    """
    settings = settings or {}
    batch, channels, *patch = input_shape
    batch_key, batch_value = _key(settings, _BATCH)
    steps_key, _ = _key(settings, _STEPS)
    amp_key, _ = _key(settings, _AMP)
    patch_key = _patch_key(settings, patch)

    def option(overrides: dict[str, Any], effect: str, shape: Sequence[int], **changes: Any) -> list[Advice]:
        try:
            memory = int(estimate(network, shape, **{**options, **changes}).total * factor)
        except (RuntimeError, ValueError):
            return []  # the network does not take this shape
        return [Advice(overrides, memory, memory <= available, effect)]

    def first_that_fits(candidates: list[Advice]) -> list[Advice]:
        return [advice for advice in candidates if advice.fits][:1] or candidates[-1:]

    ways: list[Advice] = []
    halves = [batch // 2**n for n in range(1, batch.bit_length())]
    if not isinstance(batch if batch_value is None and not settings else batch_value, int):
        halves = []  # computed from other settings
    candidates: list[Advice] = []
    for size in halves:
        exact = accumulation * batch % size == 0
        effect = "the same effective batch" if exact else "nearly the same effective batch"
        overrides = {batch_key: size, steps_key: accumulation * batch // size}
        candidates += option(overrides, effect, (size, channels, *patch))
    ways += first_that_fits(candidates)
    smaller = _smaller_patches(patch) if patch_key is not None else []
    candidates = []
    for size in smaller:
        candidates += option({str(patch_key): size}, "sees less around each voxel", (batch, channels, *size))
    ways += first_that_fits(candidates)
    width = _width(settings.get("network_def"))
    if width is not None:
        ways += option(dict([width]), "another network, trained anew", input_shape, width=0.5)
    if can_amp:
        ways += option({amp_key: True}, "16 bit where that is safe", input_shape, lower=True)
    if not any(way.fits for way in ways) and halves and smaller:
        together = {batch_key: 1, steps_key: accumulation * batch, str(patch_key): smaller[-1]}
        changes: dict[str, Any] = {"lower": True} if can_amp else {}
        if can_amp:
            together[amp_key] = True
        ways += option(together, "all together", (1, channels, *smaller[-1]), **changes)
    return sorted(ways, key=lambda way: way.memory)


def _smaller_patches(patch: Sequence[int]) -> list[list[int]]:
    """Return 3/4, 1/2 and 1/4 of a patch, in multiples of the power of two (to 32) that divides it."""
    step = next(size for size in (32, 16, 8, 4, 2, 1) if all(side % size == 0 for side in patch))
    patches: list[list[int]] = []
    for share in (0.75, 0.5, 0.25):
        size = [max(step, round(side * share / step) * step) for side in patch]
        if size != list(patch) and size not in patches:
            patches.append(size)
    return patches


def _width(network_def: Any) -> tuple[str, Any] | None:
    """Return the key of the network's width and half its value, if it has a width that can be halved."""
    for name in _WIDTHS:
        value = network_def.get(name) if isinstance(network_def, Mapping) else None
        numbers: list[Any] = value if isinstance(value, list) else [value]
        divisor = 24 if name == "feature_size" else 2
        if all(isinstance(number, int) and number % divisor == 0 for number in numbers):
            half = [number // 2 for number in numbers]
            return f"network_def#{name}", half if isinstance(value, list) else half[0]
    return None


@dataclass(frozen=True)
class Device:
    """Hold what a device has, in bytes.

    Args:
        name: for the message.
        total: all of its memory.
        others: what other processes hold, and what this process held before it trained.
        peak: what training held at its peak; None where that is not known.
    """

    name: str
    total: int
    others: int
    peak: int | None = None


def device_now(device: torch.device, before: int = 0) -> Device:
    """Measure a device now; for a CPU, `before` is what the process held before it trained."""
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
    """Add to a memory error what this run asked for and what would fit; other errors pass unchanged.

    Not a handler: one that returns or raises on EXCEPTION_RAISED hides the error from all others.

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
        except Exception as failure:  # the advice must not hide the error
            logger.debug("No advice on memory: %s", failure)
            note = None
        if note is not None:
            error.add_note(note)
        raise


def _settings(source: Mapping[str, Any] | str | Path | None) -> Mapping[str, Any]:
    if isinstance(source, (str, Path)):
        path = Path(source) / "configs" / "train.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    return source or {}


def note_for(error: BaseException, trainer: Any, settings: Mapping[str, Any], before: int = 0) -> str | None:
    """Return the advice for an error; None where it is no memory error."""
    text = str(error)
    workers, cache = _key(settings, _WORKERS)[0], _key(settings, _CACHE)[0]
    batch_key = _key(settings, _BATCH)[0]
    if _SHARED.search(text):
        return (
            "The processes that load data ran out of shared memory (/dev/shm). Any of these helps:\n"
            f"  {workers}=0 (or fewer), or a smaller {batch_key}\n"
            "  docker run --shm-size=8g, or --ipc=host"
        )
    if isinstance(error, MemoryError) or _KILLED.search(text):
        return (
            "The machine ran out of memory (RAM), or the system killed a process that loads data. Any of these helps:\n"
            f"  {cache}=0.5 (or 0: files are read anew), or a slice store (medseg data prepare --store)\n"
            f"  {workers}=0 (or fewer): each process holds what it loads"
        )
    if not isinstance(error, torch.OutOfMemoryError) and not _DEVICE.search(text):
        return None
    if _in_validation(error):
        inferer = at(settings, _INFERER)
        key = inferer[1:] if isinstance(inferer, str) and inferer.startswith("@") else _INFERER
        return f"Memory ran out while validating: {key}#sw_batch_size=1 and smaller patches take less there."
    shape = _shape_of(trainer)
    if shape is None:
        return f"Memory ran out before the first batch was loaded. A smaller {batch_key} takes less."
    device = torch.device(trainer.state.device or "cpu")
    lower = bool(trainer.amp) if device.type == "cuda" else bool(getattr(trainer.inferer, "bf16", False))
    options = {"optimizer": trainer.optimizer, "lower": lower, "loss_buffers": _loss_buffers(trainer.loss_function)}
    now = estimate(trainer.network, shape, **options)
    has, requested = device_now(device, before), _requested(text)
    available = (has.total - has.others) * _USABLE
    # It needs at least what it held and requested. Where that should have fitted, less is free than it seems (a limit
    # of the shell, gaps between blocks): no more than what it held.
    factor = max(1.0, ((has.peak or 0) + requested) / now.total)
    if now.total * factor <= available:
        available = min(has.peak or now.total, now.total * factor * 0.98)
    accumulation = int(getattr(trainer, "accumulation_steps", 1))
    ways = advise(
        trainer.network, shape, available, settings, accumulation,
        can_amp=device.type == "cuda" and not trainer.amp, factor=factor, **options,
    )  # fmt: skip
    patch = list(shape[2:])
    asked_for = {batch_key: shape[0], _patch_key(settings, patch) or "patch": patch}
    asked_for |= {_key(settings, _STEPS)[0]: accumulation, _key(settings, _AMP)[0]: bool(trainer.amp)}
    asked_for |= _width_now(settings)
    needs = f"{now.total * factor / _GB:.2f} GB{_measured(has, requested)}: {_parts(now, factor)}"
    return "\n".join(
        [
            f"Memory ran out: {has.name} has {has.total / _GB:.2f} GB, {available / _GB:.2f} GB of it for this run.",
            f"A step of this run takes about {needs}.",
            "It asked for: " + ", ".join(f"{key}={_value(value)}" for key, value in asked_for.items()),
            "What takes less, largest effect first (estimated):",
            *(f"  {way}" for way in ways),
        ]
    )


def _measured(device: Device, requested: int) -> str:
    if device.peak is None:
        return ""
    return f" (it held {device.peak / _GB:.2f} GB and asked for {requested / _GB:.2f} GB more)"


def _parts(now: Memory, factor: float) -> str:
    network = now.parameters + now.gradients + now.optimizer
    parts = {"network, gradients and optimizer": network, "activations": now.activations + now.working}
    parts["logits and loss"] = now.logits
    return ", ".join(f"{name} {size * factor / _GB:.2f}" for name, size in parts.items())


def _width_now(settings: Mapping[str, Any]) -> dict[str, Any]:
    network = settings.get("network_def")
    width = _width(network)
    return {width[0]: network[width[0].rpartition("#")[2]]} if width and isinstance(network, Mapping) else {}


def _requested(text: str) -> int:
    """Return the bytes that an allocator reports as requested."""
    match = _REQUESTED.search(text)
    return int(float(match[1].rstrip(".")) * _UNITS.get((match[2] or "bytes").lower(), 1)) if match else 0


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
    """Return the buffers of the size of the logits: medseg's losses keep the gradient alone, others about five."""
    return 2.0 if type(loss).__module__.startswith("medseg.losses") else 5.0
