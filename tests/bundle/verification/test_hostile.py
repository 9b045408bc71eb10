"""Hostile bundles are stopped before any rule, and nothing of them runs."""

from __future__ import annotations

import pytest

from medseg.bundle.verification import verify_bundle
from medseg.errors import ConfigError
from tests.inspection import hostile


@pytest.mark.parametrize("name", hostile.ALL)
def test_none_comes_as_far_as_the_rules(name, tmp_path):
    code, make = hostile.ALL[name]
    canary = tmp_path / "canary"
    path = make(hostile.clean(tmp_path / "bundle"), canary)
    if path.is_dir():
        found = {one.code: one.severity for one in verify_bundle(path)}
        assert (found[code], found["not-verified"]) == ("error", "note")
    else:
        with pytest.raises(ConfigError, match="must be the folder of a bundle"):
            verify_bundle(path)
    assert not canary.exists()
