"""Apply all rules to a bundle: inspection first, and what runs any of its code only if it is safe or trusted."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from medseg.bundle.verify.agreement import check_agreement
from medseg.bundle.verify.bundle_files import BundleFiles, bundle_folder, root_cause
from medseg.bundle.verify.classes import check_classes, check_flips
from medseg.bundle.verify.components import ONLY_KNOWN_MODULES, check_components, check_metric_names
from medseg.bundle.verify.expressions import check_expressions, check_pairing, check_paths
from medseg.bundle.verify.files import check_files, check_manifest
from medseg.bundle.verify.metadata import check_metadata, check_packages
from medseg.bundle.verify.network import check_network
from medseg.bundle.verify.references import check_keys, check_positions, check_references
from medseg.bundle.verify.weights import check_loading, check_weights
from medseg.errors import ConfigError, MissingExtraError
from medseg.findings import Finding, error, note, ranked, warning
from medseg.runs.origin import is_own

if TYPE_CHECKING:
    from medseg.inspection import Inspection

_TRUST = "Read what it would run (medseg bundle inspect), then give --trust."
_REPORT = "The other rules were applied. Please report the bundle that this rule fails on."
Rule = Callable[[BundleFiles], Iterator[Finding]]
RULES: dict[str, Rule] = {
    rule.__name__.removeprefix("check_"): rule
    for rule in (
        check_files,
        check_manifest,
        check_metadata,
        check_packages,
        check_keys,
        check_references,
        check_expressions,
        check_components,
        check_positions,
        check_pairing,
        check_metric_names,
        check_paths,
        check_network,
        check_weights,
        check_loading,
        check_classes,
        check_agreement,
        check_flips,
    )
}


def verify_bundle(root: str | Path, trust: bool = False) -> list[Finding]:
    """Check that a bundle is complete, agrees with itself and does what it says.

    It is inspected first, which runs nothing of it. If that found nothing unsafe, or the bundle is trusted, the rules
    build the network and run it once. Of a bundle that is the user's own or trusted they also import the components
    that it names, and evaluate the expressions that do not depend on the data.

    Args:
        root: the bundle's folder, or a zip of it, which is unpacked to a temporary folder.
        trust: True applies the rules even if inspection found something unsafe, which becomes a warning.

    Returns:
        The findings, errors first.

    Raises:
        ConfigError: `root` does not exist.
        BundleError: a zip that cannot be unpacked, or, of a bundle that is trusted, not safely.
        MissingExtraError: jsonschema is not installed.

    Example:
        >>> [finding.code for finding in verify_bundle("unet2d.zip") if finding.severity == "error"]  # doctest: +SKIP
        ['weights-missing']
    """
    from medseg.inspection import inspect_bundle, unpack

    root = Path(root)
    if not root.exists():
        raise ConfigError(root, "there is no bundle here", "", "Give the folder of a bundle, or a zip of it.")
    inspection = inspect_bundle(root)
    runs_freely = trust or (root.is_dir() and is_own(root))
    unresolved = [] if runs_freely else _needing_trust(root, inspection)
    if (not inspection.is_safe and not trust) or unresolved:
        reason = "inspection found something unsafe" if not inspection.is_safe else "what a mask needs does not run"
        skipped = note("not-verified", root.name, f"{reason}, so no rule was applied", _TRUST)
        return ranked([*inspection.findings, *unresolved, skipped])
    trusted = _needing_trust(root, inspection) if trust and not is_own(root) else []
    inspected = [
        replace(finding, severity="warning") if finding.severity == "error" else finding
        for finding in [*inspection.findings, *trusted]
    ]
    if root.is_dir():
        return ranked([*inspected, *check_bundle(root, runs_freely)])
    with tempfile.TemporaryDirectory() as location:
        folder = unpack(root, Path(location, root.stem))
        return ranked([*inspected, *check_bundle(bundle_folder(folder), trust)])


def _needing_trust(root: Path, inspection: Inspection) -> list[Finding]:
    """Return the key that keeps prediction from running without trust: what it comes to cannot be compared either."""
    problem = inspection.needs_trust.get("predict")
    return [] if problem is None else [error("needs-trust", f"{root.name}, inference.json", problem, _TRUST)]


def check_bundle(root: str | Path, runs_freely: bool = True) -> list[Finding]:
    """Apply the rules without inspection.

    Args:
        root: the bundle's folder.
        runs_freely: whether its own modules and expressions may run.

    Returns:
        The findings, errors first.
    """
    with _importable(Path(root), runs_freely), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the bundle's own parts
        bundle = BundleFiles(Path(root), runs_freely)
        findings = list(bundle.findings)
        for name, rule in RULES.items():
            try:
                findings += rule(bundle)
            except MissingExtraError:
                raise
            except Exception as problem:  # a bundle that a rule did not foresee; the others still count
                message = f"the rule could not be applied: {root_cause(problem)}"
                findings.append(warning("rule-failed", name, message, _REPORT))
    return ranked(_without_inherited(bundle, findings))


def _without_inherited(bundle: BundleFiles, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield the findings without those that an overlay only has from the config it is merged on."""
    distinct = set(findings)
    for finding in distinct:
        inherited = False
        for name, bases in bundle.overlays.items():
            file = bundle.location(name)
            for base in bases:
                location = finding.location.replace(file, bundle.location(base), 1)
                if finding.location.startswith(file) and replace(finding, location=location) in distinct:
                    inherited = True
        if not inherited:
            yield finding


@contextlib.contextmanager
def _importable(root: Path, runs_freely: bool) -> Iterator[None]:
    """Let modules in the bundle's folder be imported, as MONAI does, and forget them afterwards; or only known ones."""
    if not runs_freely:
        token = ONLY_KNOWN_MODULES.set(True)
        try:
            yield
        finally:
            ONLY_KNOWN_MODULES.reset(token)
        return
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
