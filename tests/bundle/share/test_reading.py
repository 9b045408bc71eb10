"""Texts that would tell of somebody are found by file and line."""

import getpass
import logging
import platform
from pathlib import Path

import pytest

from medseg.bundle.share.reading import Word, read_through, words_here
from medseg.errors import DataError


def test_the_words_are_those_of_this_machine_and_of_the_cases(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/joe"))
    monkeypatch.setattr(getpass, "getuser", lambda: "joe")
    monkeypatch.setattr(platform, "node", lambda: "ward7-pc")
    monkeypatch.chdir(tmp_path)
    found = {word.text: word.sure for word in words_here(["miller", "012", "p1"])}
    assert found == {
        "/home/joe": True,
        str(tmp_path): True,
        "joe": False,
        "ward7-pc": False,
        "miller": True,
        "012": False,
    }
    monkeypatch.setattr(getpass, "getuser", lambda: "root")
    monkeypatch.setattr(Path, "home", lambda: Path("/root"))
    assert not {"root", "/root"} & {word.text for word in words_here()}


@pytest.mark.parametrize(
    "name", ["LICENSE", "docs/README.md", "docs/a.txt", "configs/logging.conf", "configs/metadata.json"]
)
def test_a_case_or_a_folder_is_refused_with_file_and_line(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("first\nas s0042 shows\n")
    with pytest.raises(DataError, match=rf"{name}, line 2: a case's name, 's0042'"):
        read_through(tmp_path, [Word("s0042", "a case's name", True)])
    read_through(tmp_path, [Word("s004", "a case's name", True)])
    read_through(tmp_path, [Word("s0042", "a case's name", True)], ["s0042"])


def test_what_may_be_another_word_is_a_warning(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    (tmp_path / "a.md").write_text("by joe, who enjoyed it")
    (tmp_path / "a.png").write_bytes(b"joe")
    read_through(tmp_path, [Word("joe", "your user name", False)])
    assert [one.getMessage() for one in caplog.records] == [
        "a.md, line 1: your user name, 'joe'; look whether it should be shared"
    ]


def test_configs_may_have_words_that_are_cases_too(tmp_path, caplog):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "train.json").write_text('{"train": 1}')
    read_through(tmp_path, [Word("train", "a case's name", True)])
    assert "line 1" in caplog.text
