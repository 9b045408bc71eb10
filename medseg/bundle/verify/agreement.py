"""Compare training, evaluation and inference: the same network, and the same deterministic steps on the image."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterator, Sequence

from medseg.bundle.verify.bundle_files import BundleFiles, as_mapping
from medseg.bundle.verify.chains import Step, Unknown, arguments, chain
from medseg.findings import Finding, error, note

# Arguments about a network's first weights, and about what it does in training only.
_NO_ARCHITECTURE = {"pretrained", "allow_missing_pretrained", "drop_path", "drop_path_rate", "dropout",
                    "dropout_prob", "dropout_rate", "attn_drop_rate", "drop_rate", "gradient_checkpointing",
                    "use_checkpoint"}  # fmt: skip
_DATASETS = {
    "train": (("train#dataset", "train#trainer"), ("validate#dataset", "validate#evaluator")),
    "evaluate": (("dataset", "evaluator"), ("validate#dataset", "validate#evaluator")),
    "inference": (("dataset", "evaluator"),),
}
_OTHER_IMAGES = "Make them equal: the network would see other images than it was trained on."


def check_agreement(bundle: BundleFiles) -> Iterator[Finding]:
    """Find differences between configs that must agree."""
    yield from _networks(bundle)
    chains: dict[tuple[str, str], list[Step]] = {}
    for config, datasets in _DATASETS.items():
        if config in bundle.configs and bundle.can_parse(config):
            for dataset, engine in datasets:
                if steps := chain(bundle, config, dataset, engine):
                    chains[config, dataset] = steps
    if chains:
        (first, reference), *others = chains.items()
        for second, steps in others:
            yield from _preprocessing(bundle, first, reference, second, steps)


def _networks(bundle: BundleFiles) -> Iterator[Finding]:
    configs = [name for name, content in bundle.configs.items() if "network_def" in content and bundle.can_parse(name)]
    for config in configs[1:]:
        first, second = _network(bundle, configs[0]), _network(bundle, config)
        for name in sorted({*first, *second} - _NO_ARCHITECTURE):
            a, b = first.get(name), second.get(name)
            written = [as_mapping(bundle.expanded(entry)["network_def"]).get(name) for entry in (configs[0], config)]
            # what depends on the data is compared as it is written
            is_unknown = isinstance(a, Unknown) or isinstance(b, Unknown)
            if a != b and not (is_unknown and written[0] == written[1]):
                location = bundle.location(config, f"network_def#{name}")
                message = f"it is {_short(b)}, and {_short(a)} in {configs[0]}.json"
                fix = "Make them equal: the weights of one network do not fit another."
                yield error("network-drift", location, message, fix)


def _network(bundle: BundleFiles, config: str) -> dict[str, object]:
    target = as_mapping(bundle.expanded(config)["network_def"]).get("_target_")
    return {**arguments(bundle, config, "network_def"), "_target_": str(target).rpartition(".")[2]}


def _preprocessing(
    bundle: BundleFiles,
    first: tuple[str, str],
    reference: Sequence[Step],
    second: tuple[str, str],
    steps: Sequence[Step],
) -> Iterator[Finding]:
    """Yield how the steps of a second dataset differ from those of the first, argument by argument where they can."""
    reference, steps = _without_optional(reference, steps), _without_optional(steps, reference)
    keys = [step.key for step in reference], [step.key for step in steps]
    matcher = difflib.SequenceMatcher(a=keys[0], b=keys[1], autojunk=False)
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            continue
        lost, added = list(reference[i:j]), list(steps[k:m])
        for step in list(lost):
            counterpart = next((candidate for candidate in added if candidate.name == step.name), None)
            if counterpart is None:
                continue
            lost.remove(step)
            added.remove(counterpart)
            for name in sorted({*step.arguments, *counterpart.arguments}):
                a, b = step.arguments.get(name), counterpart.arguments.get(name)
                if a != b:
                    location = bundle.location(second[0], f"{counterpart.path}#{name}")
                    message = f"{step.name} has {name} {_short(b)}, and {_short(a)} in {first[0]}.json, {first[1]}"
                    yield error("preprocessing-drift", location, message, _OTHER_IMAGES)
        for step in lost:
            message = f"{step.name} of {first[0]}.json, {first[1]}, is missing here or has another position"
            yield _single(step, bundle.location(*second), message)
        for step in added:
            message = f"{step.name} is missing in {first[0]}.json, {first[1]}, or has another position there"
            yield _single(step, bundle.location(second[0], step.path), message)


def _without_optional(steps: Sequence[Step], others: Sequence[Step]) -> list[Step]:
    """Return the steps without those that the data may switch off and that the other chain has no match for."""
    unmatched = Counter(step.key for step in others)
    unmatched.subtract(step.key for step in steps if not step.optional)
    matched = []
    for step in steps:
        if step.optional:
            unmatched[step.key] -= 1
        if not step.optional or unmatched[step.key] >= 0:
            matched.append(step)
    return matched


def _single(step: Step, location: str, message: str) -> Finding:
    if step.only_crops:
        fix = "It changes only how much of the image is seen, and no value."
        return note("preprocessing-crop", location, message, fix)
    return error("preprocessing-drift", location, message, _OTHER_IMAGES)


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) < 60 else f"{text[:57]}..."
