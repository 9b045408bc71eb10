import json
import time
from types import SimpleNamespace

import pytest

from medseg.errors import OutputError
from medseg.monitoring.row_writer import RowWriter


def at(iteration, length=10):
    return SimpleNamespace(state=SimpleNamespace(iteration=iteration, epoch=(iteration - 1) // length + 1))


def content(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def record(rows, first, last, length=10):
    """What a run writes: a batch every 5, and at each epoch's end the epoch, a validation and two pictures."""
    for iteration in range(first, last + 1):
        engine = at(iteration)
        if iteration % 5 == 0:
            rows.add("batch", engine, loss=float(iteration))
        if iteration % length == 0:
            rows.add("epoch", engine)
            rows.add("validation", engine)
            for case in "ab":
                rows.add("image", engine, file=f"previews/epoch_{iteration // length:04d}_{case}.png")


@pytest.mark.parametrize("killed", [7, 12, 20, 29, 30])
@pytest.mark.parametrize("resumed", [0, 3, 7])
def test_rows_from_before_a_kill_are_not_written_again(tmp_path, killed, resumed):
    record(RowWriter(tmp_path / "whole"), 1, 30)
    record(RowWriter(tmp_path / "run"), 1, killed)
    again = RowWriter(tmp_path / "run")
    again.resume(resumed)
    record(again, resumed + 1, 30)

    def plain(folder):
        return [{key: value for key, value in row.items() if key != "time"} for row in content(tmp_path / folder)]

    assert plain("run") == plain("whole")


def test_a_kill_between_rows_of_one_epoch_leaves_none_out(tmp_path):
    rows = RowWriter(tmp_path)
    rows.add("epoch", at(10))
    rows.add("image", at(10), file="a.png")
    rows.resume(5)
    assert not rows.add("epoch", at(10))
    assert not rows.add("image", at(10), file="a.png")
    assert rows.add("validation", at(10))
    assert rows.add("image", at(10), file="b.png")


def test_rows_of_no_batch_are_written_each_time(tmp_path):
    rows = RowWriter(tmp_path)
    assert [rows.add(kind, at(3), title="x") for kind in ("begin", "system", "warning") * 2] == [True] * 6


def test_a_row_has_its_time_epoch_and_iteration(tmp_path):
    RowWriter(tmp_path / "made").add("batch", at(12), loss=0.5)
    (row,) = content(tmp_path / "made")
    assert abs(row.pop("time") - time.time()) < 60
    assert row == {"kind": "batch", "epoch": 2, "iteration": 12, "loss": 0.5}


def test_only_the_end_of_a_large_file_is_read(tmp_path):
    path = tmp_path / "metrics.jsonl"
    line = json.dumps({"kind": "batch", "epoch": 1, "iteration": 1, "text": "x" * 900}) + "\n"
    with path.open("w") as file:
        for _ in range(100):
            file.write(line * 1000)
        for iteration in range(2, 50):
            file.write(json.dumps({"kind": "batch", "epoch": 1, "iteration": iteration}) + "\n")
    assert path.stat().st_size > 90e6
    rows = RowWriter(tmp_path)
    began = time.process_time()
    rows.resume(40)
    assert time.process_time() - began < 0.2
    assert not rows.add("batch", at(49))
    assert rows.add("batch", at(50))


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"metrics\.jsonl"):
        RowWriter(tmp_path).add("batch", at(1))
