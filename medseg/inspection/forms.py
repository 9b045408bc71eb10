"""Compute the expressions of a config that are pure: arithmetic, choices, parts of lists. Python's eval is not used.

What an expression may come to is a number, a text, a list or a dictionary of these, a label map, the name of a type of
numbers, or a reference to another key. Sizes are limited as they grow, so that no expression takes long.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medseg.config.references import LONGEST, parse
from medseg.labels import LabelMap

LARGEST = 2**64
LONGEST_LIST = 10_000
_LARGEST_EXPONENT = 64
_DTYPES = {
    *("float16", "float32", "float64", "bfloat16", "bool"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"),
}
_OPERATORS: Mapping[type[ast.AST], Callable[..., Any]] = {
    **{ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv},
    **{ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow},
    **{ast.USub: operator.neg, ast.UAdd: operator.pos, ast.Not: operator.not_},
    **{ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le},
    **{ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Is: operator.is_, ast.IsNot: operator.is_not},
    **{ast.In: lambda a, b: a in b, ast.NotIn: lambda a, b: a not in b},
}


class Refusal(Exception):  # noqa: N818 - a reason, not an error
    """Why something does not run without trust."""


class Dtype(str):
    """The name of a type of numbers, such as `torch.float32`."""

    __slots__ = ()


class Device(str):
    """The name of a device, such as `cuda:0`."""

    __slots__ = ()

    @property
    def type(self) -> str:
        """The kind of device."""
        return self.partition(":")[0]


def is_plain(value: Any) -> bool:
    """Return True for a value that is made of numbers, texts, label maps and names alone."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(entry) for key, entry in value.items())
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | LabelMap)


def weight(value: Any) -> int:
    """Return how many values are in a value, each as often as it is shared; not counted on from `LONGEST_LIST`.

    Example:
        >>> row = [1, 2]
        >>> weight([row, row]), weight("text")
        (7, 1)
    """
    count, waiting = 0, [value]
    while waiting and count < LONGEST_LIST:
        entry = waiting.pop()
        count += 1
        if isinstance(entry, Mapping):
            waiting.extend(entry.values())
        elif isinstance(entry, list | tuple):
            waiting.extend(entry)
    return count + len(waiting)


def limited(value: Any) -> Any:
    """Return a value that is not too large.

    Raises:
        Refusal: it is.
    """
    if isinstance(value, int) and abs(value) > LARGEST:
        raise Refusal("a number in it is too large")
    if isinstance(value, str) and len(value) > LONGEST:
        raise Refusal(f"a text in it has more than {LONGEST} characters")
    if isinstance(value, Sequence) and len(value) > LONGEST_LIST:
        raise Refusal(f"a list in it has more than {LONGEST_LIST} entries")
    return value


class Evaluator:
    """Compute one expression.

    Args:
        look_up: returns the value of a path that the expression refers to.
        count: called with the steps taken; raises `Refusal` where they are too many.
        trained_labels: returns the label map that came with the weights.
    """

    def __init__(
        self, look_up: Callable[[str], Any], count: Callable[[int], None], trained_labels: Callable[[Any], LabelMap]
    ) -> None:
        self.look_up, self.count, self.trained_labels = look_up, count, trained_labels
        self.names: Mapping[str, str] = {}

    def evaluate(self, text: str) -> Any:
        """Return what an expression with its `$` comes to.

        Raises:
            Refusal: it has a form that is not on the list.
        """
        if len(text) > LONGEST:
            raise Refusal(f"it has more than {LONGEST} characters")
        tree, self.names = parse(text)
        if not isinstance(tree, ast.expr):
            raise Refusal("it is an import, or no expression of Python")
        if any(isinstance(node, ast.Constant) and "_reference_" in str(node.value) for node in ast.walk(tree)):
            raise Refusal("it refers to a key within a text")
        try:
            return self._value(tree)
        except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError, MemoryError) as problem:
            raise Refusal(f"it cannot be computed: {type(problem).__name__}") from problem

    def _value(self, node: ast.AST) -> Any:
        self.count(1)
        match node:
            case ast.Constant(value=bool() | int() | float() | str() | None as value):
                return limited(value)
            case ast.Name(id=name) if name in self.names:
                return self.look_up(self.names[name])
            case ast.List(elts=entries):
                return [self._value(entry) for entry in entries]
            case ast.Tuple(elts=entries):
                return tuple(self._value(entry) for entry in entries)
            case ast.Dict(keys=keys, values=values) if all(isinstance(key, ast.Constant) for key in keys):
                return {str(key.value): self._value(value) for key, value in zip(keys, values, strict=True)}  # type: ignore[union-attr]
            case ast.UnaryOp(op=kind, operand=operand):
                return limited(_OPERATORS[type(kind)](_number(self._value(operand), isinstance(kind, ast.Not))))
            case ast.BinOp(left=left, op=kind, right=right):
                return self._binary(type(kind), self._value(left), self._value(right))
            case ast.BoolOp(op=kind, values=values):
                value = None
                for entry in values:
                    value = self._value(entry)
                    if bool(value) is isinstance(kind, ast.Or):
                        break
                return value
            case ast.Compare(left=left, ops=kinds, comparators=others):
                return self._compare(self._value(left), kinds, others)
            case ast.IfExp(test=test, body=body, orelse=other):
                return self._value(body if self._value(test) else other)
            case ast.Subscript(value=holder, slice=ast.Slice(lower=lower, upper=upper, step=step)):
                bounds = [None if bound is None else self._value(bound) for bound in (lower, upper, step)]
                return _holder(self._value(holder))[slice(*bounds)]
            case ast.Subscript(value=holder, slice=key):
                return _holder(self._value(holder))[self._value(key)]
            case ast.Attribute():
                return self._attribute(node)
            case ast.Call(func=function, args=arguments, keywords=[]):
                return self._call(function, arguments)
        raise Refusal(f"it holds a {type(node).__name__}, which is not among what runs without trust")

    def _binary(self, kind: type[ast.AST], left: Any, right: Any) -> Any:
        if kind is ast.Add and type(left) is type(right) and isinstance(left, str | list | tuple):
            return limited(left + right)
        if kind is ast.Mult and any(isinstance(side, list | tuple) for side in (left, right)):
            entries, times = (left, right) if isinstance(left, list | tuple) else (right, left)
            if not isinstance(times, int) or len(entries) * times > LONGEST_LIST:
                raise Refusal("a list in it is repeated too often")
            self.count(weight(entries * times))
            return entries * times
        left, right = _number(left), _number(right)
        if kind is ast.Pow and (abs(right) > _LARGEST_EXPONENT or abs(left) > LARGEST):
            raise Refusal("a power in it is too large")
        if kind not in (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow):
            raise Refusal(f"it holds a {kind.__name__}, which is not among what runs without trust")
        return limited(_OPERATORS[kind](left, right))

    def _compare(self, left: Any, kinds: Sequence[ast.cmpop], others: Sequence[ast.expr]) -> bool:
        for kind, node in zip(kinds, others, strict=True):
            right = self._value(node)
            if not (is_plain(left) and is_plain(right)):
                raise Refusal("it compares components")
            if not _OPERATORS[type(kind)](left, right):
                return False
            left = right
        return True

    def _attribute(self, node: ast.Attribute) -> Any:
        name = dotted(node)
        head, _, last = name.rpartition(".")
        if head in ("torch", "np", "numpy") and last in _DTYPES:
            return Dtype(f"{'torch' if head == 'torch' else 'numpy'}.{last}")
        value = self._value(node.value)
        if isinstance(value, Device) and node.attr == "type":
            return value.type
        raise Refusal(f"it takes '.{node.attr}', which is not among what runs without trust")

    def _call(self, function: ast.expr, nodes: Sequence[ast.expr]) -> Any:
        name = dotted(function)
        if isinstance(function, ast.Attribute) and function.attr == "num_channels":
            labels, arguments = self._value(function.value), [self._value(node) for node in nodes]
            if isinstance(labels, LabelMap) and all(isinstance(entry, bool) for entry in arguments):
                return labels.num_channels(*arguments)
        elif name == "medseg.data.choose_labels" and len(nodes) > 1:
            return self.trained_labels(self._value(nodes[1]))
        elif name in ("len", "torch.device", "medseg.LabelMap", "medseg.LabelMap.totalsegmentator") and len(nodes) == 1:
            argument = self._value(nodes[0])
            if name == "torch.device":
                return Device(argument) if isinstance(argument, str) else argument
            if name == "len":
                return len(argument)
            labels = LabelMap(argument) if name == "medseg.LabelMap" else LabelMap.totalsegmentator(argument)
            self.count(len(labels))
            return labels
        raise Refusal(f"it calls '{name or ast.unparse(function)[:40]}', which is not among what runs without trust")


def dotted(node: ast.AST) -> str:
    """Return a chain of names such as `torch.float32`; empty for any other node."""
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else ""
    return node.id if isinstance(node, ast.Name) else ""


def _number(value: Any, anything: bool = False) -> Any:
    if anything or isinstance(value, bool | int | float):
        return value
    raise Refusal(f"it computes with a {type(value).__name__}")


def _holder(value: Any) -> Any:
    if isinstance(value, list | tuple | dict | str):
        return value
    raise Refusal(f"it takes a part of a {type(value).__name__}")
