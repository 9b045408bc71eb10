"""Every bundle of the project, once it is trained, is packed and installed, whatever it takes."""

import json
import zipfile
from pathlib import Path

import pytest

from medseg.bundle import Bundle, run_bundle
from medseg.bundle.share import install_bundle, pack_bundle

BUNDLES = Path(__file__).resolve().parents[3] / "bundles"
OTHERS = sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/inference.json"))
OTHERS.remove("unet2d")  # which the other tests here are about
SMALL = {"max_epochs": 1, "device": "cpu", "num_workers": 0, "batch_size": 2}
SETTINGS = {
    "segformer2d": {
        **SMALL,
        "image_size": [64, 64],
        "phantom": {"train": 1, "val": 1, "slices": 2, "size": [64, 72]},
        "variant": {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "decoder_hidden_size": 16},
    }
}
EXTRA = {"segformer2d": "transformers"}


@pytest.mark.parametrize("name", OTHERS)
def test_trained_packed_and_installed_it_gives_its_own_masks_again(name, tmp_path):
    pytest.importorskip(EXTRA[name], reason=f"{name} needs it")
    overrides = {**SETTINGS[name], "output_dir": str(tmp_path / "runs")}
    run_bundle(Bundle.open(name), "training", "train", (), overrides)
    (record,) = (tmp_path / "runs").glob(f"{name}/*/run.json")
    path = pack_bundle(record.parent, tmp_path / "a.zip")
    with zipfile.ZipFile(path) as archive:
        secret = [str(tmp_path).encode(), json.loads(record.read_text())["identity"].encode()]
        assert not [one for one in archive.namelist() for word in secret if word in archive.read(one)]
    made = install_bundle(path, tmp_path / "there")
    assert made.test is not None
    assert made.test.files > 0
    assert made.test.differing == 0
