"""A network as one file that runs without its Python: TorchScript or ONNX, held against the network before it stays.

Not MONAI's `ckpt_export`: that one scripts, which not every network allows, and looks at no values.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from medseg.atomic import atomic_path
from medseg.errors import GeometryError, OutputError
from medseg.optional import require

INPUT, OUTPUT = "image", "pred"
TOLERANCE = 1e-4  # of the largest logit; what another order of the same sums costs is a hundredth of it
_AXES = ("height", "width"), ("x", "y", "z")
_NOT_COPIED = ("version", "byteorder", ".data/serialization_id")  # the writer makes its own
Function = Callable[[torch.Tensor], torch.Tensor]


def to_torchscript(network: torch.nn.Module, path: str | Path, shape: Sequence[int], *samples: torch.Tensor) -> Path:
    """Trace a network, and write it where it gives what the network gives.

    The file tells nothing of the machine it was made on, and the same network gives the same bytes. It can be loaded
    with `torch.jit.load`, for any device, and takes other sizes as far as the network's own code does not choose by
    the size: MONAI's `BasicUNet` pads where a size is no multiple of 16, a trace of it needs such multiples.

    Args:
        network: any network that gives one tensor; it is left as it is.
        path: where the file goes.
        shape: `(B, C, H, W)` or `(B, C, I, J, K)` of an input that the network takes.
        samples: inputs of that rank, such as real slices, that are looked at beside made-up ones.

    Raises:
        GeometryError: a shape that is none, or that the network does not take.
        OutputError: it cannot be traced, gives other values then, or the place cannot be written.
    """
    path, eager = Path(path), _ready(network)
    image = _image(shape)
    _answer(eager, image, shape)
    state = torch.jit._state
    before = state._python_cu
    state._python_cu = torch._C.CompilationUnit()  # else names go by what was traced before
    try:
        with _quiet(), torch.no_grad(), atomic_path(path) as partial:
            try:
                made = torch.jit.trace(eager, image, check_trace=False, _compilation_unit=state._python_cu)  # type: ignore[no-untyped-call]
            except Exception as error:  # whatever the network's code raises while it is traced
                raise _not_possible(path, "traced", error) from error
            held = io.BytesIO()
            torch.jit.save(made, held)
            partial.write_bytes(_without_places(held))
            loaded = torch.jit.load(str(partial), map_location="cpu")  # type: ignore[no-untyped-call]
            _compare(eager, loaded, image, samples, path)
    finally:
        state._python_cu = before
    return path


def to_onnx(network: torch.nn.Module, path: str | Path, shape: Sequence[int], *samples: torch.Tensor) -> Path:
    """Write a network as ONNX where ONNX Runtime gives what the network gives.

    Its input is called `image`, its output `pred`; batch and sizes are free, within what is said of `to_torchscript`.

    Args:
        network: any network that gives one tensor; it is left as it is.
        path: where the file goes.
        shape: `(B, C, H, W)` or `(B, C, I, J, K)` of an input that the network takes.
        samples: inputs of that rank, such as real slices, that are looked at beside made-up ones.

    Raises:
        GeometryError: a shape that is none, or that the network does not take.
        OutputError: it cannot be exported, gives other values then, or the place cannot be written.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    path, eager = Path(path), _ready(network)
    onnx, runtime = require("onnx", extra="onnx"), require("onnxruntime", extra="onnx")
    image = _image(shape)
    _answer(eager, image, shape)
    axes = {0: "batch", **dict(enumerate(_AXES[image.ndim - 4], 2))}
    with _quiet(), torch.no_grad(), atomic_path(path) as partial:
        try:
            # By tracing: torch's newer exporter does not take SegFormer, and writes the paths of source files
            torch.onnx.export(
                eager,
                (image,),
                str(partial),
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: axes, OUTPUT: axes},
                dynamo=False,
            )
            onnx.checker.check_model(str(partial))
            options = runtime.SessionOptions()
            options.log_severity_level = 3  # errors alone
            session = runtime.InferenceSession(str(partial), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # of three libraries
            raise _not_possible(path, "exported to ONNX", error) from error

        def run(given: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(session.run([OUTPUT], {INPUT: given.numpy()})[0])

        _compare(eager, run, image, samples, path)
    return path


def _ready(network: torch.nn.Module) -> torch.nn.Module:
    """A copy of the network on the CPU that computes without dropout."""
    return copy.deepcopy(network).cpu().float().eval()


def _image(shape: Sequence[int], seed: int = 0) -> torch.Tensor:
    if len(shape) not in (4, 5) or min(shape) < 1:
        raise GeometryError("shape of the input", "must be (B, C, H, W) or (B, C, I, J, K)", str(tuple(shape)))
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _answer(network: torch.nn.Module, image: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """What the network itself gives."""
    try:
        with torch.no_grad():
            given = network(image)
    except Exception as error:  # whatever the network's code raises
        raise GeometryError(
            f"input of shape {tuple(shape)}", "must be one that the network takes", _first_line(error)
        ) from error
    if not isinstance(given, torch.Tensor):
        raise OutputError(type(network).__name__, "must give one tensor to be exported", type(given).__name__)
    return given


def _compare(
    eager: torch.nn.Module, made: Function, image: torch.Tensor, samples: Sequence[torch.Tensor], path: Path
) -> None:
    """Hold the file's answers against the network's: of noise, of noise of another size and batch, of samples."""
    other = (image.shape[0] + 1, image.shape[1], *(2 * size for size in image.shape[2:]))
    given_samples = [("the sample", sample.detach().cpu().float().contiguous()) for sample in samples]
    for name, given in [("made-up values", image), *given_samples]:
        _same(_answer(eager, given, given.shape), made(given), f"{name}, {tuple(given.shape)}", path)
    try:
        given = _image(other, seed=1)
        wanted, got = _answer(eager, given, other), made(given)
    except Exception:  # a network for one size alone, or a file that says itself that this size is not for it
        return
    _same(wanted, got, f"made-up values, {other}", path)


def _same(wanted: torch.Tensor, got: torch.Tensor, name: str, path: Path) -> None:
    if wanted.shape != got.shape:
        found = f"shape {tuple(got.shape)} for {tuple(wanted.shape)}"
    else:
        largest = max(float(wanted.abs().max()), 1e-12)
        share = float((wanted - got).abs().max()) / largest
        if share <= TOLERANCE:
            return
        found = f"{share:.1e} of the largest logit between them"
    raise OutputError(
        path,
        f"must give what the network gives for {name}",
        found,
        "Its code does what a trace cannot hold; share the weights without this file.",
    )


def _without_places(held: io.BytesIO) -> bytes:
    """A TorchScript archive less what names the source files of the machine it was made on."""
    held.seek(0)
    reader, out = torch._C.PyTorchFileReader(held), io.BytesIO()
    writer = torch._C.PyTorchFileWriter(out)
    for name in reader.get_all_records():
        if not name.endswith(".debug_pkl") and name not in _NOT_COPIED:
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    return out.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch says of tracing as such: it is the one way that takes all networks here, and is looked at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _not_possible(path: Path, what: str, error: Exception) -> OutputError:
    return OutputError(path, f"needs a network that can be {what}", f"{type(error).__name__}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    lines: list[Any] = str(error).strip().splitlines()
    return str(lines[0]) if lines else type(error).__name__
