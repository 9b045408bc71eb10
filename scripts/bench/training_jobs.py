"""What training.py measures. Each job runs in a process of its own, in medseg's environment or in that of the rivals.

    python scripts/bench/training_jobs.py JOB '{"its": "arguments"}'

A job does its work twice to get warm, prints a line of JSON, and does it once more for each line it is sent: wall and
CPU seconds, and memory. Of a loss, memory is the peak above what the process held before, in buffers of the logits'
size; of a step, the highest that the process ever held, in MB.
"""

import ctypes
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

Deed = Callable[[], Any]
BATCH, CLASSES, SIZE = 8, 118, 256


def memory(key: str) -> float:
    """MB of this process: `VmRSS` now, `VmHWM` at its highest since `clear_refs` was last written."""
    line = next(
        line for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if line.startswith(key)
    )
    return int(line.split()[1]) * 1024 / 1e6


def example(dtype: str = "float32", last: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of a batch; the labels lie in blocks, as organs do."""
    made = torch.Generator().manual_seed(0)
    logits = torch.randn(BATCH, CLASSES, SIZE, SIZE, generator=made).to(getattr(torch, dtype))
    if last:
        logits = logits.to(memory_format=torch.channels_last)
    blocks = torch.randint(0, CLASSES, (BATCH, 1, SIZE // 16, SIZE // 16), generator=made)
    return logits, blocks.repeat_interleave(16, 2).repeat_interleave(16, 3)


def loss_of(who: str) -> Any:
    """Dice (without the background, over the batch) and cross-entropy: the same loss by three houses."""
    if who == "nnunet":
        compound = import_module("nnunetv2.training.loss.compound_losses")
        dice = import_module("nnunetv2.training.loss.dice").MemoryEfficientSoftDiceLoss
        kwargs = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
        return compound.DC_and_CE_loss(kwargs, {}, weight_ce=1, weight_dice=1, dice_class=dice)
    options = {"include_background": False, "batch": True}
    if who == "monai":
        return import_module("monai.losses").DiceCELoss(to_onehot_y=True, softmax=True, **options)
    if who == "torch":
        sums: Any = import_module("medseg.losses.voxel_sums")
        sums._loops = lambda: None
    return import_module("medseg.losses").DiceCELoss(**options)


def loss(who: str, dtype: str = "float32", last: bool = False) -> Deed:
    """A loss with its gradient."""
    logits, labels = example(dtype, last)
    criterion = loss_of(who)

    def deed() -> None:
        criterion(logits.detach().requires_grad_(), labels).backward()

    return deed


def step(who: str, overlay: str | None = None, trace: str | None = None, allocator: bool = False, **more: Any) -> Deed:
    """A step of a trainer: MONAI's with MONAI's parts, MONAI's with those of the bundle, or what nnU-Net does."""
    image, labels = torch.rand(BATCH, 1, SIZE, SIZE), example()[1]
    if who == "nnunet":
        network: Any = torch.jit.load(trace)  # type: ignore[no-untyped-call]
        criterion = loss_of("nnunet")
        sgd = torch.optim.SGD(network.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)

        def theirs() -> None:
            sgd.zero_grad(set_to_none=True)
            criterion(network(image), labels).backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 12)
            sgd.step()

        return theirs
    engines, bundle = import_module("monai.engines"), import_module("medseg.bundle").Bundle
    parser = bundle.open("unet2d").resolve("train", {"device": "cpu", **more}, [overlay] if overlay else [])
    torch.manual_seed(0)
    parts: dict[str, Any] = {"loss_function": loss_of("monai")}
    if who == "medseg":
        criterion = parser.get_parsed_content("loss")
        parts = {
            "loss_function": criterion,
            "inferer": parser.get_parsed_content("train#inferer"),
            "prepare_batch": import_module("medseg.training").PrepareBatch(criterion),
        }
    if allocator and not import_module("medseg.training").keep_freed_memory():
        raise SystemExit("glibc is wanted for this")
    batch = {"image": image, "label": labels.int(), "case": [f"s{n}" for n in range(BATCH)],
             "annotated": torch.ones(BATCH, CLASSES, dtype=torch.bool)}  # fmt: skip

    def ours() -> None:
        trainer.state.max_epochs = (trainer.state.epoch or 0) + 1
        trainer.run()

    trainer = engines.SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=1, train_data_loader=[batch], decollate=False, optim_set_to_none=True,
        network=parser.get_parsed_content("network"), optimizer=parser.get_parsed_content("optimizer"), **parts,
    )  # fmt: skip
    return ours


JOBS: dict[str, Callable[..., Deed]] = {"loss": loss, "step": step}


def timed(deed: Deed, buffers: bool) -> dict[str, float]:
    """Do it once."""
    ctypes.CDLL(None).malloc_trim(0)
    if buffers:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    base, cpu, wall = memory("VmRSS"), time.process_time(), time.perf_counter()
    deed()
    answer = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    logits = BATCH * CLASSES * SIZE * SIZE * (2 if "bfloat16" in sys.argv[2] else 4) / 1e6
    return {**answer, **({"buffers": (memory("VmHWM") - base) / logits} if buffers else {"mb": memory("VmHWM")})}


if __name__ == "__main__":
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    sys.stdout = sys.stderr
    warnings.simplefilter("ignore")
    job = JOBS[sys.argv[1]](**json.loads(sys.argv[2]))
    for _ in range(2):
        job()
    print("{}", file=replies)
    for _line in sys.stdin:
        print(json.dumps(timed(job, sys.argv[1] == "loss")), file=replies)
