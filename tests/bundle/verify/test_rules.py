"""Each fault is found by its code; hostile bundles are stopped before any rule."""

from __future__ import annotations

import json
import re
import shutil
import sys
import warnings
from pathlib import Path

import pytest
import torch

from medseg.bundle.verify import check_bundle, rules, verify_bundle
from medseg.errors import ConfigError
from medseg.inspection import inspect_bundle
from tests.bundle.verify import zoo
from tests.bundle.verify.broken import BROKEN, change, plain
from tests.inspection import hostile, hostile_zips

BUNDLES = sorted(path.parents[1] for path in Path(__file__).parents[3].glob("bundles/*/configs/metadata.json"))


def codes(root):
    return {finding.code for finding in check_bundle(root)}


@pytest.mark.parametrize("name", BROKEN)
def test_each_fault_is_found_by_its_code(name, tmp_path):
    damage, expected = BROKEN[name]
    damage(plain(tmp_path / "plain"))
    findings = check_bundle(tmp_path / "plain")
    assert set(expected.split()) <= {entry.code for entry in findings}, [str(entry) for entry in findings]
    assert "rule-failed" not in {entry.code for entry in findings}, [str(entry) for entry in findings]
    assert all(entry.location and entry.message and entry.fix for entry in findings)


def test_a_bundle_without_a_fault_has_no_finding(tmp_path):
    assert [str(entry) for entry in check_bundle(plain(tmp_path / "plain"))] == []


@pytest.mark.parametrize("root", BUNDLES, ids=lambda root: root.name)
def test_our_own_bundles_have_no_finding(root):
    assert [str(entry) for entry in check_bundle(root)] == []


@pytest.mark.parametrize("root", BUNDLES, ids=lambda root: root.name)
def test_another_normalization_in_our_own_inference_is_found(root, tmp_path):
    """The training chain of our recipes is put together in Python, and its steps are compared all the same."""
    copied = Path(shutil.copytree(root, tmp_path / root.name))
    file = copied / "configs" / "inference.json"
    smooth = {"_target_": "GaussianSmoothd", "keys": "image", "sigma": 0.4}
    content = json.loads(file.read_text())
    steps = content["preprocessing"]["transforms"]
    content["preprocessing"]["transforms"] = [steps, smooth] if isinstance(steps, str) else [*steps, smooth]
    file.write_text(json.dumps(content))
    drifts = [finding for finding in check_bundle(copied) if finding.code == "preprocessing-drift"]
    assert ["GaussianSmooth is missing in train.json" in finding.message for finding in drifts] == [True]


def test_the_folder_of_a_run_has_no_finding(trained):
    assert [str(entry) for entry in check_bundle(trained)] == []


def test_the_zoos_spleen_has_its_known_faults(tmp_path):
    findings = check_bundle(zoo.spleen(tmp_path / "spleen"))
    assert {entry.code for entry in findings} == {
        "pairing", "metric-unknown", "position", "path-absolute", "weights-elsewhere"
    }, [str(entry) for entry in findings]  # fmt: skip


def test_inherited_findings_are_reported_once(tmp_path):
    findings = check_bundle(zoo.spleen(tmp_path / "spleen"))
    assert [entry.location for entry in findings if entry.code == "pairing"] == [
        "configs/train.json, train#dataset#data", "configs/train.json, validate#dataset#data"
    ]  # fmt: skip


def test_the_zoos_whole_body_has_its_known_faults(tmp_path):
    findings = check_bundle(zoo.whole_body(tmp_path / "whole_body"))
    assert {entry.code for entry in findings} == {
        "pairing", "preprocessing-drift", "preprocessing-crop", "position", "path-leaves", "run-missing",
        "weights-elsewhere",
    }, [str(entry) for entry in findings]  # fmt: skip
    (drift,) = {entry.message for entry in findings if entry.code == "preprocessing-drift"}
    assert "GaussianSmooth" in drift


def test_every_code_is_explained_in_the_reference(repository):
    text = (repository / "docs" / "reference" / "bundle-findings.md").read_text(encoding="utf-8")
    written = set()
    for path in (repository / "medseg" / "bundle" / "verify").glob("*.py"):
        written |= set(
            re.findall(r"\b(?:error|warning|note|report)\(\s*\"([a-z0-9-]+)\"", path.read_text(encoding="utf-8"))
        )
    assert written - set(re.findall(r"`([a-z0-9-]+)`", text)) == set()
    assert {code for _, codes in BROKEN.values() for code in codes.split()} <= written


def test_a_bundles_own_modules_can_be_imported_and_are_forgotten(tmp_path):
    root = plain(tmp_path / "plain")
    (root / "scripts").mkdir()
    (root / "scripts" / "__init__.py").write_text("")
    (root / "scripts" / "own.py").write_text("class Loss:\n    def __init__(self, softmax=True):\n        pass\n")
    change(root, "train", loss={"_target_": "scripts.own.Loss", "softmax": False})
    before = list(sys.path)
    assert codes(root) == set()
    assert sys.path == before
    assert "scripts.own" not in sys.modules


def test_a_rule_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    def fails(bundle):
        raise RuntimeError("unforeseen")
        yield

    monkeypatch.setitem(rules.RULES, "keys", fails)
    root = plain(tmp_path / "plain")
    (root / "LICENSE").unlink()
    assert [(entry.code, entry.location) for entry in check_bundle(root)] == [
        ("file-missing", "LICENSE"),
        ("rule-failed", "keys"),
    ]


def test_the_random_state_is_unchanged(tmp_path):
    root = plain(tmp_path / "plain")
    torch.manual_seed(3)
    before = torch.get_rng_state()
    check_bundle(root)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_expression_runs_only_with_trust_where_a_bundle_is_verified(tmp_path, monkeypatch):
    root = plain(tmp_path / "plain")
    monkeypatch.chdir(tmp_path)
    change(root, "inference", spacing="$[open('canary', 'w').close() or 1.5, 1.5]")
    findings = verify_bundle(root)
    assert {entry.code for entry in findings} == {"needs-trust", "not-verified"}
    assert "error" in {entry.severity for entry in findings}
    assert not (tmp_path / "canary").exists()
    trusted = verify_bundle(root, trust=True)
    assert {entry.severity for entry in trusted} == {"warning"}
    assert (tmp_path / "canary").exists()


def test_a_clean_bundle_is_verified(tmp_path):
    root = plain(tmp_path / "plain")
    assert [str(entry) for entry in verify_bundle(root)] == []
    (root / "models" / "model.pt").unlink()
    assert [entry.code for entry in verify_bundle(root)] == ["weights-missing"]


@pytest.mark.parametrize("top", ["", "plain"])
def test_a_zip_is_verified_like_its_folder(tmp_path, top):
    root = plain(tmp_path / "up" / "plain")
    (root / "LICENSE").unlink()
    packed = shutil.make_archive(str(tmp_path / "packed"), "zip", root if not top else root.parent)
    assert [entry.location for entry in verify_bundle(packed)] == ["LICENSE"]


def test_verifying_a_missing_path_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="there is no bundle here"):
        verify_bundle(tmp_path / "nothing")


CASES = {**hostile.ALL, **hostile_zips.ALL}


@pytest.mark.parametrize("name", CASES)
def test_nothing_of_a_hostile_bundle_runs_where_it_is_verified(name, tmp_path):
    code, make = CASES[name]
    canary = tmp_path / "canary"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a zip with a name twice
        path = make(hostile.clean(tmp_path / "bundle"), canary)
    findings = verify_bundle(path)
    assert not canary.exists()
    inspection = inspect_bundle(path)
    codes = {entry.code for entry in findings}
    assert code in (hostile.RUNS_NOTHING, *codes)
    assert {entry.code for entry in inspection.findings} <= codes
    assert ("not-verified" in codes) is (not inspection.is_safe or "predict" in inspection.needs_trust)
