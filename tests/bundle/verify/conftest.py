"""A bundle without a fault, to be broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from medseg.bundle.verify.bundle_files import BundleFiles
from medseg.bundle.verify.rules import Rule
from tests.bundle.verify import broken

CodesOf = Callable[..., list[tuple[str, str]]]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return broken.plain(tmp_path / "plain")


@pytest.fixture
def codes_of(plain: Path) -> CodesOf:
    """Codes and locations that one rule finds in the plain bundle with faults: `codes_of(rule, fault, ...)`."""

    def run(rule: Rule, *faults: broken.Fault) -> list[tuple[str, str]]:
        for fault in faults:
            fault(plain)
        return [(finding.code, finding.location) for finding in rule(BundleFiles(plain))]

    return run
