"""Nothing of any hostile bundle runs: not when it is looked at, predicts, is tested or is to train."""

import contextlib
import importlib.util
import pickle
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from medseg.bundle import Bundle, Predictor, run_bundle
from medseg.bundle.verify import verify_bundle
from medseg.errors import ConfigError, MedsegError, UntrustedError
from medseg.grid import Grid
from medseg.inspection import inspect_bundle
from medseg.runs.resume import resume_command


def _beside(name):
    spec = importlib.util.spec_from_file_location(f"inspection_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # what pickles name
    spec.loader.exec_module(module)
    return module


hostile, zips, tricks = _beside("hostile"), _beside("hostile_zips"), _beside("hostile_tricks")
paths, designs, sizes = _beside("hostile_paths"), _beside("hostile_designs"), _beside("hostile_sizes")
DESIGNS, SIZES = designs.collect(hostile), sizes.collect(hostile, zips)
CASES = {**hostile.ALL, **zips.ALL, **tricks.collect(hostile), **paths.collect(hostile), **DESIGNS, **SIZES}
SCAN = np.zeros((8, 8, 2), np.float32)


def _files(folder):
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


EARLIER = [pytest.param(name, marks=pytest.mark.slow) for name in CASES if name not in {**DESIGNS, **SIZES}]


@pytest.mark.parametrize("name", [*DESIGNS, *SIZES, *EARLIER])
def test_nothing_of_a_hostile_bundle_runs(name, tmp_path, monkeypatch):
    code, make = CASES[name]
    canary = tmp_path / "canary"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a zip with a name twice
        path = make(hostile.clean(tmp_path / "bundle"), canary)
    before = _files(tmp_path)
    monkeypatch.chdir(path if path.is_dir() else tmp_path)
    inspection = inspect_bundle(path)
    if code != hostile.RUNS_NOTHING:
        assert code in {finding.code for finding in inspection.findings}, [str(entry) for entry in inspection.findings]
    if path.is_dir():
        with contextlib.suppress(MedsegError):
            predictor = Predictor(Bundle.open(path), {"device": "cpu"})
            predictor.segment(predictor.load_array(SCAN, Grid(SCAN.shape, np.eye(4))))
        with pytest.raises((UntrustedError, ConfigError)):
            run_bundle(Bundle.open(path), "training")
        with contextlib.suppress(MedsegError):
            assert resume_command(path).folder == Path.cwd()
    assert not canary.exists()
    assert _files(tmp_path) == before
    assert not {"helper", "torch.py", "evil"} & set(sys.modules)


SLOW_TO_READ = ("macros-that-double", "a-pickle-of-many-opcodes", "many-keys", "a-long-row")
VERIFIED = (
    *("a-path-of-an-empty-time-zone", "macros-that-double", "a-component-of-another-module", "a-call-in-an-argument"),
    *("expression-a-power-of-powers", "macro-of-another-file", "code-that-hides-a-package", "an-evaluation-that-runs"),
    *("target-own-module", "import-from", "code-scripts/__init__.py", "metadata-shape"),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", VERIFIED)
def test_nothing_of_it_runs_when_it_is_verified(name, tmp_path):
    canary = tmp_path / "canary"
    path = CASES[name][1](hostile.clean(tmp_path / "bundle"), canary)
    before = _files(tmp_path)
    assert verify_bundle(path)
    assert not canary.exists()
    assert _files(tmp_path) == before


# Refused for what the names say; what is not in this list is not looked at, and the mask is as it was.
def test_what_is_refused_names_the_key_and_what_is_not_looked_at_changes_nothing(tmp_path):
    clean = Predictor(Bundle.open(hostile.clean(tmp_path / "clean")), {"device": "cpu"})
    expected = clean.segment(clean.load_array(SCAN, Grid(SCAN.shape, np.eye(4)))).label
    predicted, refused = {}, {}
    for name, (_, make) in DESIGNS.items():
        root = make(hostile.clean(tmp_path / name), tmp_path / "canary")
        try:
            predictor = Predictor(Bundle.open(root), {"device": "cpu"})
        except MedsegError as error:
            refused[name] = error
        else:
            predicted[name] = predictor.segment(predictor.load_array(SCAN, Grid(SCAN.shape, np.eye(4)))).label
    assert all(np.array_equal(label, expected) for label in predicted.values())
    for name, error in refused.items():
        if isinstance(error, UntrustedError):
            assert "without trust its key '" in error.problem, name
            assert "--trust" in error.fix, name
    assert set(predicted) == {
        *("a-path-of-an-empty-time-zone", "an-escaped-key-in-a-datalist", "a-name-that-ends-above"),
        *("a-saver-of-its-own", "a-saver-beside-the-bundle", "a-cache-of-numba", "settings-of-numba"),
        *("a-cache-of-matplotlib", "a-recorded-working-directory", "a-filter-of-git"),
        *("a-filter-of-git-by-its-common-folder", "a-root-of-its-own", "a-device-that-is-a-path"),
        *("code-that-hides-a-module", "code-that-hides-a-package", "code-that-hides-site", "an-evaluation-that-runs"),
        *("metadata-that-runs", "a-pickle-of-many-opcodes", "a-saver-in-the-preprocessing"),
    }


@pytest.mark.parametrize("name", [*SIZES, *SLOW_TO_READ])
def test_a_look_takes_under_a_second(name, tmp_path):
    path = CASES[name][1](hostile.clean(tmp_path / "bundle"), tmp_path / "canary")
    assert min(_timed(path) for _ in range(3)) < 1


def _timed(path):
    began = time.process_time()  # of this process: the machine may be busy with others
    inspect_bundle(path)
    return time.process_time() - began


def test_the_clean_bundle_gives_no_finding(tmp_path):
    made = hostile.clean(tmp_path / "bundle")
    inspection = inspect_bundle(made)
    assert (inspection.findings, list(inspection.needs_trust)) == ([], ["train"])
    assert inspect_bundle(zips.pack(made, tmp_path / "bundle.zip")).findings == []


def test_payloads_work_when_they_are_loaded(tmp_path):
    canary = tmp_path / "canary"
    for name in ("pickle-plain", "pickle-protocol-0"):
        root = hostile.ALL[name][1](hostile.clean(tmp_path / name), canary)
        pickle.loads((root / "docs" / "a.pkl").read_bytes())
        assert canary.exists()
        canary.unlink()


@pytest.mark.parametrize("bundle", sorted(path.parent.name for path in hostile.RECIPE.parent.glob("*/configs")))
def test_own_bundles_give_no_finding_and_predict_without_trust_once_trained(bundle, tmp_path):
    inspection = inspect_bundle(hostile.RECIPE.parent / bundle)
    assert inspection.findings == []
    assert "label_map.json" in inspection.needs_trust.get("predict", "label_map.json")
