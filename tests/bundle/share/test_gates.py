"""What inspection and verification find keeps a bundle from being packed and installed."""

import logging

import pytest

from medseg.bundle.share import gates
from medseg.errors import BundleError, WeightsError
from medseg.findings import error, note, warning


def test_errors_of_verification_refuse_and_warnings_are_said(monkeypatch, tmp_path, caplog):
    found = [
        error("weights-missing", "models", "no weights"),
        warning("old", "metadata", "it is old"),
        note("a", "b", "c"),
    ]
    monkeypatch.setattr("medseg.bundle.share.gates.verify_bundle", lambda root, trust: found[1:])
    with caplog.at_level(logging.WARNING):
        gates.require_clean(tmp_path, False, "a.zip")
    assert [record.message for record in caplog.records] == ["warning old: metadata: it is old."]
    caplog.clear()
    gates.require_clean(tmp_path, False, "a.zip", ("old",))
    assert not caplog.records
    monkeypatch.setattr("medseg.bundle.share.gates.verify_bundle", lambda root, trust: found)
    with pytest.raises(BundleError, match=r"a\.zip: must be whole and consistent [(]1 fault: weights-missing"):
        gates.require_clean(tmp_path, True, "a.zip")


def test_many_faults_are_counted_and_the_first_shown():
    many = [error("fault", f"place{number}", "it is wrong") for number in range(8)]
    with pytest.raises(BundleError, match=r"8 faults: fault in place0: .*place4: it is wrong; and 3 more\. Mend it\."):
        gates.refuse("a.zip", "must be right", many, "Mend it.")


def test_errors_about_a_folder_that_is_gone_name_what_the_user_knows(tmp_path):
    folder = tmp_path / ".it.abcd.partial"
    said = gates.renamed(
        WeightsError(folder / "models" / "model.pt", "must be whole", ".it.abcd.partial", "Mend."), folder, "a.zip"
    )
    assert isinstance(said, WeightsError)
    assert str(said) == "a.zip/models/model.pt: must be whole (a.zip. Mend."
