"""The network of a bundle: it can be built, and gives what `network_data_format` says for what that says it takes."""

from __future__ import annotations

import ast
import contextlib
import copy
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch

from medseg.bundle.verify.opened import METADATA, Opened, UnknownValueError, cause, mapping
from medseg.findings import Finding, error, note, warning

_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Div: operator.floordiv,
    ast.Pow: operator.pow,
}
_ANY = 64  # pixels, where any number will do
_LARGEST = 2**16  # of one axis
_TRIES = ((1, 1), (2, 4), (4, 5), (8, 6), (16, 7))  # n and p of "8*n" and "2**p"
_REAL = 2**18  # values of an input above which shapes are followed without computing anything


def check(bundle: Opened) -> Iterator[Finding]:
    """Findings on building the network, and on running it forward once with nothing in it."""
    for config, found in bundle.networks.items():
        if isinstance(found, UnknownValueError) and not found.data:
            yield error(
                "network-fails", bundle.location(config, "network_def"), f"it cannot be built: {found}", "Correct it."
            )
    network = bundle.network
    if network is None:
        if bundle.networks and all(one.data for one in bundle.networks.values()):
            location = bundle.location(next(iter(bundle.networks)), "network_def")
            yield note("network-unknown", location, "it hangs on the data, so that it was not tried", "Train it first.")
        return
    data_format = mapping(bundle.metadata.get("network_data_format"))
    image = mapping(mapping(data_format.get("inputs")).get("image"))
    output = mapping(mapping(data_format.get("outputs")).get("pred"))
    where = bundle.location(METADATA, "network_data_format")
    location = bundle.location(list(bundle.networks)[-1], "network_def")
    if not isinstance(network, torch.nn.Module):
        yield error("network-fails", location, f"it is a {type(network).__name__} and no network", "Correct it.")
    elif isinstance(image.get("num_channels"), int) and isinstance(image.get("spatial_shape"), list):
        try:
            yield from _forward(network, image, output, where)
        except ImportError as fault:
            yield error("network-fails", location, f"it cannot be run: {cause(fault)}", "Install what it needs.")


def _forward(
    network: torch.nn.Module, image: Mapping[str, Any], output: Mapping[str, Any], where: str
) -> Iterator[Finding]:
    said, why = image["spatial_shape"], ""
    for number, (n, p) in enumerate(_TRIES):
        try:
            shape = [size_of(one, n, p) for one in said]
        except ValueError as fault:
            yield error("network-shape", f"{where}#inputs#image#spatial_shape", str(fault), "Write 96, '*' or '8*n'.")
            return
        try:
            given = run(network, (1, image["num_channels"], *shape), image.get("dtype"))
        except ImportError:
            raise
        except Exception as fault:  # whatever a network does with what does not fit
            why = why or f"{cause(fault)} (with {'x'.join(map(str, shape))})"
            if number + 1 == len(_TRIES) or not any(isinstance(one, str) for one in said):
                yield error(
                    "network-shape",
                    f"{where}#inputs#image",
                    f"the network does not take {image['num_channels']} channels of {said}: {why}",
                    "Say what it takes.",
                )
                return
            continue
        if why:
            yield warning(
                "network-shape",
                f"{where}#inputs#image#spatial_shape",
                f"{said} holds for {shape} and larger alone: {why}",
                "Say what the smallest is, such as '16*n'.",
            )
        shape_out = output.get("spatial_shape", said)
        try:
            wanted = [size_of(one, n, p) for one in shape_out] if isinstance(shape_out, list) else None
        except ValueError as fault:
            yield error("network-shape", f"{where}#outputs#pred#spatial_shape", str(fault), "Write 96, '*' or '8*n'.")
            wanted = None
        yield from _held(given, output, wanted, where)
        return


def _held(given: Any, output: Mapping[str, Any], shape: Sequence[int] | None, where: str) -> Iterator[Finding]:
    found = next(_tensors(given), None)
    if found is None:
        yield error("network-shape", f"{where}#outputs", "the network gives no tensor", "Correct it.")
        return
    channels, dtype = output.get("num_channels"), output.get("dtype")
    if isinstance(channels, int) and found.shape[1] != channels:
        yield error(
            "network-channels",
            f"{where}#outputs#pred#num_channels",
            f"it says {channels}, and the network gives {found.shape[1]}",
            "One of them is wrong.",
        )
    if shape is not None and list(found.shape[2:]) != list(shape):
        yield error(
            "network-shape",
            f"{where}#outputs#pred#spatial_shape",
            f"it says {list(shape)}, and the network gives {list(found.shape[2:])}",
            "Say what it gives.",
        )
    if isinstance(dtype, str) and str(found.dtype) != f"torch.{dtype}" and not dtype.startswith("float16"):
        yield error(
            "network-dtype",
            f"{where}#outputs#pred#dtype",
            f"it says {dtype}, and the network gives {found.dtype}",
            "Say what it gives.",
        )


def size_of(said: Any, n: int = 1, p: int = 1) -> int:
    """The size of an axis that `spatial_shape` gives as a number, as `*`, or as an expression of `n` and `p`.

    Raises:
        ValueError: it is none of these, or no size.

    >>> size_of(96), size_of("8*n", n=2), size_of("2**p * n", n=3, p=4), size_of("*")
    (96, 16, 48, 64)
    """
    try:
        size = said if isinstance(said, int) else _ANY if said == "*" else _evaluate(said, {"n": n, "p": p})
    except (SyntaxError, TypeError, KeyError, ZeroDivisionError, RecursionError) as fault:
        raise ValueError(f"'{said}' is no size") from fault
    if not 0 < size <= _LARGEST:
        raise ValueError(f"'{said}' is {size}, and no size of an axis")
    return int(size)


def _evaluate(said: str, names: Mapping[str, int]) -> int:
    def value(node: ast.AST) -> int:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.Name):
            return names[node.id]
        if isinstance(node, ast.BinOp):
            left, right = value(node.left), value(node.right)
            if abs(left) > _LARGEST or abs(right) > (16 if isinstance(node.op, ast.Pow) else _LARGEST):
                raise KeyError(said)
            return int(_OPERATORS[type(node.op)](left, right))
        raise KeyError(said)

    return value(ast.parse(said, mode="eval").body)


@torch.no_grad()
def run(network: torch.nn.Module, shape: Sequence[int], dtype: str | None = None) -> Any:
    """What a network gives for zeros of a shape; of large ones shapes and types alone, without computing."""
    wanted = getattr(torch, str(dtype), torch.float32)
    wanted = wanted if isinstance(wanted, torch.dtype) and wanted.is_floating_point else torch.float32
    wanted = torch.float32 if wanted in {torch.float16, torch.bfloat16} else wanted
    training = network.training
    try:
        if torch.Size(shape).numel() > _REAL:
            with contextlib.suppress(Exception):  # some networks look at values; others fail below, too
                return copy.deepcopy(network).to("meta").eval()(torch.zeros(*shape, dtype=wanted, device="meta"))
        device = next((one.device for one in network.parameters()), torch.device("cpu"))
        return network.eval()(torch.zeros(*shape, dtype=wanted, device=device))
    finally:
        network.train(training)


def _tensors(given: Any) -> Iterator[torch.Tensor]:
    if isinstance(given, torch.Tensor):
        yield given
    elif isinstance(given, Mapping):
        for one in given.values():
            yield from _tensors(one)
    elif isinstance(given, list | tuple):
        for one in given:
            yield from _tensors(one)
