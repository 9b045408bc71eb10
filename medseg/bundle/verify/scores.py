"""Names of metrics: what is to be saved or to decide which weights are kept must be measured by something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from medseg.bundle.verify.opened import Opened
from medseg.config.paths import at, components, resolved_path
from medseg.config.references import key_path
from medseg.errors import did_you_mean
from medseg.findings import Finding, error

_MEASURED = ("key_train_metric", "key_val_metric", "additional_metrics")
_NAMED = {"MetricsSaver": ("metrics", "metric_details"), "CheckpointSaver": ("key_metric_name",)}


def check(bundle: Opened) -> Iterator[Finding]:
    """Findings on names of metrics that no engine of the config measures."""
    for config, content in bundle.configs.items():
        expanded = bundle.expanded(config)
        measured = _measured(expanded)
        if measured is None:
            continue
        for path, component in components(content):
            for argument in _NAMED.get(str(component["_target_"]).rpartition(".")[2], ()):
                said = component.get(argument)
                for name in [said] if isinstance(said, str) else said if isinstance(said, list) else ():
                    if isinstance(name, str) and name[:1] not in ("*", "$", "@", "%", "") and name not in measured:
                        known = f"There are: {', '.join(sorted(measured)) or 'none'}."
                        yield error(
                            "metric-unknown",
                            bundle.location(config, f"{path}#{argument}"),
                            f"nothing measures '{name}', and nobody would be told",
                            did_you_mean(name, measured, known),
                        )


def _measured(content: Mapping[str, Any]) -> set[str] | None:
    """The names of all metrics of all engines; None where some come out of an expression."""
    found: set[str] = set()
    for _, component in components(content):
        for argument in _MEASURED:
            value = component.get(argument)
            if isinstance(value, str) and value.startswith("@"):
                value = at(content, resolved_path(content, key_path(value[1:])))
            if isinstance(value, Mapping):
                found |= {str(name) for name in value}
            elif value is not None:
                return None
    return found
