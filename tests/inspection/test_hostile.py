"""Every hostile bundle is found by its own code, and nothing of it runs; the project's own give no finding."""

import importlib.util
import pickle
import sys
import warnings
from pathlib import Path

import pytest

from medseg.inspection import inspect_bundle


def _beside(name):
    spec = importlib.util.spec_from_file_location(f"inspection_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # what pickles name
    spec.loader.exec_module(module)
    return module


hostile, zips, tricks = _beside("hostile"), _beside("hostile_zips"), _beside("hostile_tricks")
paths = _beside("hostile_paths")
CASES = {**hostile.ALL, **zips.ALL, **tricks.collect(hostile), **paths.collect(hostile)}


@pytest.mark.parametrize("name", CASES)
def test_each_hostile_bundle_is_found_and_nothing_of_it_runs(name, tmp_path):
    code, make = CASES[name]
    canary = tmp_path / "canary"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a zip with a name twice
        path = make(hostile.clean(tmp_path / "bundle"), canary)
    found = inspect_bundle(path)
    assert code in {one.code for one in found.findings if one.severity == "error"}, [str(one) for one in found.findings]
    assert not found.trusted
    assert not canary.exists()
    assert not {"helper", "torch.py"} & set(sys.modules)


def test_the_clean_bundle_gives_no_finding(tmp_path):
    made = hostile.clean(tmp_path / "bundle")
    assert inspect_bundle(made).findings == []
    assert inspect_bundle(zips.pack(made, tmp_path / "bundle.zip")).findings == []


def test_payloads_work_when_they_are_loaded(tmp_path):
    canary = tmp_path / "canary"
    for name in ("pickle-plain", "pickle-protocol-0"):
        root = hostile.ALL[name][1](hostile.clean(tmp_path / name), canary)
        pickle.loads((root / "docs" / "a.pkl").read_bytes())
        assert canary.exists()
        canary.unlink()


@pytest.mark.parametrize("bundle", sorted(path.parent.name for path in hostile.RECIPE.parent.glob("*/configs")))
def test_own_bundles_give_no_finding(bundle):
    found = inspect_bundle(hostile.RECIPE.parent / bundle)
    assert found.findings == []
    assert found.trusted
    assert all(part.allowed for part in found.parts)
    assert {part.kind for part in found.parts} == {"target", "expression"}
