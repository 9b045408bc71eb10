"""Check the weights: every tensor of the network, in its shape, finite, the same in all files, and loaded."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from medseg.bundle.verify.bundle_files import BundleFiles, UnknownValueError, root_cause
from medseg.bundle.verify.files import WEIGHTS
from medseg.config.paths import has, walk
from medseg.findings import Finding, error

State = Mapping[str, torch.Tensor]
_NETWORK_KEYS = ("network", "model", "state_dict", "net")  # where checkpoints keep the network's weights
_BEST = "checkpoints/best.pt"
_LOADING = re.compile(r"load_weights|load_state_dict|CheckpointLoader|torch\.(jit\.)?load|\.load\(|load_net")
_MUST_AGREE = ("multilabel", "context")  # arguments of the inferer that must be those of the config
UNREADABLE = (OSError, RuntimeError, ValueError, EOFError, KeyError, TypeError, pickle.UnpicklingError, SafetensorError)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file by their names, of a checkpoint the network's; nothing in it is executed.

    Raises:
        Exception: one of `UNREADABLE`, where the file is damaged or holds other things than tensors.
    """
    if path.suffix == ".safetensors":
        return dict(safetensors.torch.load_file(path))
    content = torch.load(path, map_location="cpu", weights_only=True)
    for key in _NETWORK_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise ValueError("it holds something else than tensors")
    return {str(name): tensor for name, tensor in content.items()}


def check_weights(bundle: BundleFiles) -> Iterator[Finding]:
    """Find weights that are damaged, not finite, do not fit the network, or differ between files."""
    states: dict[str, State] = {}
    for name in WEIGHTS:
        if (bundle.root / name).is_file():
            try:
                states[name] = read_state(bundle.root / name)
            except UNREADABLE as problem:
                message = f"it cannot be read as weights: {root_cause(problem)[:120]}"
                yield error("weights-damaged", name, message, "Copy it again.")
    for name, state in states.items():
        broken = [key for key, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
        if broken:
            message = f"{len(broken)} tensors hold NaN or infinity ({', '.join(broken[:2])})"
            yield error("weights-not-finite", name, message, "Use weights from before the training went wrong.")
        yield from _fit(bundle, name, state)
    if len(states) == 2 and not _equal(*states.values()):
        message = f"its weights are not those of {WEIGHTS[0]}"
        yield error("weights-differ", WEIGHTS[1], message, "Keep the file you mean, and delete the other.")
    yield from _exchanged(bundle, states)


def _fit(bundle: BundleFiles, name: str, state: State) -> Iterator[Finding]:
    if not isinstance(bundle.network, torch.nn.Module):
        return  # the rule on the network says why
    network = bundle.network.state_dict()
    missing = [key for key in network if key not in state]
    extra = [key for key in state if key not in network]
    if missing or extra:
        message = (
            f"{len(missing)} tensors of the network are missing ({', '.join(missing[:2]) or '-'}), "
            f"{len(extra)} do not belong to it ({', '.join(extra[:2]) or '-'})"
        )
        yield error("weights-fit", name, message, "Use the weights that were trained with this network.")
        return
    misshapen = [key for key in network if network[key].shape != state[key].shape]
    if misshapen:
        key = misshapen[-1]
        message = f"{key} has shape {tuple(state[key].shape)}, in the network it has {tuple(network[key].shape)}"
        fix = "The number of classes or features differs: use the network they were trained with."
        yield error("weights-fit", name, message, fix)


def _exchanged(bundle: BundleFiles, states: Mapping[str, State]) -> Iterator[Finding]:
    """Compare a run's weights with its best checkpoint: where they differ, one of the files was replaced."""
    if WEIGHTS[0] not in states or not bundle.is_run or not (bundle.root / _BEST).is_file():
        return
    try:
        best = read_state(bundle.root / _BEST)
    except UNREADABLE:
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
