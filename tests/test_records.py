"""What a run's folder says, whatever a kill left in it."""

import json
import os
import subprocess
import sys

import pytest

from medseg import records
from medseg.errors import RunError
from medseg.records import append_row, find_run, find_runs, is_alive, read_record, read_rows, state_of, this_process


def make(folder, **record):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record))
    return folder


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
    (tmp_path / "metrics.jsonl").write_text('{"a": 1}\n{"a": 2}')
    assert list(read_rows(tmp_path)) == [(0, {"a": 1})]


def test_nan_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_row(tmp_path, {"loss": float("nan")})
    assert list(read_rows(tmp_path)) == []
    assert list(read_rows(tmp_path / "nowhere")) == []


def test_a_run_whose_process_is_gone_has_died():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        record = {**this_process(), "pid": other.pid, "pid_started": None, "state": "running"}
        assert state_of(record) == "running"
        other.kill()
    assert state_of(record) == "died"
    assert state_of({**record, "state": "failed"}) == "failed"
    assert state_of({**record, "host": "elsewhere"}) == "running"
    assert state_of({}) == "unknown"


def test_a_later_process_of_the_same_number_is_another_one():
    record = this_process()
    assert record["pid"] == os.getpid()
    assert is_alive(record)
    earlier = {name: record[name] - 100 for name in ("pid_started", "pid_ticks")}
    assert not is_alive({**record, **earlier})
    old = {name: record[name] for name in ("pid", "pid_started", "host")}  # as records were before they had the others
    assert is_alive(old)
    assert not is_alive({**old, "pid_started": earlier["pid_started"]})


@pytest.mark.skipif(this_process()["boot"] is None, reason="the system has no name for its start")
def test_a_clock_that_is_set_ends_no_process_and_a_machine_that_starts_anew_ends_all():
    record = this_process()
    for step in (-3600, 3600):
        assert is_alive({**record, "pid_started": record["pid_started"] + step})
    assert not is_alive({**record, "boot": "another"})


def test_without_a_name_for_the_start_of_the_machine_the_time_decides(monkeypatch, tmp_path):
    named = this_process()
    monkeypatch.setattr(records, "_BOOT", tmp_path / "nothing")
    record = this_process()
    assert record["boot"] is None
    assert is_alive(record)
    assert is_alive(named)
    assert not is_alive({**record, "pid_started": record["pid_started"] - 100})


def test_runs_are_found_by_folder_name_and_part(tmp_path):
    first = make(tmp_path / "unet2d" / "20260101-000000-quick")
    second = make(tmp_path / "unet2d" / "20260102-000000-quick-lr2")
    third = make(tmp_path / "segformer2d" / "20260103-000000-b0")
    assert find_runs(tmp_path) == [first, second, third]
    assert find_runs(tmp_path / "unet2d") == [first, second]
    assert find_run(first, tmp_path / "nowhere") == first
    assert find_run("20260101-000000-quick", tmp_path) == first
    assert find_run("b0", tmp_path) == third
    with pytest.raises(RunError, match="must mean one run [(]2"):
        find_run("quick", tmp_path)
    with pytest.raises(RunError, match="Did you mean '20260103-000000-b0'"):
        find_run("20260103-000000-b1", tmp_path)


def test_a_record_that_is_no_json_names_itself(tmp_path):
    assert read_record(tmp_path) == {}
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunError, match=r"run\.json: must be a JSON object"):
        read_record(tmp_path)
