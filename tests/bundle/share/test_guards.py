"""Unfit bundles are refused, errors name what the user knows, SIGTERM cleans up."""

from __future__ import annotations

import logging
import signal
import sys
import threading

import pytest

from medseg.bundle.share import guards
from medseg.bundle.share.guards import sigterm_as_interrupt
from medseg.errors import BundleError, WeightsError
from medseg.findings import error, note, warning


def test_verification_errors_refuse_and_warnings_are_logged(monkeypatch, tmp_path, caplog):
    all_findings = [
        error("weights-missing", "models", "no weights"),
        warning("old", "metadata", "it is old"),
        note("a", "b", "c"),
    ]
    monkeypatch.setattr("medseg.bundle.share.guards.verify_bundle", lambda root, trust: all_findings[1:])
    with caplog.at_level(logging.WARNING):
        guards.require_clean(tmp_path, False, "a.zip")
    assert [record.message for record in caplog.records] == ["warning old: metadata: it is old."]
    monkeypatch.setattr("medseg.bundle.share.guards.verify_bundle", lambda root, trust: all_findings)
    with pytest.raises(
        BundleError,
        match=r"a\.zip: the bundle has 1 fault \(weights-missing in models: no weights\)\. medseg bundle verify",
    ):
        guards.require_clean(tmp_path, True, "a.zip")


SPARED = {
    ("pairing", "configs/train.json, train#dataset#data"): (True, True),
    ("path-absolute", "configs/inference.json, dataset_dir"): (True, True),
    ("metadata-schema", "configs/metadata.json, authors"): (True, True),
    ("argument-unknown", "configs/train.json, loss"): (True, True),
    ("target-missing", "configs/evaluate.json, x"): (True, True),
    ("argument-unknown", "configs/inference.json, network_def"): (False, True),
    ("expression-name", "configs/inference.json, datalist"): (False, True),
    ("preprocessing-drift", "configs/inference.json, preprocessing"): (False, True),
    ("label-order", "configs/train.json, labels"): (False, False),
    ("label-names", "configs/metadata.json, channel_def"): (False, False),
    ("flip-contralaterals", "configs/train.json, flip"): (False, False),
    ("network-drift", "configs/evaluate.json, network_def"): (False, False),
    ("weights-fit", "models/model.pt"): (False, False),
    ("weights-differ", "models/model.safetensors"): (False, False),
    ("weights-not-loaded", "configs/inference.json"): (False, False),
    ("channel-def", "configs/metadata.json, x"): (False, False),
    ("package-old", "configs/metadata.json, monai_version"): (False, False),
    ("file-missing", "configs/metadata.json"): (False, False),
    ("file-changed", "LICENSE"): (False, False),
    ("config-unreadable", "configs/inference.json"): (False, False),
}


@pytest.mark.parametrize(("code", "location"), SPARED)
def test_install_refuses_what_makes_a_wrong_mask(code, location):
    finding = error(code, location, "it is wrong")
    assert tuple(guards.spares_masks(finding, is_ours) for is_ours in (True, False)) == SPARED[code, location]


def test_a_tolerated_fault_is_a_warning(monkeypatch, tmp_path, caplog):
    found = [error("pairing", "configs/train.json", "by order"), error("weights-fit", "models", "no fit")]
    monkeypatch.setattr("medseg.bundle.share.guards.verify_bundle", lambda root, trust: found[:1])
    with caplog.at_level(logging.WARNING):
        guards.require_clean(tmp_path, False, "a.zip", lambda finding: finding.code == "pairing")
    assert [record.message for record in caplog.records] == ["warning pairing: configs/train.json: by order."]
    monkeypatch.setattr("medseg.bundle.share.guards.verify_bundle", lambda root, trust: found)
    with pytest.raises(BundleError, match=r"the bundle has 1 fault \(weights-fit"):
        guards.require_clean(tmp_path, False, "a.zip", lambda finding: finding.code == "pairing")


def test_many_faults_are_counted_and_the_first_shown():
    many = [error("fault", f"place{number}", "it is wrong") for number in range(8)]
    with pytest.raises(
        BundleError,
        match=r"^a\.zip: it has 8 faults \(fault in place0: .*place4: it is wrong; and 3 more\)\. Mend it\.$",
    ):
        guards.refuse("a.zip", "it has {faults}", many, "Mend it.")


def test_errors_name_the_zip_instead_of_a_temporary_folder(tmp_path):
    folder = tmp_path / ".it.abcd.partial"
    error = WeightsError(folder / "models" / "model.pt", "it is damaged", ".it.abcd.partial", "Copy it.")
    with pytest.raises(WeightsError) as caught, guards.errors_name(folder, "a.zip"):
        raise error
    assert str(caught.value) == "a.zip/models/model.pt: it is damaged (a.zip). Copy it."
    with pytest.raises(WeightsError) as caught, guards.errors_name(tmp_path / "bundle", "a.zip"):
        raise error
    assert caught.value is error


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process at once")
def test_sigterm_runs_cleanup_and_the_handler_is_restored():
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        cleared = []
        with pytest.raises(KeyboardInterrupt), sigterm_as_interrupt():
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                cleared.append(True)
        assert cleared
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_existing_handlers_stay():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with sigterm_as_interrupt():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_other_threads_keep_their_handlers():
    handlers = []

    def work():
        with sigterm_as_interrupt():
            handlers.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [signal.getsignal(signal.SIGTERM)]
