import pytest

from medseg.data import discover, prepare
from medseg.errors import DataError


def test_a_path_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(DataError, match="must be a folder with a data set, but found no such folder"):
        discover(tmp_path / "nowhere")


def test_an_empty_folder_says_what_it_should_hold(tmp_path):
    with pytest.raises(DataError, match=r"sXXXX/ct\.nii\.gz"):
        discover(tmp_path)


def test_a_file_is_refused(tmp_path):
    (tmp_path / "a.zip").touch()
    with pytest.raises(DataError, match="found a file"):
        discover(tmp_path / "a.zip")


def test_a_prepared_set_is_known_by_folder_and_by_datalist(case, tmp_path):
    prepare(case, tmp_path / "out")
    assert discover(tmp_path / "out") == discover(tmp_path / "out" / "datalist.json")
