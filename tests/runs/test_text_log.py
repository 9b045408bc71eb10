"""Following a log that is being written."""

import threading

import pytest

from medseg.runs.record import this_process
from medseg.runs.text_log import follow, last_lines, start_of_last_lines


@pytest.mark.parametrize(
    ("text", "lines", "start"),
    [("a\nb\nc\n", 2, 2), ("a\nb\nc", 2, 2), ("a\nb\n", 5, 0), ("a\nb\n", 0, 0), ("", 3, 0), ("a\n\n\n", 1, 3)],
)
def test_the_last_lines_begin_after_a_line_end(tmp_path, text, lines, start):
    path = tmp_path / "log"
    path.write_bytes(text.encode())
    assert start_of_last_lines(path, lines) == start
    assert start_of_last_lines(tmp_path / "nothing", lines) == 0


def test_the_last_lines_of_a_long_file(tmp_path):
    lines = [b"%06d %s\n" % (number, b"x" * (number % 90)) for number in range(5000)]
    path = tmp_path / "log"
    path.write_bytes(b"".join(lines))
    for count in (1, 700, 4999, 5000, 6000):
        assert path.read_bytes()[start_of_last_lines(path, count) :] == b"".join(lines[-count:])


def test_a_log_that_appears_later_is_followed_to_the_end(training, tmp_path):
    process = training(1000, "--pause", 0.01)
    folder = tmp_path / "runs" / "unet2d" / "run"
    path = folder / "late.log"
    got = []
    reader = threading.Thread(target=lambda: got.extend(follow(folder, path, every=0.05)))
    reader.start()
    path.write_bytes(b"one\n")
    with path.open("ab") as file:
        file.write(b"two\n")
    process.kill()
    process.wait()
    with path.open("ab") as file:
        file.write(b"")
    reader.join(20)
    assert not reader.is_alive()
    assert b"".join(got) == b"one\ntwo\n"


def test_following_the_log_of_a_vanished_machine_ends(make_run):
    folder = make_run(state="running", host="gpu-7", updated="2026-01-01T00:00:00+0000")
    (folder / "log").write_bytes(b"abc")
    got = []
    reader = threading.Thread(target=lambda: got.extend(follow(folder, folder / "log", every=0.01)), daemon=True)
    reader.start()
    reader.join(10)
    assert not reader.is_alive()
    assert got == [b"abc"]


def test_without_waiting_only_what_exists_is_read(make_run):
    folder = make_run(state="running", **this_process())
    assert list(follow(folder, folder / "log", forever=False)) == []
    (folder / "log").write_bytes(b"abc")
    assert list(follow(folder, folder / "log", 1, forever=False)) == [b"bc"]
    assert list(follow(folder, folder / "log", 9, forever=False)) == [b"abc"]  # it became shorter


def test_the_last_lines_are_what_a_terminal_would_show(tmp_path):
    path = tmp_path / "console.log"
    assert last_lines(path) == []
    path.write_bytes("one\n10 %\r50 %\r100 %\n\nMüller\r\n".encode())
    assert last_lines(path) == ["one", "100 %", "Müller"]
    assert last_lines(path, 1) == ["Müller"]
