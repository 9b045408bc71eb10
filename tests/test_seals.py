import os
import stat

import pytest

from medseg.seals import FOLDER, is_sealed, seal

RECORD = {"command": ["medseg", "train", "unet2d"], "working_directory": "there", "bundle": "unet2d"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER, str(tmp_path / "config"))
    return tmp_path / "config"


def test_a_record_is_known_again_as_long_as_it_says_the_same(folder):
    sealed = {**RECORD, "seal": seal(RECORD), "state": "died"}
    assert is_sealed(sealed)
    assert is_sealed({**sealed, "state": "running"})
    for change in ({"command": ["medseg", "train", "x"]}, {"working_directory": "/"}, {"bundle": "y"}, {"seal": None}):
        assert not is_sealed({**sealed, **change})
    assert not is_sealed(RECORD)
    if os.name != "nt":
        assert stat.S_IMODE((folder / "seal.key").stat().st_mode) == 0o600


def test_another_user_or_machine_does_not_know_it(folder):
    sealed = {**RECORD, "seal": seal(RECORD)}
    (folder / "seal.key").unlink()
    assert not is_sealed(sealed)


def test_where_no_key_can_be_kept_nothing_is_sealed(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(FOLDER, str(tmp_path / "file"))
    assert seal(RECORD) is None
    assert not is_sealed({**RECORD, "seal": None})
