"""Every fault by its code, and none where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from medseg.bundle.verification import check_bundle
from tests.bundle.verification import zoo
from tests.bundle.verification.broken import BROKEN, plain

BUNDLES = sorted(path.parents[1] for path in Path(__file__).parents[3].glob("bundles/*/configs/metadata.json"))


def codes(root):
    return {finding.code for finding in check_bundle(root)}


@pytest.mark.parametrize("name", BROKEN)
def test_each_fault_is_found_by_its_code(name, tmp_path):
    damage, wanted = BROKEN[name]
    damage(plain(tmp_path / "plain"))
    found = check_bundle(tmp_path / "plain")
    assert set(wanted.split()) <= {one.code for one in found}, [str(one) for one in found]
    assert "rule-failed" not in {one.code for one in found}, [str(one) for one in found]
    assert all(one.place and one.message and one.remedy for one in found)


def test_a_bundle_without_a_fault_has_no_finding(tmp_path):
    assert [str(one) for one in check_bundle(plain(tmp_path / "plain"))] == []


@pytest.mark.parametrize("root", BUNDLES, ids=lambda root: root.name)
def test_our_own_bundles_have_no_finding(root):
    assert [str(one) for one in check_bundle(root)] == []


def test_the_folder_of_a_run_has_no_finding(trained):
    assert [str(one) for one in check_bundle(trained)] == []


def test_the_zoos_spleen_has_its_known_faults(tmp_path):
    found = check_bundle(zoo.spleen(tmp_path / "spleen"))
    assert {one.code for one in found} == {
        "pairing", "metric-unknown", "position", "path-absolute", "weights-elsewhere"
    }, [str(one) for one in found]  # fmt: skip


def test_the_zoos_whole_body_has_its_known_faults(tmp_path):
    found = check_bundle(zoo.whole_body(tmp_path / "whole_body"))
    assert {one.code for one in found} == {
        "pairing", "preprocessing-drift", "preprocessing-crop", "position", "path-leaves", "run-missing",
        "weights-elsewhere",
    }, [str(one) for one in found]  # fmt: skip
    (drift,) = {one.message for one in found if one.code == "preprocessing-drift"}
    assert "GaussianSmooth" in drift
