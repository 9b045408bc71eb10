"""Python's own gzip is the reference."""

import gzip
import struct

import numpy as np
import pytest

from medseg.data.gzip_io import inflate, read_decompressed
from medseg.errors import DataError

CONTENT = np.random.default_rng(0).integers(0, 4, 50_000, dtype=np.uint8).tobytes()


@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_one_member_comes_out_whole(level):
    assert inflate(gzip.compress(CONTENT, level)) == CONTENT


def test_several_members_come_out_one_behind_the_other():
    parts = [CONTENT[start : start + 7000] for start in range(0, len(CONTENT), 7000)]
    assert inflate(b"".join(map(gzip.compress, [*parts, b""]))) == CONTENT
    assert inflate(gzip.compress(CONTENT) * 2) == CONTENT * 2  # of like length, too


def test_content_that_is_not_compressed_stays_as_it_is():
    assert inflate(CONTENT) == CONTENT
    assert inflate(b"") == b""


def test_an_empty_member_is_empty():
    assert inflate(gzip.compress(b"")) == b""


@pytest.mark.parametrize("left", [5, 17, 100, -1])
def test_a_file_that_is_cut_short_is_refused(tmp_path, left):
    path = tmp_path / "mask.nii.gz"
    path.write_bytes(gzip.compress(CONTENT)[:left])
    with pytest.raises(DataError, match=r"mask\.nii\.gz: the file is damaged or cut short"):
        read_decompressed(path)


def test_a_wrong_checksum_is_refused(tmp_path):
    content = bytearray(gzip.compress(CONTENT))
    content[-6] ^= 1
    path = tmp_path / "mask.nii.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="CRC check failed"):
        read_decompressed(path)


def test_a_flipped_bit_anywhere_in_the_stream_is_refused(tmp_path):
    content = gzip.compress(CONTENT)
    path = tmp_path / "mask.nii.gz"
    for location in np.random.default_rng(1).integers(12, len(content) - 8, 20):
        broken = bytearray(content)
        broken[location] ^= 0x10
        path.write_bytes(broken)
        with pytest.raises(DataError):
            read_decompressed(path)


def test_a_length_that_cannot_be_is_not_trusted():
    content = gzip.compress(CONTENT)[:-4] + struct.pack("<I", 2**32 - 1)
    with pytest.raises(gzip.BadGzipFile, match="length"):
        inflate(content)
