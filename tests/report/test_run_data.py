import json

import pytest

from medseg.errors import RunError
from medseg.report.run_data import read_run


def test_what_the_folder_holds_is_read(made):
    run = read_run(made(epochs=3, batches=4, structures=["liver", "spleen"], pictures=2))
    assert {kind: len(rows) for kind, rows in run.rows.items()} == {
        "begin": 1, "batch": 12, "epoch": 3, "validation": 3, "image": 3, "system": 3, "histogram": 1, "warning": 2,
        "end": 1,
    }  # fmt: skip
    assert run.structures == ("liver", "spleen")
    assert sorted(run.pictures["c1"]) == [1, 2]
    assert (run.epoch_length, run.max_epochs, run.notes) == (4, 3, ())
    dice = [row["mean_dice"] for row in run.of("validation")]
    assert run.best == (max(dice), 1 + dice.index(max(dice)))


def test_rows_keep_the_numbers_of_their_lines_after_a_line_that_was_cut(made):
    folder = made(epochs=1, batches=2)
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text(lines[0] + '{"kind": "bat\n' + "".join(lines[2:]) + '{"kind": "batch"')
    run = read_run(folder)
    assert [number for number, _ in run.rows["batch"]] == [2]
    assert "1 line of metrics.jsonl cannot be read" in " ".join(run.notes)


@pytest.mark.parametrize("missing", ["run.json", "metrics.jsonl", "configs/train.json", "label_map.json"])
def test_what_is_missing_is_said(made, missing):
    folder = made()
    (folder / missing).unlink()
    assert any(note.startswith(f"{missing} is not there") for note in read_run(folder).notes)


@pytest.mark.parametrize("damaged", ["run.json", "configs/train.json", "label_map.json"])
@pytest.mark.parametrize("content", ["{", "[1]"])
def test_what_is_damaged_is_said_and_left_out(made, damaged, content):
    folder = made()
    (folder / damaged).write_text(content)
    run = read_run(folder)
    assert any(damaged.rpartition("/")[2] in note for note in run.notes)
    assert len(run.of("epoch")) == 3


def test_without_rows_the_history_tells_the_epochs(made):
    folder = made()
    (folder / "metrics.jsonl").unlink()
    epochs = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "mean_dice": 0.4, "dice": {"liver": 0.4}}]
    (folder / "training_history.json").write_text(json.dumps({"epochs": epochs}))
    run = read_run(folder)
    assert [row["loss"] for row in run.of("epoch")] == [2.0, 1.0]
    assert run.best == (0.4, 2)
    assert run.of("validation")[0]["dice"] == {"liver": 0.4}


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="must be the folder of a run"):
        read_run(tmp_path)
