from medseg.report.run_curves import GB, curves, first_time, machine, machine_charts, training_charts
from medseg.report.run_data import RunData, read_run


def charts(run):
    return {chart.title: {line.name: list(line.points) for line in chart.lines} for chart in training_charts(run)}


def test_every_series_is_drawn_with_its_own_values(made):
    run = read_run(made(epochs=3, batches=4))
    drawn = charts(run)
    batches, epochs, validation = run.of("batch"), run.of("epoch"), run.of("validation")
    assert drawn["Training loss"]["batch"] == [(row["iteration"] / 4, row["loss"]) for row in batches]
    assert drawn["Training loss"]["epoch"] == [(float(row["epoch"]), row["loss"]) for row in epochs]
    assert drawn["Mean Dice"]["Dice"] == [(float(row["epoch"]), row["mean_dice"]) for row in validation]
    assert drawn["Mean Dice"]["F1"] == [(float(row["epoch"]), row["mean_f1"]) for row in validation]
    assert drawn["Parts of the loss"]["Dice, batch"] == [(row["iteration"] / 4, row["dice_loss"]) for row in batches]
    assert drawn["Parts of the loss"]["cross-entropy, epoch"][-1] == (3.0, epochs[-1]["ce_loss"])
    for title, key in (
        ("Gradient norm", "grad_norm"), ("Samples per second", "samples_per_second"), ("Waiting for data", "data_wait")
    ):  # fmt: skip
        assert drawn[title]["batch"] == [(row["iteration"] / 4, row[key]) for row in batches]
    assert drawn["Learning rate"]["rate"] == [(row["iteration"] / 4, row["lr"]) for row in batches]
    assert drawn["Time of an epoch"]["validation"][0] == (1.0, validation[0]["seconds"])


def test_the_machine_is_drawn_over_hours_with_a_gap_where_the_run_stood_still(made):
    run = read_run(made(epochs=4, batches=4, resumed=3))
    drawn = {chart.title: {line.name: list(line.points) for line in chart.lines} for chart in machine_charts(run)}
    start, rows = first_time(run), run.of("system")
    pause = (run.of("begin")[1]["time"] - start) / 3600
    known = [((row["time"] - start) / 3600, row["gpu"][1]["load"]) for row in rows]
    assert drawn["Load"]["GPU 1"] == sorted([*known, (pause, None)], key=lambda point: point[0])
    assert [y for _, y in drawn["GPU memory in use"]["GPU 0"]] == [18.5, 18.5, None, 18.5, 18.5]
    assert drawn["Free on the disk"]["free"][-1][1] == rows[-1]["disk_free"] / GB


def test_resumes_warnings_and_the_best_epoch_are_marked(made):
    run = read_run(made(epochs=4, batches=4, resumed=3))
    loss = next(chart for chart in training_charts(run) if chart.title == "Training loss")
    assert [(mark.kind, mark.x) for mark in loss.marks] == [
        ("resume", 2.0), ("warning", 4.0), ("error", 0.25), ("best", 3.0),
    ]  # fmt: skip
    html = curves(run)
    assert all(f'class="mark {kind}"' in html for kind in ("resume", "warning", "error", "best"))


def test_lost_losses_are_a_gap_and_counted(made):
    html = curves(read_run(made(epochs=3, batches=4, lost=(5, 6))))
    assert "2 values of the loss were NaN or infinite" in html


def test_what_was_not_recorded_is_named():
    rows = {"epoch": [(0, {"epoch": 1, "loss": 1.0})]}
    html = curves(RunData("run", rows=rows))
    assert "Not recorded in this run: mean dice, parts of the loss" in html
    assert machine(RunData("run", rows=rows)) == ""


def test_nothing_recorded_is_nothing_drawn():
    assert curves(RunData("run")) == ""


def test_rows_of_another_form_are_passed_over():
    rows = {
        "batch": [(0, {"iteration": "7", "loss": [1]}), (1, {"loss": 2.0}), (2, {"epoch": 1, "loss": 3.0})],
        "system": [(3, {"time": 5.0, "gpu": "none"}), (4, {"time": 6.0, "gpu": [None], "cpu": 0.5})],
    }
    assert charts(RunData("run", rows=rows))["Training loss"]["batch"] == [(1.0, 3.0)]
    assert "CPU" in machine(RunData("run", rows=rows))
