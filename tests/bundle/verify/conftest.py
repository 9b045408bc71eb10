"""A bundle without a fault, to be broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from medseg.bundle.verify.opened import Opened
from tests.bundle.verify import broken

Found = Callable[..., list[tuple[str, str]]]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return broken.plain(tmp_path / "plain")


@pytest.fixture
def found(plain: Path) -> Found:
    """What one rule says of the plain bundle with faults: `found(rule, fault, ...)` gives codes and places."""

    def run(rule: ModuleType, *faults: broken.Fault) -> list[tuple[str, str]]:
        for fault in faults:
            fault(plain)
        return [(one.code, one.location) for one in rule.check(Opened(plain))]

    return run
