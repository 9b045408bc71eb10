"""Training, evaluation and inference: the same network, and the same deterministic work on the image."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterator, Sequence

from medseg.bundle.verify.chains import Step, Unknown, arguments, chain
from medseg.bundle.verify.opened import Opened, mapping
from medseg.findings import Finding, error, note

# What a network begins with, and what it does in training alone.
_NO_WEIGHTS = {"pretrained", "allow_random", "drop_path", "drop_path_rate", "dropout", "dropout_prob", "dropout_rate",
               "attn_drop_rate", "drop_rate", "gradient_checkpointing", "use_checkpoint"}  # fmt: skip
_DATASETS = {
    "train": (("train#dataset", "train#trainer"), ("validate#dataset", "validate#evaluator")),
    "evaluate": (("dataset", "evaluator"), ("validate#dataset", "validate#evaluator")),
    "inference": (("dataset", "evaluator"),),
}


def check(bundle: Opened) -> Iterator[Finding]:
    """Findings on configs that differ where they must not."""
    yield from _networks(bundle)
    chains = {
        (config, path): found
        for config, paths in _DATASETS.items()
        if config in bundle.configs and bundle.can_parse(config)
        for path, engine in paths
        if (found := chain(bundle, config, path, engine))
    }
    if not chains:
        return
    (first, begin), *others = chains.items()
    for where, found in others:
        yield from _differences(bundle, first, begin, where, found)


def _networks(bundle: Opened) -> Iterator[Finding]:
    there = [one for one, content in bundle.configs.items() if "network_def" in content and bundle.can_parse(one)]
    if not there:
        return
    first = _network(bundle, there[0])
    for config in there[1:]:
        other = _network(bundle, config)
        for name in sorted({*first, *other, "_target_"} - _NO_WEIGHTS):
            written = [mapping(bundle.expanded(one)["network_def"]).get(name) for one in (there[0], config)]
            unknown = any(isinstance(one.get(name), Unknown) for one in (first, other))
            if first.get(name) != other.get(name) and not (unknown and written[0] == written[1]):
                yield error(
                    "network-drift",
                    bundle.location(config, f"network_def#{name}"),
                    f"it is {_short(other.get(name))} there, and {_short(first.get(name))} in {there[0]}.json",
                    "Weights of one network are nothing to another.",
                )


def _network(bundle: Opened, config: str) -> dict[str, object]:
    target = mapping(bundle.expanded(config)["network_def"]).get("_target_")
    return {**arguments(bundle, config, "network_def"), "_target_": str(target).rpartition(".")[2]}


def _differences(
    bundle: Opened, first: tuple[str, str], begin: Sequence[Step], where: tuple[str, str], found: Sequence[Step]
) -> Iterator[Finding]:
    """What one chain has and the other has not; steps that may be off by what the data are count where they fit."""
    begin, found = _settled(begin, found), _settled(found, begin)
    matcher = difflib.SequenceMatcher(a=[step.key for step in begin], b=[step.key for step in found], autojunk=False)
    location = bundle.location(where[0], where[1])
    said = f"{first[0]}.json, {first[1]}"
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            continue
        lost, new = list(begin[i:j]), list(found[k:m])
        for step in list(lost):
            contralateral = next((one for one in new if one.name == step.name), None)
            if contralateral is not None:
                lost.remove(step)
                new.remove(contralateral)
                for name in sorted({*step.arguments, *contralateral.arguments}):
                    a, b = step.arguments.get(name), contralateral.arguments.get(name)
                    if a != b:
                        yield error(
                            "preprocessing-drift",
                            bundle.location(where[0], f"{contralateral.path}#{name}"),
                            f"{step.name} has {name} {_short(b)} there, and {_short(a)} in {said}",
                            "The network sees other images than it learned from.",
                        )
        for step in lost:
            yield _only(
                step, location, f"{said} has {step.name}, which is missing here or stands elsewhere in the order"
            )
        for step in new:
            yield _only(
                step, bundle.location(where[0], step.path), f"{step.name} is missing in {said}, or stands elsewhere"
            )


def _settled(steps: Sequence[Step], others: Sequence[Step]) -> list[Step]:
    """The steps, without those that may be off and that the others have no more of than is there without them."""
    left = Counter(step.key for step in others)
    left.subtract(step.key for step in steps if not step.optional)
    kept = []
    for step in steps:
        if step.optional:
            left[step.key] -= 1
        if not step.optional or left[step.key] >= 0:
            kept.append(step)
    return kept


def _only(step: Step, location: str, message: str) -> Finding:
    if step.only_crops:
        return note("preprocessing-crop", location, message, "It changes no value of the image, only how much is seen.")
    return error("preprocessing-drift", location, message, "The network sees other images than it learned from.")


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) < 60 else f"{text[:57]}..."
