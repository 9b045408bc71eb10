"""Export a network to a file that runs without its Python, TorchScript or ONNX, and compare their outputs.

Not MONAI's `ckpt_export`: that one scripts, which not every network allows, and compares no values.
"""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from medseg.atomic import atomic_path
from medseg.errors import GeometryError, OutputError, first_line
from medseg.optional import require

INPUT, OUTPUT = "image", "pred"
TOLERANCE = 1e-4  # of the largest logit; another order of the same sums changes a hundredth of that
_AXES = ("height", "width"), ("x", "y", "z")
_NOT_COPIED = ("version", "byteorder", ".data/serialization_id")  # the writer adds its own
Function = Callable[[torch.Tensor], torch.Tensor]


def to_torchscript(network: torch.nn.Module, path: str | Path, shape: Sequence[int], *samples: torch.Tensor) -> Path:
    """Trace a network, and write the trace if it gives the network's outputs.

    The file holds no paths of this machine, and the same network gives the same bytes. `torch.jit.load` loads it on
    any device. It takes other sizes unless the network's code branches on the size: MONAI's `BasicUNet` pads sizes
    that are no multiple of 16, and a trace of it needs such multiples.

    Args:
        network: any network that returns one tensor; it is not changed.
        path: of the file.
        shape: `(B, C, H, W)` or `(B, C, I, J, K)` of an input that the network takes.
        samples: inputs of that rank, such as real slices, to compare in addition to random ones.

    Raises:
        GeometryError: the shape has not 4 or 5 sizes above 0, or the network does not take it.
        OutputError: the network cannot be traced, or its trace gives other values, or the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     to_torchscript(torch.nn.Conv2d(1, 2, 3), Path(folder) / "model.ts", (1, 1, 8, 8)).name
        'model.ts'
    """
    path, eager = Path(path), _eval_copy(network)
    image = _random_image(shape)
    _run(eager, image, shape)
    state = torch.jit._state
    before = state._python_cu
    state._python_cu = torch._C.CompilationUnit()  # else names in the file depend on what was traced before
    try:
        with _quiet(), torch.no_grad(), atomic_path(path) as partial:
            try:
                traced = torch.jit.trace(eager, image, check_trace=False, _compilation_unit=state._python_cu)  # type: ignore[no-untyped-call]
            except Exception as error:  # the network's code may raise anything while it is traced
                raise _not_possible(path, "traced", error) from error
            buffer = io.BytesIO()
            torch.jit.save(traced, buffer)
            partial.write_bytes(_without_source_paths(buffer))
            loaded = torch.jit.load(str(partial), map_location="cpu")  # type: ignore[no-untyped-call]
            _compare(eager, loaded, image, samples, path)
    finally:
        state._python_cu = before
    return path


def to_onnx(network: torch.nn.Module, path: str | Path, shape: Sequence[int], *samples: torch.Tensor) -> Path:
    """Write a network as ONNX if ONNX Runtime gives the network's outputs.

    Its input is called `image`, its output `pred`; batch and sizes are free, within the limits of `to_torchscript`.

    Args:
        network: any network that returns one tensor; it is not changed.
        path: of the file.
        shape: `(B, C, H, W)` or `(B, C, I, J, K)` of an input that the network takes.
        samples: inputs of that rank, such as real slices, to compare in addition to random ones.

    Raises:
        GeometryError: the shape has not 4 or 5 sizes above 0, or the network does not take it.
        OutputError: the network cannot be exported, or its export gives other values, or the file cannot be written.
        MissingExtraError: onnx or onnxruntime is not installed.
    """
    path, eager = Path(path), _eval_copy(network)
    onnx, runtime = require("onnx", extra="onnx"), require("onnxruntime", extra="onnx")
    image = _random_image(shape)
    _run(eager, image, shape)
    axes = {0: "batch", **dict(enumerate(_AXES[image.ndim - 4], 2))}
    with _quiet(), torch.no_grad(), atomic_path(path) as partial:
        try:
            # By tracing: torch's newer exporter does not take SegFormer, and writes the paths of source files.
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

        def run(sample: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(session.run([OUTPUT], {INPUT: sample.numpy()})[0])

        _compare(eager, run, image, samples, path)
    return path


def _eval_copy(network: torch.nn.Module) -> torch.nn.Module:
    return copy.deepcopy(network).cpu().float().eval()


def _random_image(shape: Sequence[int], seed: int = 0) -> torch.Tensor:
    if len(shape) not in (4, 5) or min(shape) < 1:
        problem = "must be (B, C, H, W) or (B, C, I, J, K)"
        raise GeometryError("shape of the input", problem, f"got {tuple(shape)}")
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _run(network: torch.nn.Module, image: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    try:
        with torch.no_grad():
            output = network(image)
    except Exception as error:  # the network's code may raise anything
        thing = f"input of shape {tuple(shape)}"
        raise GeometryError(thing, "the network does not take it", first_line(error)) from error
    if not isinstance(output, torch.Tensor):
        problem = "must return one tensor to be exported"
        raise OutputError(type(network).__name__, problem, f"got {type(output).__name__}")
    return output


def _compare(
    eager: torch.nn.Module, exported: Function, image: torch.Tensor, samples: Sequence[torch.Tensor], path: Path
) -> None:
    """Compare outputs for random values, for random values of another size and batch, and for samples."""
    inputs = [("random values", image)]
    inputs += [("the sample", sample.detach().cpu().float().contiguous()) for sample in samples]
    for name, sample in inputs:
        expected = _run(eager, sample, sample.shape)
        _require_same(expected, exported(sample), f"{name}, {tuple(sample.shape)}", path)
    larger = (image.shape[0] + 1, image.shape[1], *(2 * size for size in image.shape[2:]))
    try:
        sample = _random_image(larger, seed=1)
        expected, output = _run(eager, sample, larger), exported(sample)
    except Exception:  # the network takes one size only, or the file itself refuses this one
        return
    _require_same(expected, output, f"random values, {larger}", path)


def _require_same(expected: torch.Tensor, output: torch.Tensor, name: str, path: Path) -> None:
    if expected.shape != output.shape:
        came = f"got shape {tuple(output.shape)} for {tuple(expected.shape)}"
    else:
        largest = max(float(expected.abs().max()), 1e-12)
        difference = float((expected - output).abs().max()) / largest
        if difference <= TOLERANCE:
            return
        came = f"they differ by {difference:.1e} of the largest logit"
    fix = "The network's code does something that a trace cannot record: share the weights without this file."
    raise OutputError(path, f"does not give the network's output for {name}", came, fix)


def _without_source_paths(buffer: io.BytesIO) -> bytes:
    """Return a TorchScript archive without the records that name source files of this machine."""
    buffer.seek(0)
    reader, out = torch._C.PyTorchFileReader(buffer), io.BytesIO()
    writer = torch._C.PyTorchFileWriter(out)
    for name in reader.get_all_records():
        if not name.endswith(".debug_pkl") and name not in _NOT_COPIED:
            record = reader.get_record(name)
            writer.write_record(name, record, len(record))
    writer.write_end_of_file()
    return out.getvalue()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's warnings of tracing: it is the one way that takes all networks here, and outputs are compared."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _not_possible(path: Path, action: str, error: Exception) -> OutputError:
    return OutputError(path, f"the network cannot be {action}", first_line(error))
