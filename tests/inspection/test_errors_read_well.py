"""Errors and findings of inspection, exactly as they are printed."""

import zipfile

import pytest

from medseg.errors import BundleError
from medseg.inspection import inspect_bundle, unpack


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
