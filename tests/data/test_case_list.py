import pytest

from medseg.data.case_list import read_exclude, read_names, write_exclude
from medseg.errors import DataError


def test_a_written_list_is_read_back(tmp_path):
    reasons = {"s0002": "ct.nii.gz: cut\nshort", "s0001": ""}
    write_exclude(tmp_path / "x.txt", reasons)
    assert read_exclude(tmp_path / "x.txt") == {"s0001": "", "s0002": "ct.nii.gz: cut short"}


def test_a_list_written_by_hand_is_read(tmp_path):
    (tmp_path / "x.txt").write_bytes("\ufeff# mine\r\n\r\n  liver \r\nspleen# why\r\n".encode())
    assert read_names(tmp_path / "x.txt") == ("liver", "spleen")


def test_a_binary_file_is_refused(tmp_path):
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00\xd8")
    for path in (tmp_path / "x.txt", tmp_path / "none.txt"):
        with pytest.raises(DataError, match="text file with one name per line"):
            read_exclude(path)
