"""Callables that are harmless only with some arguments: which, and what the arguments may be.

What stands here may be named by `_target_` alone, because an expression could hand it anything, unless its positional
arguments are listed too.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medseg.inspection.expressions import Refusal, parsed, reference
from medseg.inspection.known import known
from medseg.inspection.places import Places
from medseg.inspection.references import macro, referred
from medseg.inspection.universe import Entry, Universe

PLACE, NAME, EXTENSION, NOTHING, NO, YES_OR_NO = "place", "name", "extension", "nothing", "no", "yes or no"
READER, MERGER, WRITER, BACKEND, CONFIG = "reader", "merger", "writer", "backend", "config"
ADDRESS, SETTINGS, COMPILE, VARIANT = "address", "settings", "compile", "variant"
_READERS = {"ITKReader", "NibabelReader", "NrrdReader", "NumpyReader", "PILReader", "PydicomReader"}
_CHOICES: Mapping[str, set[Any]] = {
    NOTHING: {None, "", False},
    NO: {False, None},
    YES_OR_NO: {True, False, None},
    READER: {None, *_READERS, *(name.lower() for name in _READERS), *(f"monai.data.{name}" for name in _READERS)},
    MERGER: {"AvgMerger"},
    WRITER: {None, "ITKWriter", "NibabelWriter", "PILWriter"},
    BACKEND: {"nccl", "gloo", "mpi"},
    CONFIG: {"train", "evaluate", "inference"},
}
_COMPILING = {"dynamic", "fullgraph", "mode"}
_SEGFORMER = {
    *("num_encoder_blocks", "depths", "sr_ratios", "hidden_sizes", "patch_sizes", "strides", "num_attention_heads"),
    *("mlp_ratios", "hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range"),
    *("layer_norm_eps", "decoder_hidden_size"),
}
_MODES = (None, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
_SAVED = {
    "output_dir": PLACE,
    "output_postfix": NAME,
    "output_ext": EXTENSION,
    "output_format": EXTENSION,
    "writer": WRITER,
}
_IMAGE = {**_SAVED, "data_root_dir": NOTHING, "folder_layout": NOTHING, "output_name_formatter": NOTHING}
_ENGINE = {"compile_kwargs": COMPILE}
_READ = {"reader": READER, "allow_pickle": NO}
_CKPT = {"save_dir": PLACE, "name": NAME, "file_prefix": NAME, "final_filename": NAME, "key_metric_filename": NAME}
_CKPT["key_metric_name"] = NAME
RULES: Mapping[str, Mapping[str, str]] = {
    "medseg.bundle.SavePredictions": {"folder": PLACE},
    "medseg.bundle.SaveSlices": {"folder": PLACE},
    "medseg.bundle.start_run": {
        **dict.fromkeys(("root", "output_dir"), PLACE),
        **{"resume": YES_OR_NO, "config": CONFIG, "backup": ADDRESS},
    },
    "medseg.data.open_dataset": {"cache_dir": PLACE},
    "medseg.monitoring.Histograms": {"folder": PLACE},
    "medseg.monitoring.History": {"folder": PLACE},
    "medseg.monitoring.Monitor": {"folder": PLACE, "settings": SETTINGS},
    "medseg.monitoring.Previews": {"folder": PLACE},
    "medseg.monitoring.SaveScores": {"path": PLACE},
    "medseg.monitoring.System": {"folder": PLACE},
    "medseg.monitoring.Tracking": {"output_dir": PLACE, "settings": SETTINGS},
    "medseg.networks.SegFormer": {"variant": VARIANT},
    "medseg.open_dataset": {"cache_dir": PLACE},
    "medseg.training.Checkpoints": {"folder": PLACE, "model_path": PLACE, "backup": ADDRESS},
    "medseg.training.NanGuard": {"folder": PLACE},
    "monai.data.ImageDataset": _READ,
    "monai.data.NumpyReader": {"allow_pickle": NO},
    "monai.engines.SupervisedEvaluator": _ENGINE,
    "monai.engines.SupervisedTrainer": _ENGINE,
    "monai.handlers.CheckpointSaver": _CKPT,
    "monai.handlers.ClassificationSaver": {"output_dir": PLACE, "filename": NAME, "saver": NOTHING},
    "monai.handlers.LogfileHandler": {"output_dir": PLACE, "filename": NAME},
    "monai.handlers.MetricsSaver": {"save_dir": PLACE, "output_type": NAME},
    "monai.handlers.TensorBoardHandler": {"log_dir": PLACE},
    "monai.handlers.TensorBoardImageHandler": {"log_dir": PLACE},
    "monai.handlers.TensorBoardStatsHandler": {"log_dir": PLACE},
    "monai.inferers.PatchInferer": {"merger_cls": MERGER},
    "monai.networks.nets.HoVerNet": {"pretrained_url": NOTHING},
    "monai.transforms.LoadImage": _READ,
    "monai.transforms.LoadImaged": _READ,
    "monai.transforms.SaveImage": _IMAGE,
    "monai.transforms.SaveImaged": _IMAGE,
    "pathlib.Path": {},  # its methods move files: no value, whose methods could be called with any object
    "torch.distributed.init_process_group": {
        "backend": BACKEND,
        **dict.fromkeys(("init_method", "store", "pg_options"), NOTHING),
    },
}
# Whatever it is called with, whoever is called.
ANYWHERE = {"_debug_": NOTHING, "allow_pickle": NO, "pickle_module": NOTHING, "pretrained_url": NOTHING}
POSITIONAL: Mapping[str, Sequence[str]] = {
    "medseg.bundle.start_run": ["root", "output_dir", "dataset", "labels", "name", "resume", "config", "backup"],
    "medseg.data.open_dataset": ["root", "labels", "cache_dir"],
    "pathlib.Path": [f"part {number}" for number in range(8)],
    "torch.distributed.init_process_group": ["backend"],
}


def ruled(name: str) -> bool:
    """Whether a known callable has rules."""
    return name in RULES


class Rules:
    """Holds arguments against the rules.

    Args:
        universe: the configs.
        places: works out where they write.
        sends: called with what an argument says when it would send things elsewhere.
    """

    def __init__(self, universe: Universe, places: Places, sends: Callable[[str], None]) -> None:
        self.universe, self.places, self.sends = universe, places, sends

    def component(self, name: str, path: str) -> dict[str, str]:
        """What is wrong with the arguments of a component at a path, by the place of each, overlays included."""
        faults = {}
        for argument, kind in {**ANYWHERE, **RULES.get(name, {})}.items():
            for entry in self.universe.at(f"{path}::{argument}"):
                if kind in (SETTINGS, COMPILE, VARIANT):
                    why = self._mapping(kind, entry)
                else:
                    why = self.fault(kind, entry.value)
                if why is not None:
                    faults[entry.location] = f"{name}: {argument}: {why}"
        return faults

    def call(self, name: str, node: ast.Call | None) -> None:
        """Hold a call within an expression against the rules.

        Raises:
            Refusal: it is no call, or an argument is not allowed.
        """
        if node is None or name not in POSITIONAL:
            raise Refusal(f"{name} may be named by _target_ alone")
        if any(isinstance(one, ast.Starred) for one in node.args) or any(one.arg is None for one in node.keywords):
            raise Refusal(f"the arguments of {name} are only known when it runs")
        if len(node.args) > len(POSITIONAL[name]):
            raise Refusal(f"{name} takes {', '.join(POSITIONAL[name])} by position, and the others by name")
        given = dict(zip(POSITIONAL[name], node.args, strict=False)) | {
            str(one.arg): one.value for one in node.keywords
        }
        for argument, kind in RULES[name].items():
            why = self.fault(kind, given[argument]) if argument in given else None
            if why is not None:
                raise Refusal(f"{name}: {argument}: {why}")

    def fault(self, kind: str, value: Any, depth: int = 0) -> str | None:
        """Why a value is not allowed; None where it is.

        Args:
            kind: what an argument of that kind may be.
            value: as it stands in a config, or a node of an expression.
            depth: how many references were followed.
        """
        if kind == PLACE:
            return self.places.fault(value)
        if kind in (NAME, EXTENSION):
            return self.places.name_fault(value, kind == EXTENSION)
        if kind == ADDRESS:
            return self._address(value)
        return self._choice(kind, value, depth)

    def _address(self, value: Any) -> str | None:
        found = self.places.texts(value)
        if found is None:
            return "where it would send a copy cannot be worked out"
        for text in found:
            self.sends(f"it would keep a copy at '{text}'")
        return None

    def _mapping(self, kind: str, entry: Entry, depth: int = 0) -> str | None:
        """Why a dictionary of settings is not allowed; it has to stand in the config as it is."""
        value = entry.value
        if value is None or (kind == VARIANT and isinstance(value, str) and value[:1] not in ("$", "@", "%")):
            return None
        if isinstance(value, str) and value[:1] in ("@", "%") and depth < 8:
            found = self.universe.at(macro(value)[1] if value[0] == "%" else value[1:])
            whys = [self._mapping(kind, one, depth + 1) for one in found]
            return next((why for why in whys if why), None if found else "what it comes to cannot be worked out")
        if not isinstance(value, dict):
            return "it must stand in the config as it is"
        if kind == SETTINGS:
            return self._settings(entry)
        known_keys = _COMPILING if kind == COMPILE else _SEGFORMER
        for path in self.universe.below.get(entry.path, ()):
            key, values = path.rpartition("::")[2], [one.value for one in self.universe.at(path)]
            plain = kind == VARIANT or all(one in _MODES or isinstance(one, bool) for one in values)
            if key not in known_keys or not plain:
                return f"{', '.join(sorted(known_keys))} may be given"
        return None

    def _settings(self, entry: Entry) -> str | None:
        """A server of its own would be told of the run, and get the key that is stored for W&B."""
        for one in self.universe.at(f"{entry.path}::base_url"):
            found = self.places.texts(one.value)
            if found is None:
                return "the server that would be told of the run cannot be worked out"
            for url in found:
                self.sends(f"the run would be told to '{url}', with the key that is stored for W&B")
        return None

    def _choice(self, kind: str, value: Any, depth: int) -> str | None:
        if depth > 8:
            return "what it comes to cannot be worked out"
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            return None if kind in _CHOICES and value.value in _CHOICES[kind] else f"must be {_said(kind)}"
        path = reference(value) if isinstance(value, ast.AST) else None
        if isinstance(value, str) and value[:1] in ("@", "%") and (value[0] == "%" or referred(value)):
            path = macro(value)[1] if value[0] == "%" else value[1:]
        if path is not None:
            entries = self.universe.at(path)
            whys = [self._choice(kind, entry.value, depth + 1) for entry in entries]
            return next((why for why in whys if why), None if entries else "what it comes to cannot be worked out")
        if isinstance(value, ast.Constant):
            value = value.value
        if kind == READER:
            if isinstance(value, list):
                return next((why for why in (self._choice(kind, one, depth + 1) for one in value) if why), None)
            if _is_reader(value, self.places):
                return None
        if isinstance(value, (str, int, float, bool, type(None))) and value in _CHOICES[kind]:
            return None
        if kind == NOTHING and value in ({}, []):
            return None
        return f"must be {_said(kind)}"


def _is_reader(value: Any, places: Places) -> bool:
    """Whether it is a reader that was made in the config, or the class of one."""
    name: str | None = None
    if isinstance(value, dict):
        name = known(str(value.get("_target_")))
    elif isinstance(value, str) and value.startswith("$"):
        try:
            name = known(places.expression.dotted(parsed(value)) or "")
        except Refusal:
            return False
    return name is not None and name.startswith("monai.data.") and name.rpartition(".")[2] in _READERS


def _said(kind: str) -> str:
    return {NOTHING: "left out", NO: "false", YES_OR_NO: "true or false"}.get(
        kind, "one of " + ", ".join(sorted(str(one) for one in _CHOICES[kind] if one is not None)[:8])
    )
