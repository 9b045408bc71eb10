"""A zip becomes a bundle that does here what it did there, or nothing is left of it."""

import io
import json
import os
import signal
import time
import zipfile
from pathlib import Path

import fsspec
import pytest
import safetensors.torch
import torch

from medseg.bundle.share import install, install_bundle
from medseg.bundle.share.archive import write_archive
from medseg.bundle.verify.manifest import make_manifest
from medseg.errors import BundleError, ConfigError, DataError, MedsegError, OutputError, UntrustedError
from medseg.runs.find import find_bundle

pytestmark = pytest.mark.slow


def changed(packed, folder, change, relist=False, top="unet2d"):
    """The packed bundle with its files changed by a function on `{name: bytes}`; `relist` makes the manifest anew."""
    with zipfile.ZipFile(packed) as archive:
        files = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(files)
    location = folder / "content"
    for name, content in files.items():
        (location / name).parent.mkdir(parents=True, exist_ok=True)
        (location / name).write_bytes(content)
    if relist:
        old = json.loads(files["manifest.json"])
        about = {key: value for key, value in old.items() if key not in ("files", "format")}
        (location / "manifest.json").write_text(json.dumps(make_manifest(location, about)))
    return write_archive(location, folder / "changed.zip", top)


def test_install_reproduces_the_self_test(packed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    installed = install_bundle(packed)
    assert installed.root == tmp_path / "bundles" / "unet2d"
    assert (installed.name, installed.version, installed.has_manifest) == ("unet2d", "0.1.0", True)
    assert installed.test is not None
    assert (installed.test.differing, installed.test.mean_dice) == (0, 1.0)
    assert installed.test.total == 96 * 72 * 26
    with zipfile.ZipFile(packed) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
    assert {
        path.relative_to(installed.root).as_posix() for path in installed.root.rglob("*") if path.is_file()
    } == names
    with pytest.raises(OutputError, match="the folder has files already"):
        install_bundle(packed)


def swapped(files):
    """Weights of another network of the same shape: nothing but the self-test can tell."""
    state = torch.load(io.BytesIO(files["models/model.pt"]), weights_only=True)
    torch.manual_seed(1)
    buffer = io.BytesIO()
    others = {name: torch.randn(part.shape) if part.is_floating_point() else part for name, part in state.items()}
    torch.save(others, buffer)
    files["models/model.pt"] = buffer.getvalue()
    files["models/model.safetensors"] = safetensors.torch.save(others)


def newer(key, value):
    def change(files):
        metadata = json.loads(files["configs/metadata.json"])
        files["configs/metadata.json"] = json.dumps({**metadata, key: value}).encode()

    return change


def newer_form(files):
    files["manifest.json"] = json.dumps({**json.loads(files["manifest.json"]), "format": 99}).encode()


def no_weights(files):
    del files["models/model.pt"]
    del files["models/model.safetensors"]


PICKLE = b"cos\nsystem\n."
REFUSED = {
    "a changed file": (lambda files: files.update({"LICENSE": b"mine"}), False, "file-changed in LICENSE"),
    "a lost file": (lambda files: files.pop("label_map.json"), False, "file-missing in label_map"),
    "a file more": (lambda files: files.update({"docs/a.md": b"1"}), False, "file-not-listed in docs/a.md"),
    "a pickle": (lambda files: files.update({"docs/a.pkl": PICKLE}), True, "pickle-unsafe in docs/a.pkl"),
    "a newer medseg": (
        newer("required_packages_version", {"medseg": "99.1.0"}),
        True,
        r"the bundle was made with medseg 99\.1\.0, and 0\.\d+\.\d+ is installed",
    ),
    "a newer MONAI": (newer("monai_version", "99.1"), True, r"made with monai 99\.1, and 1\.\d+\.\d+ is installed"),
    "a newer form": (newer_form, False, "its format 99 was written by a newer medseg"),
    "a manifest that is none": (lambda files: files.update({"manifest.json": b"[]"}), False, "does not list files"),
    "missing weights": (no_weights, True, "weights-missing"),
    "other weights": (swapped, True, "its self-test gives another mask here .*voxels differ.*--no-self-test"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_bundle_leaves_nothing_behind(packed, tmp_path, name):
    change, relist, why = REFUSED[name]
    path = changed(packed, tmp_path, change, relist)
    with pytest.raises(MedsegError, match=why):
        install_bundle(path, tmp_path / "new" / "place" / "there")
    assert not (tmp_path / "new").exists()


def test_other_weights_pass_without_the_self_test(packed, tmp_path):
    installed = install_bundle(changed(packed, tmp_path, swapped, True), tmp_path / "there", self_test=False)
    assert installed.test is None


def test_a_truncated_zip_and_other_files_are_refused(packed, tmp_path):
    for name, content in (("cut", packed.read_bytes()[:-1000]), ("text", b"hello"), ("empty", b"")):
        path = tmp_path / f"{name}.zip"
        path.write_bytes(content)
        with pytest.raises(BundleError, match=rf"^{name}\.zip: the zip is damaged or not safe to unpack .*zip-damaged"):
            install_bundle(path, tmp_path / "there")
    with pytest.raises(DataError, match="the file does not exist"):
        install_bundle(tmp_path / "missing.zip", tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_install_refuses_another_sha256(packed, tmp_path):
    with pytest.raises(DataError, match=f"its SHA-256 must be {'0' * 64}"):
        install_bundle(packed, tmp_path / "there", sha256="0" * 64)


def test_an_untrusted_fetched_bundle_says_how_to_inspect_it(packed, tmp_path):
    path = changed(packed, tmp_path, lambda files: files.update({"docs/a.pkl": PICKLE}), True)
    location = fsspec.filesystem("memory")
    location.put_file(str(path), "/h3i/a.zip")
    try:
        with pytest.raises(
            UntrustedError, match=r"^memory://h3i/a\.zip: .*medseg bundle pull memory://h3i/a\.zip, then"
        ):
            install_bundle("memory://h3i/a.zip", tmp_path / "there")
        with pytest.raises(UntrustedError, match=rf"bundle inspect {path}"):
            install_bundle(path, tmp_path / "there")
        assert install_bundle("memory://h3i/a.zip", tmp_path / "there", trust=True).root == tmp_path / "there"
    finally:
        location.rm("/h3i", recursive=True)


def test_install_reports_a_missing_manifest(packed, tmp_path):
    path = changed(packed, tmp_path, lambda files: files.pop("manifest.json"))
    installed = install_bundle(path, tmp_path / "there", self_test=False)
    assert not installed.has_manifest


def test_a_path_as_name_in_a_manifest_is_harmless(packed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def change(files):
        manifest = json.loads(files["manifest.json"])
        files["manifest.json"] = json.dumps({**manifest, "bundle": "../../out"}).encode()

    installed = install_bundle(changed(packed, tmp_path, change), self_test=False)
    assert installed.root == tmp_path / "bundles" / "out"


def test_a_folder_with_files_is_left_unchanged(packed, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("mine")
    with pytest.raises(OutputError, match="the folder has files already"):
        install_bundle(packed, tmp_path / "there")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["mine"]
    with pytest.raises(OutputError, match="the folder has files already"):
        install_bundle(packed, tmp_path / "there" / "mine")


def test_install_reports_a_hidden_bundle(packed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert install_bundle(packed, self_test=False).hides == "unet2d"
    assert install_bundle(packed, "bundles/another", self_test=False).hides is None
    assert install_bundle(packed, "there/unet2d", self_test=False).hides is None


@pytest.mark.parametrize("location", [".", "..", ""])
def test_install_into_the_working_directory_is_refused(packed, tmp_path, monkeypatch, location):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(OutputError, match="cannot be installed in the working directory"):
        install_bundle(packed, location, self_test=False)
    assert not list((tmp_path / "here").iterdir())


def test_leftovers_of_a_killed_install_are_removed(packed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    old, going = (tmp_path / "bundles" / f".unet2d.{part * 8}.partial" for part in "ab")
    for left in (old, going):
        (left / "configs").mkdir(parents=True)
        (left / "configs" / "metadata.json").write_text("{}")
    hours = time.time() - 7200
    for path in (*old.rglob("*"), old):
        os.utime(path, (hours, hours))
    with pytest.raises(ConfigError, match="there is no bundle or run of that name") as caught:
        find_bundle("zzz")
    assert "partial" not in str(caught.value)
    install_bundle(packed, self_test=False)
    assert sorted(path.name for path in (tmp_path / "bundles").iterdir()) == [going.name, "unet2d"]


def test_sigterm_during_install_leaves_nothing(packed, tmp_path, monkeypatch):
    def stopped(*_):
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(install, "run_self_test", stopped)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt):
            install_bundle(packed, tmp_path / "new" / "there")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not (tmp_path / "new").exists()


def test_an_interrupt_while_moving_the_folder_leaves_nothing(packed, tmp_path, monkeypatch):
    def stopped(source, target):
        assert Path(source).is_dir()
        raise KeyboardInterrupt

    monkeypatch.setattr(install, "move", stopped)
    with pytest.raises(KeyboardInterrupt):
        install_bundle(packed, tmp_path / "new" / "there")
    assert not (tmp_path / "new").exists()


def test_the_second_of_two_installs_is_refused(packed, tmp_path, monkeypatch):
    def others(*_):
        (tmp_path / "there").mkdir()
        (tmp_path / "there" / "theirs").write_text("theirs")

    monkeypatch.setattr(install, "run_self_test", others)
    with pytest.raises(OutputError, match=r"there: another process wrote this folder in the meantime"):
        install_bundle(packed, tmp_path / "there")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["theirs"]


def test_install_errors_name_the_zip_and_no_temporary_folder(packed, tmp_path):
    def broken(files):
        files["models/model.pt"] = files["models/model.pt"][:-100]
        del files["models/model.safetensors"]

    def lost(files):
        del files["selftest/expected/phantom.nii.gz"]

    for change in (broken, lost):
        path = changed(packed, tmp_path / change.__name__, change, True)
        with pytest.raises(MedsegError, match=r"changed\.zip") as caught:
            install_bundle(path, tmp_path / "there")
        assert "partial" not in str(caught.value)
