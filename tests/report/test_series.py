import csv

import pytest

from medseg.errors import OutputError
from medseg.report.series import save_series
from medseg.runs import Run


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def same(cell, value):
    return cell == "" if value is None else (float(cell) == value if isinstance(value, (int, float)) else cell == value)


def test_what_is_read_back_equals_the_rows(make_run, tmp_path):
    names = ['a "quoted", name', "zunge_übung", "x\ny"]
    run = Run(make_run(epochs=3, batches=4, structures=names, lost=(2, 7)))
    files = {path.stem: read(path) for path in save_series(tmp_path / "series", run)}
    for name, kind in (("batches", "batch"), ("epochs", "epoch"), ("warnings", "warning"), ("images", "image")):
        assert len(files[name]) == len(run.rows[kind])
        for cells, (number, row) in zip(files[name], run.rows[kind], strict=True):
            assert int(cells["row"]) == number
            assert set(cells) == {"row", *(set(row) - {"kind"})}
            assert all(same(cells[key], value) for key, value in row.items() if key != "kind")
    assert [cells["loss"] for cells in files["batches"]].count("") == 2
    for cells, row in zip(files["validation"], run.rows_of("validation"), strict=True):
        assert [float(cells[f"dice:{name}"]) for name in names] == list(row["dice"].values())
        assert float(cells["mean_f1"]) == row["mean_f1"]
    for cells, row in zip(files["system"], run.rows_of("system"), strict=True):
        assert float(cells["gpu1_load"]) == row["gpu"][1]["load"]
        assert float(cells["gpu0_memory_used"]) == row["gpu"][0]["memory_used"]
    assert [(cells["event"], cells["device"], cells["state"]) for cells in files["sessions"]] == [
        ("begin", "cuda:0", ""), ("end", "", "finished"),
    ]  # fmt: skip
    assert [(bin["of"], float(bin["from"]), float(bin["to"]), int(bin["count"])) for bin in files["histograms"]] == [
        ("parameters", -1.0, 0.0, 3), ("parameters", 0.0, 0.5, 4), ("gradients", -1.0, 0.0, 3),
        ("gradients", 0.0, 0.5, 4),
    ]  # fmt: skip


def test_structures_stand_in_the_label_maps_order(make_run, fake_run, tmp_path):
    run = Run(make_run(structures=["liver", "spleen"]))
    rows = {"validation": [(0, {"epoch": 1, "dice": {"new": 0.1, "spleen": 0.2, "liver": None}})]}
    save_series(tmp_path, fake_run(rows=rows, structures=run.structures))
    header = (tmp_path / "validation.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert [name for name in header if ":" in name] == ["dice:liver", "dice:spleen", "dice:new"]


def test_a_run_without_rows_has_files_with_headers_alone(fake_run, tmp_path):
    written = save_series(tmp_path, fake_run())
    assert sorted(path.name for path in written) == [
        "batches.csv", "epochs.csv", "system.csv", "validation.csv", "warnings.csv",
    ]  # fmt: skip
    assert (tmp_path / "batches.csv").read_text().splitlines()[0].startswith("row,time,epoch,iteration,loss,")
    assert all(read(path) == [] for path in written)


def test_an_unknown_field_has_a_column(fake_run, tmp_path):
    save_series(tmp_path, fake_run(rows={"batch": [(7, {"kind": "batch", "loss": 1.0, "odd": 3})]}))
    assert read(tmp_path / "batches.csv")[0]["odd"] == "3"


def test_a_folder_that_is_a_file_is_refused(fake_run, tmp_path):
    (tmp_path / "series").touch()
    with pytest.raises(OutputError):
        save_series(tmp_path / "series", fake_run())
