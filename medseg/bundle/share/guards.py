"""Refuse bundles that are not fit, name errors by what the user knows, and clean up after a stop."""

from __future__ import annotations

import contextlib
import logging
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from medseg.bundle.verify import verify_bundle
from medseg.errors import BundleError, MedsegError
from medseg.findings import Finding

logger = logging.getLogger(__name__)
_SHOWN = 5
_STYLE = (
    "pairing",
    "metric-unknown",
    "path-absolute",
    "path-leaves",
    "version-changelog",
    "metadata-schema",
    "key-missing",
)
_OF_MASKS = ("label-order", "label-names", "flip-contralaterals", "network-drift", "preprocessing-drift")
_STOPS = ("expression-name", "expression-syntax", "target-missing", "argument-unknown", "argument-missing",
          "reference-missing", "reference-file", "package-missing")  # fmt: skip


def require_clean(root: Path, trust: bool, name: str, tolerated: Callable[[Finding], bool] | None = None) -> None:
    """Require that a bundle verifies without errors; warnings are logged.

    Args:
        root: its folder.
        trust: True if its code is trusted.
        name: what errors call it.
        tolerated: returns True for an error that is only a warning here, see `spares_masks`.

    Raises:
        BundleError: verification found errors.
    """
    findings = verify_bundle(root, trust)
    fatal = [finding for finding in findings if not (tolerated is not None and tolerated(finding))]
    for finding in findings:
        if finding.severity == "warning" or (finding.severity == "error" and finding not in fatal):
            logger.warning("%s", replace(finding, severity="warning"))
    refuse(name, "the bundle has {faults}", fatal, "medseg bundle verify lists all of them.")


def spares_masks(finding: Finding, is_ours: bool) -> bool:
    """Return True for a fault that neither changes a mask in silence nor runs code.

    These are faults of style, those of configs that a mask does not need, and in a bundle that others packed what
    prediction would stop at, if it needs it at all.

    Args:
        finding: of verification.
        is_ours: whether medseg packed the bundle, which verifies it first. Who packed with other tools may have meant
            inference to see other images than training.
    """
    if finding.code in _STYLE:
        return True
    if finding.code in _OF_MASKS:
        return finding.code == "preprocessing-drift" and not is_ours
    is_elsewhere = re.match(r"configs/(?!inference\.|metadata\.)", finding.location) is not None
    return is_elsewhere or (finding.code in _STOPS and not is_ours)


def refuse(
    name: str, problem: str, findings: Sequence[Finding], fix: str, kind: type[MedsegError] = BundleError
) -> None:
    """Raise the errors among findings as one; return where there are none.

    Args:
        name: what the error calls the bundle.
        problem: what is wrong, `{faults}` stands for their number.
        findings: any findings.
        fix: what to do.
        kind: of the error.

    Raises:
        MedsegError: there is an error among the findings.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    listed = "; ".join(f"{finding.code} in {finding.location}: {finding.message}" for finding in errors[:_SHOWN])
    more = f"; and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
    faults = f"{len(errors)} fault{'s' * (len(errors) > 1)}"
    raise kind(name, problem.format(faults=faults), listed + more, fix)


@contextlib.contextmanager
def errors_name(folder: Path, name: str) -> Iterator[None]:
    """Let errors call a temporary folder by the name that the user gave: its own path is gone when they are read.

    Args:
        folder: the folder that work goes on in.
        name: what the user knows it by.
    """
    try:
        yield
    except MedsegError as error:
        parts = [error.thing, error.problem, error.came, error.fix]
        # the name alone appears in findings about the bundle; only that of a temporary folder is unmistakable
        hidden = (folder.name,) if folder.name.endswith(".partial") else ()
        for path in dict.fromkeys((str(folder), str(folder.resolve()), *hidden)):
            parts = [part.replace(path, name) for part in parts]
        if parts == [error.thing, error.problem, error.came, error.fix]:
            raise
        kind: Any = type(error)
        raise kind(*parts) from error


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does, so that temporary files are removed.

    Only in the main thread, where signals arrive, and only where no handler is installed.
    """
    replaced: list[int] = []
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _interrupt)
                replaced.append(number)
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, signal.SIG_DFL)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
