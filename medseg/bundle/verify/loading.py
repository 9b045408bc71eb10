"""Whether inference loads the weights that are there, and calls the network as what it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medseg.bundle.verify.files import WEIGHTS
from medseg.bundle.verify.opened import Opened, UnknownValueError
from medseg.config.paths import has, walk
from medseg.findings import Finding, error

_LOADS = re.compile(r"load_weights|load_state_dict|CheckpointLoader|torch\.(jit\.)?load|\.load\(|load_net")
_ASKED = ("multilabel", "context")  # what an inferer must be told as the config has it


def check(bundle: Opened) -> Iterator[Finding]:
    """Findings on evaluate.json and inference.json."""
    for config in ("evaluate", "inference"):
        if config not in bundle.configs:
            continue
        content = bundle.expanded(config)
        if any((bundle.root / name).is_file() for name in WEIGHTS):
            yield from _weights(bundle, config, content)
        for key in _ASKED:
            path = f"inferer#{key}"
            if not (has(content, path) and has(content, key)):
                continue
            own, told = _value(bundle, config, key), _value(bundle, config, path)
            if own is not None and told is not None and own != told:
                yield error(
                    "inferer-contradicts",
                    bundle.location(config, path),
                    f"it is {told!r}, and {key} of the config is {own!r}",
                    f"Refer to it: '@{key}'.",
                )


def _weights(bundle: Opened, config: str, content: dict[str, Any]) -> Iterator[Finding]:
    texts = [value for _, value in walk(content) if isinstance(value, str)]
    if not any(_LOADS.search(text) for text in texts):
        yield error(
            "weights-not-loaded",
            bundle.location(config),
            "nothing in it loads the weights that are there: the network would have random ones",
            "Load them where the network is made, or with a CheckpointLoader.",
        )
        return
    path = _value(bundle, config, "ckpt_path") if "ckpt_path" in content else None
    if isinstance(path, str) and not Path(path).is_file():
        named = path.removeprefix(str(bundle.root)).lstrip("/\\")
        fix = "Copy them there, or name those that are there."
        yield error("weights-missing", bundle.location(config, "ckpt_path"), f"there is no {named}", fix)


def _value(bundle: Opened, config: str, path: str) -> Any:
    try:
        return bundle.value(config, path)
    except UnknownValueError:
        return None
