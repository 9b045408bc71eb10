"""Check the weights: every tensor of the network, in its shape, finite, the same in all files, and loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from medseg.bundle.verify.bundle_files import BundleFiles, UnknownValueError
from medseg.bundle.verify.files import WEIGHTS
from medseg.config.paths import has, walk
from medseg.errors import WeightsError
from medseg.findings import Finding, error
from medseg.networks.weights import read_weights, require_fit

State = Mapping[str, torch.Tensor]
_BEST = "checkpoints/best.pt"
_LOADING = re.compile(r"load_weights|load_state_dict|CheckpointLoader|torch\.(jit\.)?load|\.load\(|load_net")
_MUST_AGREE = ("multilabel", "context")  # arguments of the inferer that must be those of the config


def check_weights(bundle: BundleFiles) -> Iterator[Finding]:
    """Find weights that are damaged, not finite, do not fit the network, or differ between files."""
    states: dict[str, State] = {}
    for name in WEIGHTS:
        path = bundle.root / name
        if not path.is_file():
            continue
        try:
            states[name] = state = read_weights(path)
        except WeightsError as problem:
            yield error("weights-damaged", name, problem.reason, problem.fix)
            continue
        if isinstance(bundle.network, torch.nn.Module):  # where it is none, the rule on the network says why
            try:
                require_fit(bundle.network, state, path, None)
            except WeightsError as problem:
                yield error("weights-fit", name, problem.reason, problem.fix)
        broken = [key for key, value in state.items() if not bool(torch.isfinite(value).all())]
        if broken:
            message = f"{len(broken)} tensors hold NaN or infinity ({', '.join(broken[:2])})"
            yield error("weights-not-finite", name, message, "Use weights from before the training went wrong.")
    if len(states) == 2 and not _equal(*states.values()):
        message = f"its weights are not those of {WEIGHTS[0]}"
        yield error("weights-differ", WEIGHTS[1], message, "Keep the file you mean, and delete the other.")
    yield from _exchanged(bundle, states)


def _exchanged(bundle: BundleFiles, states: Mapping[str, State]) -> Iterator[Finding]:
    """Compare a run's weights with its best checkpoint: where they differ, one of the files was replaced."""
    if WEIGHTS[0] not in states or not bundle.is_run or not (bundle.root / _BEST).is_file():
        return
    try:
        best = read_weights(bundle.root / _BEST)
    except WeightsError:
        return
    if not _equal(best, states[WEIGHTS[0]]):
        message = f"its weights are not those of {_BEST} of the same run"
        yield error("weights-exchanged", WEIGHTS[0], message, "Take those of the checkpoint, or train again.")


def _equal(first: State, second: State) -> bool:
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


def check_loading(bundle: BundleFiles) -> Iterator[Finding]:
    """Find an evaluate.json or inference.json that does not load the weights, or contradicts its inferer."""
    for config in ("evaluate", "inference"):
        if config not in bundle.configs:
            continue
        content = bundle.expanded(config)
        if any((bundle.root / name).is_file() for name in WEIGHTS):
            yield from _not_loaded(bundle, config, content)
        for key in _MUST_AGREE:
            path = f"inferer#{key}"
            if not (has(content, path) and has(content, key)):
                continue
            expected, value = _value(bundle, config, key), _value(bundle, config, path)
            if expected is not None and value is not None and expected != value:
                message = f"it is {value!r}, and the config's {key} is {expected!r}"
                yield error("inferer-contradicts", bundle.location(config, path), message, f"Write '@{key}'.")


def _not_loaded(bundle: BundleFiles, config: str, content: dict[str, Any]) -> Iterator[Finding]:
    texts = [value for _, value in walk(content) if isinstance(value, str)]
    if not any(_LOADING.search(text) for text in texts):
        message = "nothing in it loads the weights: the network would have random ones"
        fix = "Load them where the network is built, or with a CheckpointLoader."
        yield error("weights-not-loaded", bundle.location(config), message, fix)
        return
    path = _value(bundle, config, "ckpt_path") if "ckpt_path" in content else None
    if isinstance(path, str) and not Path(path).is_file():
        name = path.removeprefix(str(bundle.root)).lstrip("/\\")
        fix = "Copy the weights there, or name the file that exists."
        yield error("weights-missing", bundle.location(config, "ckpt_path"), f"{name} does not exist", fix)


def _value(bundle: BundleFiles, config: str, path: str) -> Any:
    try:
        return bundle.value(config, path)
    except UnknownValueError:
        return None
