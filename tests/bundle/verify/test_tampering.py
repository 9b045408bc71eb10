"""Files against the manifest of a packed bundle."""

from __future__ import annotations

import pytest

from medseg.atomic import write_json
from medseg.bundle.share.manifest import make_manifest
from medseg.bundle.verify import tampering
from medseg.bundle.verify.opened import Opened


@pytest.fixture
def packed(plain):
    write_json(plain / "manifest.json", make_manifest(plain, {}))
    return plain


def check(root):
    return [(one.severity, one.code, one.location) for one in tampering.check(Opened(root))]


def test_what_was_packed_is_as_it_was(packed):
    assert check(packed) == []


def test_without_a_manifest_nothing_is_said(plain):
    assert check(plain) == []


def test_changed_lost_and_put_in(packed):
    (packed / "LICENSE").write_text("other")
    (packed / "label_map.json").unlink()
    (packed / "configs" / "extra.json").write_text("{}")
    (packed / "eval").mkdir()
    (packed / "eval" / "scores.csv").write_text("")
    assert sorted(check(packed)) == [
        ("error", "file-changed", "LICENSE"),
        ("error", "file-missing", "label_map.json"),
        ("error", "file-not-listed", "configs/extra.json"),
        ("note", "file-not-listed", "eval/scores.csv"),
    ]


def test_a_manifest_that_is_none(packed):
    (packed / "manifest.json").write_text("[]")
    assert check(packed) == [("error", "manifest", "manifest.json")]
