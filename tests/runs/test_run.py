"""A run read from its folder, whatever of it is there."""

import json

import pytest

from medseg.errors import RunError
from medseg.runs import Best, Run
from medseg.runs.record import this_process
from medseg.runs.run import run_state, seconds_left

EPOCHS = [{"kind": "epoch", "time": 100.0 + 10 * n, "epoch": n, "iteration": 5 * n, "loss": 1 / n} for n in (1, 2, 3)]


def validation(epoch, mean, **dice):
    return {"kind": "validation", "time": 101.0 + 10 * epoch, "epoch": epoch, "iteration": 5 * epoch} | {
        "mean_dice": mean,
        "dice": dice,
    }


def test_a_running_run_says_how_far_and_how_good_it_is_and_how_long_it_will_take(make_run):
    rows = [*EPOCHS, validation(2, 0.5), validation(3, 0.4)]
    run = Run(make_run(rows=rows, config={"max_epochs": 10}, state="running", **this_process()), now=132.0)
    assert (run.state, run.epoch, run.max_epochs, run.iteration) == ("running", 3, 10, 15)
    assert (run.best.dice, run.best.epoch) == (0.5, 2)
    assert run.seconds_left == 7 * 10 - 2
    assert run.last_sign == 131
    assert run.summary()["best_dice"] == 0.5


def test_the_latest_row_that_says_the_time_left_goes_before_the_pace_of_epochs():
    rows = [*EPOCHS, {"kind": "batch", "time": 140.0, "seconds_left": 50.0}]
    assert seconds_left(rows, 10, 150.0) == 40
    assert seconds_left(rows, 10, 1000.0) == 0
    assert seconds_left([{**EPOCHS[0], "train_seconds": 20.0}], 3, 115.0) == 35
    assert seconds_left(EPOCHS, None, 130.0) is None
    assert seconds_left([], 10, 130.0) is None


def test_the_record_fills_in_where_the_rows_are_missing(make_run):
    folder = make_run(state="finished", epoch=4, max_epochs=4, best_dice=0.7, best_epoch=3, error=None)
    run = Run(folder)
    assert (run.epoch, run.max_epochs, run.best, run.seconds_left) == (4, 4, Best(0.7, 3), None)
    (folder / "run.json").write_text(json.dumps({"state": "finished"}))
    (folder / "training_history.json").write_text(json.dumps({"best_dice": 0.6, "best_epoch": 1}))
    assert Run(folder).best == Best(0.6, 1)


def test_a_run_on_another_machine_that_fell_silent_for_ten_minutes_has_died(make_run):
    row = {"kind": "batch", "time": 1000.0, "iteration": 1}
    folder = make_run(rows=[row], state="running", host="gpu-7", updated="1970-01-01T00:01:00+0000")
    assert run_state(folder, now=1599.0) == Run(folder, now=1599.0).state == "running"
    assert run_state(folder, now=1600.0) == Run(folder, now=1600.0).state == "died"
    assert run_state(make_run("done", state="finished", host="gpu-7"), now=1e10) == "finished"
    assert run_state(make_run("here", state="running", **this_process()), now=1e10) == "running"


def test_a_damaged_record_is_a_state_and_no_error(make_run):
    folder = make_run("bad", EPOCHS)
    (folder / "run.json").write_text("{")
    run = Run(folder)
    assert run.state == "unreadable"
    assert "the file is no JSON object" in run.error
    assert len(run.history) == 3
    with pytest.raises(RunError, match="the file is no JSON object"):
        run_state(folder)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="this is no folder of a run: it holds neither run.json nor"):
        Run(tmp_path)


def test_the_history_is_a_table_with_a_row_for_each_epoch(make_run):
    rows = [
        EPOCHS[0],
        {"kind": "batch", "loss": 9.0},
        EPOCHS[1],
        validation(2, 0.5, liver=0.75, spleen=None),
        EPOCHS[2],
    ]
    history = Run(make_run(rows=rows)).history
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert [row["loss"] for row in history] == [1, 1 / 2, 1 / 3]
    assert history[1]["time"] == 120
    assert (history[1]["mean_dice"], history[1]["dice/liver"], history[1]["dice/spleen"]) == (0.5, 0.75, None)
    assert "mean_dice" not in history[0]
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(history)
    assert list(frame["dice/liver"].dropna()) == [0.75]


def test_what_the_folder_holds_is_read(make_run):
    rows = [
        {"kind": "begin", "max_epochs": 3, "epoch_length": 5},
        *EPOCHS,
        validation(3, 0.5, liver=0.5),
        {"kind": "warning"},
    ]
    folder = make_run(rows=rows, config={"lr": 0.1}, state="finished")
    (folder / "label_map.json").write_text(json.dumps({"10": "aorta", "0": "background", "2": "liver"}))
    (folder / "training_history.json").write_text("{}")
    (folder / "previews").mkdir()
    for epoch in (1, 2):
        (folder / "previews" / f"epoch_{epoch:04d}_c_1.png").touch()
    run = Run(folder)
    assert {kind: len(numbered) for kind, numbered in run.rows.items()} == {
        "begin": 1, "epoch": 3, "validation": 1, "warning": 1,
    }  # fmt: skip
    assert [number for number, _ in run.rows["validation"]] == [4]
    assert run.structures == ("liver", "aorta")
    assert sorted(run.previews["c_1"]) == [1, 2]
    assert (run.epoch_length, run.max_epochs, run.config["lr"], run.notes) == (5, 3, 0.1, ())
    assert run.best == Best(0.5, 3, {"liver": 0.5})


@pytest.fixture
def complete(make_run):
    folder = make_run(rows=EPOCHS, config={"lr": 0.1}, state="finished")
    (folder / "label_map.json").write_text(json.dumps({"1": "liver"}))
    (folder / "training_history.json").write_text("{}")
    (folder / "previews").mkdir()
    return folder


@pytest.mark.parametrize("missing", ["run.json", "metrics.jsonl", "configs/train.json", "label_map.json"])
def test_a_missing_part_is_a_note(complete, missing):
    assert Run(complete).notes == ()
    (complete / missing).unlink()
    (note,) = Run(complete).notes
    assert note.startswith(f"{missing} is missing, and with it the")


@pytest.mark.parametrize("damaged", ["run.json", "configs/train.json", "label_map.json"])
@pytest.mark.parametrize("content", ["{", "[1]"])
def test_a_damaged_part_is_a_note_and_the_others_are_read(complete, damaged, content):
    (complete / damaged).write_text(content)
    run = Run(complete)
    (note,) = run.notes
    assert damaged.rpartition("/")[2] in note
    assert len(run.rows_of("epoch")) == 3


def test_rows_that_cannot_be_read_are_counted_in_a_note(complete):
    with (complete / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "bat\n' + json.dumps({"kind": "batch"}) + '\n{"kind": "batch"')
    run = Run(complete)
    assert [number for number, _ in run.rows["batch"]] == [4]
    assert run.notes == ("1 line of metrics.jsonl cannot be read, as after a kill; left out.",)


def test_without_a_metrics_log_the_history_tells_of_the_epochs(complete):
    (complete / "metrics.jsonl").unlink()
    epochs = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "mean_dice": 0.4, "dice": {"liver": 0.4}}]
    (complete / "training_history.json").write_text(json.dumps({"epochs": epochs}))
    run = Run(complete)
    assert [row["loss"] for row in run.rows_of("epoch")] == [2.0, 1.0]
    assert run.best == Best(0.4, 2, {"liver": 0.4})
    assert run.rows_of("validation")[0]["dice"] == {"liver": 0.4}


def test_network_and_report_come_from_the_folder(trained, tmp_path):
    import torch

    run = Run(trained)
    weights = torch.load(trained / "models" / "model.pt", weights_only=True)
    network = run.network().state_dict()
    assert set(network) == set(weights)
    assert all(torch.equal(network[name].cpu(), weights[name].cpu()) for name in weights)
    page = run.report(tmp_path / "report.html")
    assert "<html" in page.read_text(encoding="utf-8")
    assert run.history[-1]["epoch"] == run.epoch
