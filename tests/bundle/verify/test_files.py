"""Files of a bundle, and the manifest of a packed one."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile

import pytest

from medseg.atomic import write_json
from medseg.bundle.share.archive import write_archive
from medseg.bundle.verify.bundle_files import BundleFiles
from medseg.bundle.verify.files import check_files, check_manifest
from medseg.bundle.verify.manifest import MANIFEST, compare, files_of, make_manifest, read_manifest, sha256_of
from medseg.errors import DataError


def test_a_recipe_has_no_weights(codes_of):
    gone = [lambda root: (root / "models/model.pt").unlink(), lambda root: (root / "label_map.json").unlink()]
    assert codes_of(check_files, *gone) == []


def test_a_bundle_for_inference_alone_needs_them(codes_of):
    gone = [lambda root: (root / "models/model.pt").unlink(), lambda root: (root / "label_map.json").unlink(),
            lambda root: (root / "configs/train.json").unlink()]  # fmt: skip
    assert codes_of(check_files, *gone) == [("weights-missing", "models/model.pt")]


def test_safetensors_are_weights(codes_of):
    assert (
        codes_of(check_files, lambda root: (root / "models/model.pt").rename(root / "models/model.safetensors")) == []
    )


def test_train_and_inference_both_missing(codes_of):
    gone = [lambda root, name=name: (root / "configs" / f"{name}.json").unlink() for name in ("train", "inference")]
    assert codes_of(check_files, *gone) == [("file-missing", "configs")]


def test_large_files_yml_lists_the_weights(codes_of):
    faults = [lambda root: (root / "models/model.pt").unlink(), lambda root: (root / "large_files.yml").write_text("")]
    assert codes_of(check_files, *faults) == [("weights-elsewhere", "large_files.yml")]


@pytest.fixture
def packed(plain):
    write_json(plain / "manifest.json", make_manifest(plain, {}))
    return plain


def check(root):
    return [(finding.severity, finding.code, finding.location) for finding in check_manifest(BundleFiles(root))]


def test_an_unchanged_packed_bundle(packed):
    assert check(packed) == []


def test_without_a_manifest_nothing_is_compared(plain):
    assert check(plain) == []


def test_changed_lost_and_added_files(packed):
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


def test_an_unreadable_manifest(packed):
    (packed / "manifest.json").write_text("[]")
    assert check(packed) == [("error", "manifest", "manifest.json")]


@pytest.fixture
def folder(tmp_path):
    location = tmp_path / "bundle"
    for name, text in (("configs/a.json", "{}"), ("b c.txt", "b"), ("models/ü.bin", "x" * 3000)):
        (location / name).parent.mkdir(parents=True, exist_ok=True)
        (location / name).write_text(text)
    (location / MANIFEST).write_text(json.dumps(make_manifest(location, {"bundle": "it"})))
    return location


def test_the_manifest_has_the_sums_of_sha256sum(folder):
    content = json.loads((folder / MANIFEST).read_text())
    assert content["format"] == 1
    assert content["bundle"] == "it"
    assert list(content["files"]) == ["b c.txt", "configs/a.json", "models/ü.bin"]
    assert content["files"]["b c.txt"] == {"sha256": hashlib.sha256(b"b").hexdigest(), "bytes": 1}
    assert sha256_of(folder / "models" / "ü.bin") == hashlib.sha256(b"x" * 3000).hexdigest()


@pytest.mark.parametrize("top", ["", "bundle"])
def test_a_complete_bundle_matches_its_manifest(folder, tmp_path, top):
    assert compare(folder) == []
    assert compare(write_archive(folder, tmp_path / "a.zip", top)) == []


def spoil(folder, what):
    if what == "file-changed":
        (folder / "b c.txt").write_text("B")
    elif what == "file-missing":
        (folder / "b c.txt").unlink()
    else:
        (folder / "b.txt").write_text("more")


@pytest.mark.parametrize("what", ["file-changed", "file-missing", "file-not-listed"])
@pytest.mark.parametrize("packed", [False, True])
def test_each_manifest_fault_names_its_file(folder, tmp_path, what, packed):
    spoil(folder, what)
    (findings,) = compare(write_archive(folder, tmp_path / "a.zip", "it") if packed else folder)
    assert (findings.code, findings.severity) == (what, "error")
    assert findings.location == ("b.txt" if what == "file-not-listed" else "b c.txt")


def test_a_flipped_bit_in_a_zip_is_found(folder, tmp_path):
    path = write_archive(folder, tmp_path / "a.zip")
    content = bytearray(path.read_bytes())
    content[content.index(b"xxxx") + 100] ^= 1
    path.write_bytes(bytes(content))
    assert [(finding.code, finding.location) for finding in compare(path)] == [("file-changed", "models/ü.bin")]


def test_a_missing_manifest_is_a_warning(folder):
    (folder / MANIFEST).unlink()
    (findings,) = compare(folder)
    assert (findings.code, findings.severity) == ("no-manifest", "warning")
    assert read_manifest(folder) is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"format": 1}', '{"format": 1, "files": {"a": 1}}', '{"format": "x", "files": {}}']
)
def test_an_invalid_manifest_is_refused(folder, text):
    (folder / MANIFEST).write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json: it does not list files with their SHA-256"):
        compare(folder)


def test_a_newer_format_and_other_files_are_refused(folder, tmp_path):
    (folder / MANIFEST).write_text('{"format": 2, "files": {}}')
    with pytest.raises(
        DataError, match=r"its format 2 was written by a newer medseg, and this one reads 1\. Update medseg"
    ):
        read_manifest(folder)
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"a\.zip: the zip is damaged or not safe to unpack \(it is no whole zip"):
        compare(tmp_path / "a.zip")


def test_a_zip_entry_of_another_size_is_not_read(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in files_of(folder).items():
            archive.writestr(name, os.urandom(10_000) if name == "b c.txt" else path.read_bytes())
    assert [finding.location for finding in compare(tmp_path / "a.zip")] == ["b c.txt"]
