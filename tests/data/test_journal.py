import pytest

from medseg.data.journal import Journal
from medseg.errors import OutputError


@pytest.fixture
def made(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"1234")
    return tmp_path / "a.bin"


def test_a_finished_case_is_known_again(tmp_path, made):
    Journal(tmp_path / "j").add("a", "key", [made], {"voxels": 3})
    assert Journal(tmp_path / "j").get("a", "key", [made]) == {"voxels": 3}


def test_other_sources_other_files_and_missing_ones_are_not_finished(tmp_path, made):
    Journal(tmp_path / "j").add("a", "key", [made], [])
    journal = Journal(tmp_path / "j")
    assert journal.get("a", "other", [made]) is None
    assert journal.get("b", "key", [made]) is None
    made.write_bytes(b"1")
    assert journal.get("a", "key", [made]) is None
    made.unlink()
    assert journal.get("a", "key", [made]) is None


def test_a_line_that_was_cut_short_costs_that_case_alone(tmp_path, made):
    journal = Journal(tmp_path / "j")
    journal.add("a", "key", [made], 1)
    with (tmp_path / "j").open("a") as file:
        file.write('\n{"id": "b", "ke')
    Journal(tmp_path / "j").add("c", "key", [made], 3)
    again = Journal(tmp_path / "j")
    assert [again.get(id, "key", [made]) for id in "abc"] == [1, None, 3]


def test_a_journal_that_cannot_be_written_says_so(tmp_path, made):
    with pytest.raises(OutputError, match="must be writable"):
        Journal(tmp_path / "no" / "j").add("a", "key", [made], 1)
