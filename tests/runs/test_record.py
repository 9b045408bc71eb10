"""The record of a run, and the process that it names."""

import os
import subprocess
import sys

import pytest

from medseg.errors import RunError
from medseg.runs import record as records
from medseg.runs.record import is_alive, read_record, state_of, this_process


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
def test_setting_the_clock_ends_no_process_and_a_reboot_ends_all():
    record = this_process()
    for step in (-3600, 3600):
        assert is_alive({**record, "pid_started": record["pid_started"] + step})
    assert not is_alive({**record, "boot": "another"})


def test_without_a_boot_id_the_time_decides(monkeypatch, tmp_path):
    named = this_process()
    monkeypatch.setattr(records, "_BOOT_ID", tmp_path / "nothing")
    record = this_process()
    assert record["boot"] is None
    assert is_alive(record)
    assert is_alive(named)
    assert not is_alive({**record, "pid_started": record["pid_started"] - 100})


def test_a_record_that_is_no_json_is_named(tmp_path):
    assert read_record(tmp_path) == {}
    for content in ("{", "[1]"):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(RunError, match=r"run\.json: the file is no JSON object [(]"):
            read_record(tmp_path)
