"""What is said of runs, from whatever their folders hold."""

import json

import pytest

from medseg.errors import RunError
from medseg.runs.runs import (
    choose,
    choose_latest,
    choose_resumable,
    choose_running,
    progress,
    seconds_left,
    standing,
    summaries,
    summarize,
    tail_rows,
)
from medseg.records import this_process

EPOCHS = [{"kind": "epoch", "time": 100.0 + 10 * n, "epoch": n, "iteration": 5 * n, "loss": 1 / n} for n in (1, 2, 3)]
BEST = {"kind": "validation", "time": 131.0, "epoch": 3, "iteration": 15, "best_dice": 0.5, "best_epoch": 2}


def test_a_running_run_says_how_far_how_good_and_how_long_still(make_run):
    folder = make_run(rows=[*EPOCHS, BEST], config={"max_epochs": 10}, state="running", **this_process())
    one = summarize(folder, now=132.0)
    assert (one.state, one.epoch, one.max_epochs, one.iteration) == ("running", 3, 10, 15)
    assert (one.best_dice, one.best_epoch) == (0.5, 2)
    assert one.seconds_left == 7 * 10 - 2
    assert one.heard == 131


def test_the_rows_own_word_of_the_time_left_goes_before_the_pace_of_epochs():
    rows = [*EPOCHS, {"kind": "batch", "time": 140.0, "seconds_left": 50.0}]
    assert seconds_left(rows, 10, 150.0) == 40
    assert seconds_left(rows, 10, 1000.0) == 0
    assert seconds_left([{**EPOCHS[0], "train_seconds": 20.0}], 3, 115.0) == 35
    assert seconds_left(EPOCHS, None, 130.0) is None
    assert seconds_left([], 10, 130.0) is None


def test_the_record_serves_where_the_rows_say_less(make_run):
    folder = make_run(state="finished", epoch=4, max_epochs=4, best_dice=0.7, best_epoch=3, error=None)
    one = summarize(folder)
    assert (one.epoch, one.max_epochs, one.best_dice, one.best_epoch, one.seconds_left) == (4, 4, 0.7, 3, None)
    (folder / "run.json").write_text(json.dumps({"state": "finished"}))
    (folder / "training_history.json").write_text(json.dumps({"best_dice": 0.6, "best_epoch": 1}))
    assert summarize(folder).best_dice == 0.6


def test_a_run_on_another_machine_that_fell_silent_for_ten_minutes_has_died(make_run, tmp_path):
    row = {"kind": "batch", "time": 1000.0, "iteration": 1}
    folder = make_run(rows=[row], state="running", host="gpu-7", updated="1970-01-01T00:01:00+0000")
    assert standing(folder, now=1599.0) == summarize(folder, now=1599.0).state == "running"
    assert standing(folder, now=1600.0) == summarize(folder, now=1600.0).state == "died"
    assert standing(make_run("done", state="finished", host="gpu-7"), now=1e10) == "finished"
    here = make_run("here", state="running", **this_process())
    assert standing(here, now=1e10) == "running"
    assert choose_running(None, tmp_path / "runs") == here


def test_a_damaged_folder_is_a_line_and_no_error(make_run, tmp_path):
    (make_run("bad") / "run.json").write_text("{")
    make_run("good", state="finished", started="2026-11-22T22:51:49+0000")
    good, bad = summaries(tmp_path / "runs")
    assert (bad.state, good.state, good.started) == ("unreadable", "finished", 1795387909.0)
    assert "must be a JSON object" in bad.error


def test_the_end_of_a_long_file_is_read_alone(make_run):
    folder = make_run(rows=[{"kind": "batch", "iteration": n} for n in range(1000)])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "ba')
    rows = tail_rows(folder, 300)
    assert [row["iteration"] for row in rows] == list(range(1000 - len(rows), 1000))
    assert 5 < len(rows) < 12
    assert len(tail_rows(folder)) == 1000
    assert progress(folder) == 999
    assert tail_rows(folder / "nowhere") == []
    assert progress(folder / "nowhere") == 0


def test_without_a_name_the_only_running_run_is_meant_or_the_latest(make_run, tmp_path):
    root = tmp_path / "runs"
    with pytest.raises(RunError, match="must hold a run [(]none"):
        choose(None, root)
    first = make_run("1", state="running", **this_process())
    latest = make_run("2", state="finished")
    assert choose(None, root) == first
    assert choose_running(None, root) == first
    assert choose("2", root) == choose_running("2", root) == latest
    make_run("3", state="running", **this_process())
    assert choose(None, root).name == "3"
    with pytest.raises(RunError, match="must hold one running run, or the run must be named [(]2: 1, 3"):
        choose_running(None, root)


def test_without_a_name_the_latest_is_synced_and_the_latest_that_was_stopped_goes_on(make_run, tmp_path):
    root = tmp_path / "runs"
    for choice in (choose_latest, choose_resumable):
        with pytest.raises(RunError, match="must hold a run [(]none"):
            choice(None, root)
    running = make_run("1", state="running", **this_process())
    with pytest.raises(RunError, match="must hold a run to go on with [(]running ones alone: 1"):
        choose_resumable(None, root)
    assert choose_resumable("1", root) == choose_latest(None, root) == running
    finished = make_run("2", state="finished")
    assert choose_resumable(None, root) == choose_latest(None, root) == finished
    failed = make_run("3", state="failed")
    last = make_run("4", state="finished")
    make_run("5", state="failed", job_type="inference")
    assert choose_resumable(None, root) == failed
    assert choose_latest("4", root) == last
    assert choose_latest(None, root).name == "5"
