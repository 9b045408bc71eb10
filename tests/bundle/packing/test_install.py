"""A zip becomes a bundle that does here what it did there, or nothing is left of it."""

import io
import json
import zipfile

import fsspec
import pytest
import torch

from medseg.bundle.packing import install_bundle
from medseg.bundle.packing.archiving import write_archive
from medseg.bundle.packing.manifest import make_manifest
from medseg.bundle.packing.weights import safetensors
from medseg.errors import BundleError, DataError, MedsegError, OutputError, UntrustedError


def changed(packed, folder, change, relist=False, top="unet2d"):
    """The packed bundle with its files changed by a function on `{name: bytes}`; `relist` makes the manifest anew."""
    with zipfile.ZipFile(packed) as archive:
        files = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(files)
    place = folder / "content"
    for name, content in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)
    if relist:
        old = json.loads(files["manifest.json"])
        about = {key: value for key, value in old.items() if key not in ("files", "format")}
        (place / "manifest.json").write_text(json.dumps(make_manifest(place, about)))
    return write_archive(place, folder / "changed.zip", top)


def test_it_is_installed_and_the_self_test_gives_the_same_mask(packed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = install_bundle(packed)
    assert made.root == tmp_path / "bundles" / "unet2d"
    assert (made.name, made.version, made.listed) == ("unet2d", "0.1.0", True)
    assert made.test is not None
    assert (made.test.differing, made.test.mean_dice) == (0, 1.0)
    assert made.test.total == 96 * 72 * 23
    with zipfile.ZipFile(packed) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
    assert {path.relative_to(made.root).as_posix() for path in made.root.rglob("*") if path.is_file()} == names
    with pytest.raises(OutputError, match="must be a new or an empty folder"):
        install_bundle(packed)


def swapped(files):
    """Weights of another network of the same shape: nothing but the self-test can tell."""
    state = torch.load(io.BytesIO(files["models/model.pt"]), weights_only=True)
    torch.manual_seed(1)
    held = io.BytesIO()
    other = {name: torch.randn(one.shape) if one.is_floating_point() else one for name, one in state.items()}
    torch.save(other, held)
    files["models/model.pt"] = held.getvalue()
    files["models/model.safetensors"] = safetensors(other)


def newer(package):
    def change(files):
        manifest = json.loads(files["manifest.json"])
        manifest["made_with"][package] = "99.1.0"
        files["manifest.json"] = json.dumps(manifest).encode()

    return change


def newer_form(files):
    files["manifest.json"] = json.dumps({**json.loads(files["manifest.json"]), "format": 99}).encode()


def no_weights(files):
    del files["models/model.pt"]
    del files["models/model.safetensors"]


REFUSED = {
    "a changed file": (lambda files: files.update({"LICENSE": b"mine"}), False, "file-changed in LICENSE"),
    "a lost file": (lambda files: files.pop("label_map.json"), False, "file-missing in label_map"),
    "a file more": (lambda files: files.update({"docs/a.md": b"1"}), False, "file-not-listed in docs/a.md"),
    "a program": (lambda files: files.update({"scripts/a.py": b"1"}), True, "code-in-bundle in scripts/a.py"),
    "a newer medseg": (newer("medseg"), False, r"needs medseg 99\.1\.0 or later, but found 0\..*wheels/"),
    "a newer MONAI": (newer("monai"), False, r"needs monai 99\.1\.0 or later.*pip install --upgrade monai"),
    "a newer form": (newer_form, False, "form 99, of a newer medseg"),
    "a manifest that is none": (lambda files: files.update({"manifest.json": b"[]"}), False, "must list files"),
    "missing weights": (no_weights, True, "weights-missing"),
    "other weights": (swapped, True, "must give the mask here that came with it.*voxels differ.*--no-self-test"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_leaves_nothing_behind(packed, tmp_path, name):
    change, relist, why = REFUSED[name]
    path = changed(packed, tmp_path, change, relist)
    with pytest.raises(MedsegError, match=why):
        install_bundle(path, tmp_path / "new" / "place" / "there")
    assert not (tmp_path / "new").exists()


def test_other_weights_pass_without_the_self_test(packed, tmp_path):
    made = install_bundle(changed(packed, tmp_path, swapped, True), tmp_path / "there", self_test=False)
    assert made.test is None


def test_a_zip_cut_short_and_what_is_no_zip(packed, tmp_path):
    for name, content in (("cut", packed.read_bytes()[:-1000]), ("text", b"hello"), ("empty", b"")):
        path = tmp_path / f"{name}.zip"
        path.write_bytes(content)
        with pytest.raises(
            BundleError, match=rf"^{name}\.zip: must be a whole zip that is safe to unpack.*zip-damaged"
        ):
            install_bundle(path, tmp_path / "there")
    with pytest.raises(DataError, match="no such file"):
        install_bundle(tmp_path / "missing.zip", tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_another_sha256_than_was_told(packed, tmp_path):
    with pytest.raises(DataError, match=f"must have the SHA-256 {'0' * 64}"):
        install_bundle(packed, tmp_path / "there", sha256="0" * 64)


def test_of_one_that_was_fetched_it_is_said_how_to_look_into_it(packed, tmp_path):
    path = changed(packed, tmp_path, lambda files: files.update({"scripts/a.py": b"1"}), True)
    place = fsspec.filesystem("memory")
    place.put_file(str(path), "/h3i/a.zip")
    try:
        with pytest.raises(
            UntrustedError, match=r"^memory://h3i/a\.zip: .*medseg bundle pull memory://h3i/a\.zip, then"
        ):
            install_bundle("memory://h3i/a.zip", tmp_path / "there")
        with pytest.raises(UntrustedError, match=rf"bundle inspect {path}"):
            install_bundle(path, tmp_path / "there")
        assert install_bundle("memory://h3i/a.zip", tmp_path / "there", trust=True).root == tmp_path / "there"
    finally:
        place.rm("/h3i", recursive=True)


def test_a_zip_without_a_manifest_is_said_to_be_so(packed, tmp_path):
    path = changed(packed, tmp_path, lambda files: files.pop("manifest.json"))
    made = install_bundle(path, tmp_path / "there", self_test=False)
    assert not made.listed


def test_a_name_in_a_manifest_leads_nowhere(packed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def change(files):
        manifest = json.loads(files["manifest.json"])
        files["manifest.json"] = json.dumps({**manifest, "bundle": "../../out"}).encode()

    made = install_bundle(changed(packed, tmp_path, change), self_test=False)
    assert made.root == tmp_path / "bundles" / "out"


def test_a_folder_with_files_is_left_as_it_is(packed, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("mine")
    with pytest.raises(OutputError, match="must be a new or an empty folder"):
        install_bundle(packed, tmp_path / "there")
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["mine"]
    with pytest.raises(OutputError, match="must be a new or an empty folder"):
        install_bundle(packed, tmp_path / "there" / "mine")
