"""Errors and findings of inspection, exactly as they are printed."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from medseg.errors import BundleError, UntrustedError
from medseg.inspection import inspect_bundle, require_trust, unpack

RECIPE = Path(__file__).parents[2] / "bundles" / "unet2d"


@pytest.fixture
def root(tmp_path):
    return Path(shutil.copytree(RECIPE, tmp_path / "b"))


def change(root, **values):
    path = root / "configs" / "train.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_an_untrusted_bundle(root):
    change(root, lr="$open('x')")
    with pytest.raises(UntrustedError) as error:
        require_trust(root, False)
    assert str(error.value) == (
        f"bundle {root}: it could do harm, with 1 unsafe thing: expression-unknown in configs/train.json, lr: it calls "
        f"'open', which is not known: $open('x'). See all of it with: medseg bundle inspect {root}. If you trust its "
        "maker, give --trust (trust=True in Python)."
    )


def test_a_path_that_is_no_bundle(tmp_path):
    with pytest.raises(BundleError) as error:
        inspect_bundle(tmp_path / "gone")
    fix = "Give the folder of a bundle, or a zip of it."
    assert str(error.value) == f"{tmp_path / 'gone'}: there is no folder and no file of this name. {fix}"
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(BundleError) as error:
        inspect_bundle(tmp_path / "x.txt")
    assert str(error.value) == f"{tmp_path / 'x.txt'}: this file is no zip. {fix}"


def test_a_zip_that_is_not_safe_to_unpack(tmp_path):
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("../evil", "x")
    with pytest.raises(BundleError) as error:
        unpack(tmp_path / "b.zip", tmp_path / "out")
    assert str(error.value) == (
        f"{tmp_path / 'b.zip'}: this zip is not safe to unpack: ../evil: its name may not be unpacked: it climbs out "
        "of the folder. Ask its maker for another copy."
    )


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"evil": {"_target_": "os.system"}},
            "error target-unknown: configs/train.json, evil#_target_: it is not on the list of callables: os.system. "
            "Read it, and give --trust if you trust the bundle's maker.",
        ),
        (
            {"evil": {"_target_": "LogfileHandler", "output_dir": "/etc"}},
            "error argument-unsafe: configs/train.json, evil#output_dir: monai.handlers.LogfileHandler: output_dir: it "
            "would write to '/etc', outside of the bundle. Read it, and give --trust if you trust the bundle's maker.",
        ),
        (
            {"evil": "%other.json::loss"},
            "error config-macro: configs/train.json, evil: '%other.json::loss' would read another file as a config. "
            "Write it without, or give --trust if you trust the bundle's maker.",
        ),
    ],
)
def test_findings(root, values, line):
    change(root, **values)
    assert [str(finding) for finding in inspect_bundle(root).findings] == [line]
