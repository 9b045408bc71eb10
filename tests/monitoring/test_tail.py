from medseg.monitoring.tail import Tail
from medseg.records import append_row, read_rows


def test_rows_come_once_as_the_file_grows(tmp_path):
    tail = Tail(tmp_path)
    assert tail.new() == []
    for number in range(5):
        append_row(tmp_path, {"n": number})
    assert [number for number, _ in tail.new(3)] == [0, 1, 2]
    assert [number for number, _ in tail.new(3)] == [3, 4]
    assert tail.new() == []
    append_row(tmp_path, {"n": 5})
    assert tail.new() == [(5, {"n": 5})]
    assert tail.lines == 6


def test_lines_that_are_no_rows_are_counted_as_others_count_them(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"a": 1}\n{"cut\n[1]\n{"a": 2}\n{"not yet')
    tail = Tail(tmp_path)
    assert tail.new() == [(0, {"a": 1}), (3, {"a": 2})] == list(read_rows(tmp_path))
    append_row(tmp_path, {"a": 3})  # on a line of its own
    assert tail.new() == [(5, {"a": 3})]
    assert [number for number, _ in Tail(tmp_path, 3).new()] == [3, 5]
