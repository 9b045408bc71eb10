"""Hostile bundles are stopped before any rule, and nothing of them runs."""

from __future__ import annotations

import warnings

import pytest

from medseg.bundle.verify import verify_bundle
from tests.inspection import hostile, hostile_zips

CASES = {**hostile.ALL, **hostile_zips.ALL}


@pytest.mark.parametrize("name", CASES)
def test_none_comes_as_far_as_the_rules(name, tmp_path):
    code, make = CASES[name]
    canary = tmp_path / "canary"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a zip with a name twice
        path = make(hostile.clean(tmp_path / "bundle"), canary)
    found = verify_bundle(path)
    assert code in {one.code for one in found if one.severity == "error"}
    assert "not-verified" in {one.code for one in found}
    assert not canary.exists()
