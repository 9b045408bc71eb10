"""Check the network: it can be built, and gives what `network_data_format` says for the input that it describes."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from medseg.bundle.verify.bundle_files import METADATA, BundleFiles, UnknownValueError, as_mapping, root_cause
from medseg.findings import Finding, error, note, warning
from medseg.inspection.forms import Evaluator, Refusal
from medseg.labels import LabelMap

_ANY_SIZE = 64  # pixels, for "*"
_LARGEST = 2**16  # pixels along one axis
_TRIES = ((1, 1), (2, 4), (4, 5), (8, 6), (16, 7))  # n and p of "8*n" and "2**p"
_COMPUTED = 2**18  # values of an input up to which the network is run; of larger ones only shapes are followed
_WRITE_SIZE = "Write 96, '*' or '8*n'."


def check_network(bundle: BundleFiles) -> Iterator[Finding]:
    """Find a network that cannot be built, or that takes or gives something else than the metadata says."""
    for config, built in bundle.networks.items():
        if isinstance(built, UnknownValueError) and not built.needs_data:
            location = bundle.location(config, "network_def")
            yield error("network-fails", location, f"it cannot be built: {built}", "Correct it.")
    network = bundle.network
    if network is None:
        if bundle.networks and all(built.needs_data for built in bundle.networks.values()):
            location = bundle.location(next(iter(bundle.networks)), "network_def")
            message = "it depends on the dataset, so it was not built"
            yield note("network-unknown", location, message, "Train it, and verify the run.")
        return
    location = bundle.location(list(bundle.networks)[-1], "network_def")
    data_format = as_mapping(bundle.metadata.get("network_data_format"))
    image = as_mapping(as_mapping(data_format.get("inputs")).get("image"))
    output = as_mapping(as_mapping(data_format.get("outputs")).get("pred"))
    if not isinstance(network, torch.nn.Module):
        yield error("network-fails", location, f"it is a {type(network).__name__} and not a network", "Correct it.")
    elif isinstance(image.get("num_channels"), int) and isinstance(image.get("spatial_shape"), list):
        try:
            yield from _forward(network, image, output, bundle.location(METADATA, "network_data_format"))
        except ImportError as problem:
            message = f"it cannot be run: {root_cause(problem)}"
            yield error("network-fails", location, message, "Install what it needs.")


def _forward(
    network: torch.nn.Module, image: Mapping[str, Any], output: Mapping[str, Any], location: str
) -> Iterator[Finding]:
    """Run the network on zeros of the smallest size that it takes, and compare what it gives."""
    sizes, reason = image["spatial_shape"], ""
    for number, (n, p) in enumerate(_TRIES):
        try:
            shape = [size_of(size, n, p) for size in sizes]
        except ValueError as problem:
            yield error("network-shape", f"{location}#inputs#image#spatial_shape", str(problem), _WRITE_SIZE)
            return
        try:
            result = run(network, (1, image["num_channels"], *shape), image.get("dtype"))
        except ImportError:
            raise
        except Exception as problem:  # whatever a network raises for what does not fit it
            reason = reason or f"{root_cause(problem)} (with {'x'.join(map(str, shape))})"
            if number + 1 == len(_TRIES) or not any(isinstance(size, str) for size in sizes):
                message = f"the network does not take {image['num_channels']} channels of {sizes}: {reason}"
                yield error("network-shape", f"{location}#inputs#image", message, "Correct the metadata.")
                return
            continue
        if reason:
            message = f"{sizes} holds only for {shape} and larger: {reason}"
            fix = "Say what the smallest size is, such as '16*n'."
            yield warning("network-shape", f"{location}#inputs#image#spatial_shape", message, fix)
        expected = output.get("spatial_shape", sizes)
        shape_out = None
        try:
            if isinstance(expected, list):
                shape_out = [size_of(size, n, p) for size in expected]
        except ValueError as problem:
            yield error("network-shape", f"{location}#outputs#pred#spatial_shape", str(problem), _WRITE_SIZE)
        yield from _output(result, output, shape_out, location)
        return


def _output(result: Any, output: Mapping[str, Any], shape: Sequence[int] | None, location: str) -> Iterator[Finding]:
    tensor = next(_tensors(result), None)
    if tensor is None:
        yield error("network-shape", f"{location}#outputs", "the network returns no tensor", "Correct it.")
        return
    channels, dtype = output.get("num_channels"), output.get("dtype")
    fix, location = "Correct the metadata, or the network.", f"{location}#outputs#pred"
    if isinstance(channels, int) and tensor.shape[1] != channels:
        message = f"it is {channels}, and the network gives {tensor.shape[1]} channels"
        yield error("network-channels", f"{location}#num_channels", message, fix)
    if shape is not None and list(tensor.shape[2:]) != list(shape):
        message = f"it is {list(shape)}, and the network gives {list(tensor.shape[2:])}"
        yield error("network-shape", f"{location}#spatial_shape", message, fix)
    if isinstance(dtype, str) and str(tensor.dtype) != f"torch.{dtype}" and not dtype.startswith("float16"):
        message = f"it is {dtype}, and the network gives {tensor.dtype}"
        yield error("network-dtype", f"{location}#dtype", message, fix)


def size_of(size: Any, n: int = 1, p: int = 1) -> int:
    """Return the size of an axis that `spatial_shape` gives as a number, as `*`, or as an expression of `n` and `p`.

    Raises:
        ValueError: it is none of these, or no possible size.

    Example:
        >>> size_of(96), size_of("8*n", n=2), size_of("2**p * n", n=3, p=4), size_of("*")
        (96, 16, 48, 64)
    """
    value = size
    if isinstance(size, str):  # a stranger's, so nothing but arithmetic is computed
        evaluator = Evaluator({"n": n, "p": p}.__getitem__, lambda _: None, LabelMap)
        try:
            value = _ANY_SIZE if size == "*" else evaluator.evaluate("$" + re.sub(r"\b([np])\b", r"@\1", size))
        except Refusal as problem:
            raise ValueError(f"'{size}' is not a size") from problem
    if not isinstance(value, int | float) or not 0 < value <= _LARGEST or value != int(value):
        raise ValueError(f"'{size}' is {value!r}, which is not a possible size")
    return int(value)


@torch.no_grad()
def run(network: torch.nn.Module, shape: Sequence[int], dtype: str | None = None) -> Any:
    """Return what a network gives for zeros of a shape; for large ones only shapes and types, without computing."""
    number_type = getattr(torch, str(dtype), torch.float32)
    is_float = isinstance(number_type, torch.dtype) and number_type.is_floating_point
    if not is_float or number_type in {torch.float16, torch.bfloat16}:
        number_type = torch.float32
    was_training = network.training
    try:
        if torch.Size(shape).numel() > _COMPUTED:
            with contextlib.suppress(Exception):  # some networks look at values; others fail below, too
                return copy.deepcopy(network).to("meta").eval()(torch.zeros(*shape, dtype=number_type, device="meta"))
        device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
        return network.eval()(torch.zeros(*shape, dtype=number_type, device=device))
    finally:
        network.train(was_training)


def _tensors(result: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors in what a network returned, in their order."""
    if isinstance(result, torch.Tensor):
        yield result
    elif isinstance(result, Mapping | list | tuple):
        for entry in result.values() if isinstance(result, Mapping) else result:
            yield from _tensors(entry)
