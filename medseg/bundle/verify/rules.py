"""All rules over a bundle: inspection first, and what executes something of it only where that is clean or trusted."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from medseg.bundle.verify import (
    agreement,
    classes,
    described,
    expressions,
    files,
    flips,
    keys,
    links,
    loading,
    network,
    packages,
    pairing,
    paths,
    positions,
    scores,
    tampering,
    targets,
    weights,
)
from medseg.bundle.verify.opened import METADATA, Opened, cause
from medseg.errors import ConfigError
from medseg.findings import Finding, note, ranked, warning

_TRUST = "Read what it would run (medseg bundle inspect), then give --trust."
_REPORT = "The other rules were applied; report the bundle that this one fails on."
RULES: dict[str, Callable[[Opened], Iterator[Finding]]] = {
    module.__name__.rpartition(".")[2]: module.check
    for module in (files, tampering, described, packages, keys, links, expressions, targets, positions, pairing, scores,
                   paths, network, weights, loading, classes, agreement, flips)
}  # fmt: skip


def verify_bundle(root: str | Path, trust: bool = False) -> list[Finding]:
    """Look whether a bundle is whole, agrees with itself and does what it says.

    It is inspected first, which executes nothing. The rules then import the components that it names, evaluate
    expressions that do not hang on the data, build the network and run it once: they go ahead only where inspection
    found nothing unsafe, or the bundle is trusted.

    Args:
        root: the bundle's folder, or a zip of it, which is unpacked to a temporary folder.
        trust: whether to go on where inspection found something unsafe, which is a warning then.

    Returns:
        what was found, errors first.

    Raises:
        ConfigError: there is nothing of that name.
        BundleError: a zip that cannot be unpacked safely, of a bundle that is trusted.
    """
    from medseg.inspection import inspect_bundle, unpack

    root = Path(root)
    if not root.exists():
        raise ConfigError(root, "must be the folder of a bundle, or a zip of it", "nothing")
    inspection = inspect_bundle(root)
    if not inspection.trusted and not trust:
        stopped = note("not-verified", root.name, "inspection found something unsafe: no rule was applied", _TRUST)
        return ranked([*inspection.findings, stopped])
    known = [replace(one, severity="warning") if one.severity == "error" else one for one in inspection.findings]
    if root.is_dir():
        return ranked([*known, *check_bundle(root)])
    with tempfile.TemporaryDirectory() as location:
        folder = unpack(root, Path(location, root.stem))
        inner = [path.parents[1] for path in folder.glob(f"*/configs/{METADATA}.json")]
        whole = not (folder / "configs").is_dir() and len(inner) == 1
        return ranked([*known, *check_bundle(inner[0] if whole else folder)])


def check_bundle(root: str | Path) -> list[Finding]:
    """The rules alone, without inspection: for a bundle that is trusted. It is executed in part.

    Returns:
        what was found, errors first.
    """
    with _importable(Path(root)), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a bundle's parts say of themselves
        bundle = Opened(Path(root))
        findings = list(bundle.faults)
        for name, rule in RULES.items():
            try:
                findings += rule(bundle)
            except Exception as fault:  # a bundle that no rule foresaw; the other rules still count
                findings.append(warning("rule-failed", name, f"the rule could not be applied: {cause(fault)}", _REPORT))
    return ranked(_said_once(bundle, findings))


def _said_once(bundle: Opened, findings: Iterable[Finding]) -> Iterator[Finding]:
    """The findings, without those that a config has only from the one below it, of which they are said."""
    findings = set(findings)
    for one in findings:
        for name, bases in bundle.overlays.items():
            file = bundle.location(name)
            below = (replace(one, location=one.location.replace(file, bundle.location(base), 1)) for base in bases)
            if one.location.startswith(file) and any(other in findings for other in below):
                break
        else:
            yield one


@contextlib.contextmanager
def _importable(root: Path) -> Iterator[None]:
    """Modules in the bundle's own folder can be imported, as MONAI does it, and are forgotten afterwards."""
    location = str(root.resolve())
    before = set(sys.modules)
    sys.path.insert(0, location)
    try:
        yield
    finally:
        sys.path.remove(location)
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).is_relative_to(location):
                del sys.modules[name]
