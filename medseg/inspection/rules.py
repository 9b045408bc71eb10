"""Check the arguments of callables that are harmless only with some: `scripts/allowlist.py` has the rules.

What has rules may be named by `_target_` alone, because an expression could hand it anything, unless its positional
arguments are listed too.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from medseg.config.references import references
from medseg.inspection.allowlist import EVERY_CALLABLE, argument_rules, canonical_name, positional_arguments
from medseg.inspection.expressions import Refusal, parse_expression, referenced_path
from medseg.inspection.merged_configs import Entry, MergedConfigs, target_path
from medseg.inspection.write_targets import WriteTargets

# The kinds of arguments, as the rules name them.
PATH, NAME, EXTENSION, NOTHING, FALSE, BOOLEAN = "path", "name", "extension", "nothing", "false", "boolean"
READER, MERGER, WRITER, BACKEND, CONFIG = "reader", "merger", "writer", "backend", "config"
ADDRESS, TRACKER, COMPILE, VARIANT = "address", "tracker", "compile", "variant"
RUN, OPTIONS = "run", "options"
_READERS = {"ITKReader", "NibabelReader", "NrrdReader", "NumpyReader", "PILReader", "PydicomReader"}
_VOLUME_READER = "medseg.data.VolumeReader"
_READER_CLASSES = {_VOLUME_READER, *(f"monai.data.{name}" for name in _READERS)}
_CHOICES: Mapping[str, set[Any]] = {
    NOTHING: {None, "", False},
    FALSE: {False, None},
    BOOLEAN: {True, False, None},
    READER: {
        *(None, _VOLUME_READER, *_READERS),
        *(name.lower() for name in _READERS),
        *(f"monai.data.{name}" for name in _READERS),
    },
    MERGER: {"AvgMerger"},
    WRITER: {None, "ITKWriter", "NibabelWriter", "PILWriter"},
    BACKEND: {"nccl", "gloo", "mpi"},
    CONFIG: {"train", "evaluate", "inference"},
}
_DESCRIBED = {NOTHING: "left out", FALSE: "false", BOOLEAN: "true or false"}
SERVER_MESSAGE = "the run would be told to '{}', with the key that is stored for W&B"
_UNKNOWN = "what it comes to cannot be worked out"
_COMPILE_OPTIONS = {"dynamic", "fullgraph", "mode"}
_COMPILE_MODES = (None, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
_SEGFORMER_OPTIONS = {
    *("num_encoder_blocks", "depths", "sr_ratios", "hidden_sizes", "patch_sizes", "strides", "num_attention_heads"),
    *("mlp_ratios", "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range"),
    *("layer_norm_eps", "decoder_hidden_size"),
}


def has_rules(name: str) -> bool:
    """Return True if the callable of that canonical name has rules."""
    return name in argument_rules()


class Rules:
    """Check arguments against the rules.

    Args:
        configs: the configs.
        targets: works out where they write.
        report_address: called with a message for each address that an argument would send something to.
    """

    def __init__(self, configs: MergedConfigs, targets: WriteTargets, report_address: Callable[[str], None]) -> None:
        self.configs = configs
        self.targets = targets
        self.report_address = report_address

    def component_problems(self, name: str, path: str) -> dict[str, str]:
        """Return what is wrong with the arguments of a component, by their location; overlays count too.

        Args:
            name: the canonical name of its class.
            path: where the component is.
        """
        problems = {}
        for argument, kind in {**argument_rules()[EVERY_CALLABLE], **argument_rules().get(name, {})}.items():
            for entry in self.configs.at(f"{path}#{argument}"):
                if kind in (TRACKER, COMPILE, VARIANT, OPTIONS):
                    problem = self._mapping_problem(kind, entry)
                else:
                    problem = self._problem(kind, entry.value, entry.path)
                if problem is not None:
                    problems[entry.location] = f"{name}: {argument}: {problem}"
        return problems

    def check_call(self, name: str, node: ast.Call | None) -> None:
        """Check a call of a callable with rules within an expression.

        Raises:
            Refusal: it is not called, or an argument is not allowed.
        """
        positional = positional_arguments().get(name)
        if node is None or positional is None:
            raise Refusal(f"{name} may be named by _target_ alone")
        unpacked = any(isinstance(argument, ast.Starred) for argument in node.args)
        if unpacked or any(keyword.arg is None for keyword in node.keywords):
            raise Refusal(f"the arguments of {name} are only known when it runs")
        if len(node.args) > len(positional):
            raise Refusal(f"{name} takes {', '.join(positional)} by position, and the others by name")
        arguments = dict(zip(positional, node.args, strict=False))
        arguments |= {str(keyword.arg): keyword.value for keyword in node.keywords}
        for argument, kind in argument_rules()[name].items():
            problem = self._problem(kind, arguments[argument]) if argument in arguments else None
            if problem is not None:
                raise Refusal(f"{name}: {argument}: {problem}")

    def _problem(self, kind: str, value: Any, path: str = "") -> str | None:
        """Return why a value, as it is at a path of a config or a node of an expression, is not allowed, or None."""
        if kind == PATH:
            return self.targets.path_problem(value)
        if kind == RUN:  # whatever it is, the handlers write to its folder
            refers = isinstance(value, str) and value.startswith("@")
            return self.targets.path_problem(f"${value}.folder") if refers else "it must refer to what start_run gave"
        if kind in (NAME, EXTENSION):
            return self.targets.name_problem(value, kind == EXTENSION)
        if kind == ADDRESS:
            return self._address_problem(value, "it would keep a copy at '{}'")
        return self._choice_problem(kind, value, path)

    def _address_problem(self, value: Any, message: str) -> str | None:
        """Report the addresses that a value comes to; return a problem if these cannot be worked out."""
        addresses = self.targets.texts(value)
        if addresses is None:
            return "the address that it would send to cannot be worked out"
        for address in addresses:
            self.report_address(message.format(address))
        return None

    def _mapping_problem(self, kind: str, entry: Entry, depth: int = 0) -> str | None:
        """Return why a dictionary of options is not allowed; it must be written in the config as it is."""
        value = entry.value
        if value is None or (kind == VARIANT and isinstance(value, str) and value[:1] not in ("$", "@", "%")):
            return None
        if kind == OPTIONS and isinstance(value, bool):
            return None
        path = target_path(value)
        if path is not None and depth < 8:
            return _first_problem(self._mapping_problem(kind, target, depth + 1) for target in self.configs.at(path))
        # A component that makes the dictionary, such as copy.deepcopy, would hide what is in it.
        if not isinstance(value, dict) or self.configs.at(f"{entry.path}#_target_"):
            return "it must be written in the config as it is"
        if kind == OPTIONS:
            return None  # each of them that matters has a rule of its own
        if kind == TRACKER:
            # A server of the bundle's would be told of the run, and get the key that is stored for W&B.
            servers = self.configs.at(f"{entry.path}#base_url")
            problems = [self._address_problem(server.value, SERVER_MESSAGE) for server in servers]
            return next((problem for problem in problems if problem), None)
        allowed = _COMPILE_OPTIONS if kind == COMPILE else _SEGFORMER_OPTIONS
        for path in self.configs.children.get(entry.path, ()):
            values = [option.value for option in self.configs.at(path)]
            plain = kind == VARIANT or all(option in _COMPILE_MODES or isinstance(option, bool) for option in values)
            if path.rpartition("#")[2] not in allowed or not plain:
                return f"only {', '.join(sorted(allowed))} may be given"
        return None

    def _choice_problem(self, kind: str, value: Any, path: str = "", depth: int = 0) -> str | None:
        """Return why a value is none of the choices of a kind.

        Args:
            kind: of the argument.
            value: as it is in a config, or a node of an expression.
            path: where it is in a config. What overlays change below it counts, too.
            depth: how many references led to it.
        """
        if depth > 8:
            return _UNKNOWN
        refusal = f"it must be {_described(kind)}"
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            # Text in quotes, whatever its first letter would mean in a config.
            return None if value.value in _CHOICES[kind] else refusal
        target = referenced_path(value) if isinstance(value, ast.AST) else target_path(value)
        if target is not None and (isinstance(value, ast.AST) or value[0] == "%" or references(value)):
            return _first_problem(self._choice_problems(kind, target, depth))
        if isinstance(value, ast.Constant):
            value = value.value
        below = self.configs.children.get(path, ()) if path else ()
        if kind == READER:
            if isinstance(value, list):
                problems = [problem for child in below for problem in self._choice_problems(kind, child, depth)]
                return next((problem for problem in problems if problem), None)
            if self._is_reader(value, path):
                return None
        if isinstance(value, (str, int, float, bool, type(None))) and value in _CHOICES[kind]:
            return None
        return None if kind == NOTHING and value in ({}, []) and not below else refusal

    def _choice_problems(self, kind: str, path: str, depth: int) -> list[str | None]:
        return [self._choice_problem(kind, entry.value, entry.path, depth + 1) for entry in self.configs.at(path)]

    def _is_reader(self, value: Any, path: str) -> bool:
        """Return True for a reader that is made in the config, or the class of one."""
        names: list[str | None] = []
        if isinstance(value, dict):
            names = [canonical_name(str(entry.value)) for entry in self.configs.at(f"{path}#_target_")]
        elif isinstance(value, str) and value.startswith("$"):
            try:
                names = [self.targets.judge.callable_name(parse_expression(value))]
            except Refusal:
                return False
        return bool(names) and all(name in _READER_CLASSES for name in names)


def _first_problem(problems: Iterable[str | None]) -> str | None:
    """Return the first problem of what a reference leads to; one that leads to nothing is a problem too."""
    alternatives = list(problems)
    return next((problem for problem in alternatives if problem), None if alternatives else _UNKNOWN)


def _described(kind: str) -> str:
    choices = sorted(str(choice) for choice in _CHOICES[kind] if choice is not None)
    return _DESCRIBED.get(kind, "one of " + ", ".join(choices[:8]))
