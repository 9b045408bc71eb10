"""Errors of sharing, exactly as they are printed."""

import json

import pytest

from medseg.bundle import Bundle
from medseg.bundle.scaffold import new_bundle
from medseg.bundle.share import install_bundle, pack_bundle, push
from medseg.bundle.share.sanitize import sanitize_config
from medseg.bundle.share.transfer import fetch
from medseg.bundle.verify import verify_bundle
from medseg.errors import MedsegError


def printed(work):
    with pytest.raises(MedsegError) as caught:
        work()
    return str(caught.value)


def test_packing_what_is_not_fit(tmp_path):
    assert (
        printed(lambda: pack_bundle("unet2d", tmp_path))
        == f"{tmp_path}: this is a folder. Give a name that ends in .zip."
    )
    weights = Bundle.open("unet2d").root / "models" / "model.pt"
    assert printed(lambda: pack_bundle("unet2d", tmp_path / "a.zip")) == (
        f"{weights}: the trained weights are missing. Train the bundle first, or pack the folder of a run."
    )
    config = {"lr": "$open('/home/joe/lr.txt')"}
    assert printed(lambda: sanitize_config(config, tmp_path / "train.json")) == (
        f"{tmp_path}/train.json, lr: the expression names a path on this machine (got '/home/joe/lr.txt'). "
        "Write paths relative to @bundle_root, and cases into split."
    )


def test_fetching_and_installing_what_is_damaged(tmp_path):
    assert printed(lambda: fetch(tmp_path / "a.zip", tmp_path)) == (
        f"{tmp_path}/a.zip: the file does not exist. Give a packed bundle, or where to fetch it."
    )
    (tmp_path / "a.zip").write_bytes(b"PK")
    assert printed(lambda: push(tmp_path / "a.zip", tmp_path / "b")) == (
        f"{tmp_path}/a.zip: the zip is damaged or not safe to unpack (it is no whole zip file: "
        "File is not a zip file). Fetch it again."
    )
    assert printed(lambda: fetch(tmp_path / "a.zip", tmp_path, "12ab")) == (
        "sha256: a SHA-256 has 64 hexadecimal digits (got '12ab'). Copy all of it."
    )
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine").write_text("mine")
    message = printed(lambda: install_bundle(tmp_path / "a.zip", tmp_path / "here"))
    assert message.startswith("a.zip: the zip is damaged or not safe to unpack (zip-damaged in a.zip: ")
    assert message.endswith("). Fetch it again.")


def test_verifying_and_creating(tmp_path):
    assert printed(lambda: verify_bundle(tmp_path / "nothing")) == (
        f"{tmp_path}/nothing: there is no bundle here. Give the folder of a bundle, or a zip of it."
    )
    model = Bundle.open("unet2d")
    assert printed(lambda: new_bundle("a b", model, ["liver"], folder=tmp_path)) == (
        "bundle name 'a b': a name has letters, digits, - and _, and is not that of a device. "
        "Choose another name, such as lesions."
    )
    assert printed(lambda: new_bundle("mine", model, ["ribs", "tumor"], folder=tmp_path)) == (
        "class 'ribs': a group of TotalSegmentator cannot be combined with custom names (got tumor). "
        "Name its members, or call the class something else."
    )


def test_findings_are_whole_sentences(tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps({"version": "1.0.0", "changelog": {}}))
    findings = {finding.code: str(finding) for finding in verify_bundle(tmp_path)}
    assert findings["version-changelog"] == (
        "error version-changelog: configs/metadata.json, changelog: version 1.0.0 is missing, the changelog has no "
        "version. Say what is new in it."
    )
    assert findings["weights-missing"] == (
        "error weights-missing: models/model.pt: the bundle has no weights. Finish the training, or copy them from "
        "where it ran."
    )
