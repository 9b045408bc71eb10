"""A packed bundle against its manifest: files that were changed, lost or put in afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from medseg.bundle.verify.opened import Opened
from medseg.errors import DataError
from medseg.findings import Finding, error

_OF_THE_BUNDLE = ("configs/", "models/", "docs/", "scripts/")


def check(bundle: Opened) -> Iterator[Finding]:
    """Findings on files that are not what was packed."""
    from medseg.bundle.share import manifest  # which verifies what it packs

    if not (bundle.root / manifest.MANIFEST).is_file():
        return
    try:
        findings = manifest.compare(bundle.root)
    except DataError as fault:
        yield error("manifest", manifest.MANIFEST, f"{fault.problem} ({fault.came})", fault.fix)
        return
    for finding in findings:
        own = finding.location.startswith(_OF_THE_BUNDLE)
        # what evaluating and predicting leave in the folder was made here
        yield finding if own or finding.code != "file-not-listed" else replace(finding, severity="note")
