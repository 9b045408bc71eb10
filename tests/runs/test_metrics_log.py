"""The metrics log: appended to, read in order, backwards, from its end, and as it grows."""

import json

import pytest

from medseg.runs.metrics_log import (
    NewRows,
    append_row,
    best_validation,
    number_of,
    read_backwards,
    read_kind,
    read_rows,
    read_tail,
)


def test_rows_keep_their_numbers_after_a_line_that_was_cut_short(tmp_path):
    append_row(tmp_path, {"kind": "batch", "iteration": 1})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "ba')
    assert [number for number, _ in read_rows(tmp_path)] == [0]
    append_row(tmp_path, {"kind": "batch", "iteration": 2, "case": "Müller"})
    rows = list(read_rows(tmp_path))
    assert rows == [(0, {"kind": "batch", "iteration": 1}), (2, {"kind": "batch", "iteration": 2, "case": "Müller"})]
    assert list(read_rows(tmp_path, 1)) == rows[1:]


def test_a_last_line_without_its_end_is_no_row_yet(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "a"}\n{"kind": "a"}')
    assert list(read_rows(tmp_path)) == [(0, {"kind": "a"})]
    assert list(read_kind(tmp_path, "a")) == [{"kind": "a"}]


def test_nan_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_row(tmp_path, {"loss": float("nan")})
    assert list(read_rows(tmp_path)) == []
    assert list(read_rows(tmp_path / "nowhere")) == []
    assert list(read_kind(tmp_path / "nowhere", "batch")) == []


def test_rows_come_latest_first_over_blocks_and_cut_lines(tmp_path):
    with (tmp_path / "metrics.jsonl").open("w") as file:
        for number in range(3000):
            file.write(json.dumps({"kind": "batch", "n": number, "text": "x" * (number % 300)}) + "\n")
        file.write(json.dumps({"kind": "histogram", "n": 3000, "text": "y" * 200_000}) + "\n")
        file.write('{"kind": "bat')
    assert [row["n"] for row in read_backwards(tmp_path)] == list(range(3000, -1, -1))
    assert [row["n"] for row in read_kind(tmp_path, "histogram")] == [3000]
    assert list(read_backwards(tmp_path / "nowhere")) == []


def test_only_the_end_of_a_long_file_is_read(make_run):
    folder = make_run(rows=[{"kind": "batch", "iteration": n} for n in range(1000)])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "ba')
    rows = read_tail(folder, 300)
    assert [row["iteration"] for row in rows] == list(range(1000 - len(rows), 1000))
    assert 5 < len(rows) < 12
    assert len(read_tail(folder)) == 1000
    assert read_tail(folder / "nowhere") == []


def test_new_rows_come_once_as_the_file_grows(tmp_path):
    log = NewRows(tmp_path)
    assert log.read() == []
    for number in range(5):
        append_row(tmp_path, {"n": number})
    assert [number for number, _ in log.read(3)] == [0, 1, 2]
    assert [number for number, _ in log.read(3)] == [3, 4]
    assert log.read() == []
    append_row(tmp_path, {"n": 5})
    assert log.read() == [(5, {"n": 5})]
    assert log.lines == 6


def test_damaged_lines_are_counted_by_every_reader(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"a": 1}\n{"cut\n[1]\n{"a": 2}\n{"not yet')
    log = NewRows(tmp_path)
    assert log.read() == [(0, {"a": 1}), (3, {"a": 2})] == list(read_rows(tmp_path))
    append_row(tmp_path, {"a": 3})  # on a line of its own
    assert log.read() == [(5, {"a": 3})]
    assert [number for number, _ in NewRows(tmp_path, 3).read()] == [3, 5]


def test_the_best_validation_is_the_first_of_equals():
    dice = [0.2, None, 0.7, float("nan"), 0.7, 0.3]
    rows = [{"kind": "validation", "epoch": epoch, "mean_dice": value} for epoch, value in enumerate(dice)]
    assert best_validation([*rows, {"kind": "batch", "mean_dice": 0.9}]) is rows[2]
    assert best_validation(rows[1:2]) is None


def test_only_numbers_are_numbers():
    assert [number_of(value) for value in (3, 0.5, True, "1", None, float("nan"), float("inf"), [1])] == [
        3.0, 0.5, None, None, None, None, None, None,
    ]  # fmt: skip
