import pytest
from PIL import Image

from medseg.errors import ConfigError
from medseg.monitoring.inference_log import InferenceLog
from medseg.monitoring.settings import Settings
from medseg.runs.metrics_log import read_rows
from medseg.runs.record import read_record

pytestmark = pytest.mark.slow


def predict(output, store, backend, names=("s1", "s2")):
    log = InferenceLog(output, "unet2d", backend, store)
    log.start(len(names))
    for name in names:
        Image.new("RGB", (9, 9)).save(output / f"{name}.png")
        log.case(name, 1.5, {"liver": 1500.0}, output / f"{name}.png")
    return log.end()


def test_predictions_are_shown_in_the_project_of_the_bundle(lab, tmp_path):
    output = tmp_path / "masks"
    output.mkdir()
    state = predict(output, tmp_path / ".trackio", "trackio")
    assert (state["project"], state["rows"], state["images"], state["done"]) == ("medseg-unet2d", 4, 2, True)
    rows, ids, _ = lab.in_trackio(tmp_path / "runs" / "any")
    values = {key: value for _, row in rows for key, value in row.items()}
    assert values["case/seconds"] == 1.5
    assert values["case/volume_ml/liver"] == 1500.0
    assert {"case/images/s1", "case/images/s2"} <= set(values)

    state = predict(output, tmp_path / ".trackio", "trackio", ["s3"])
    assert (state["rows"], state["sent"]) == (7, 3)
    assert {state["id"]} == ids
    assert read_record(output / ".monitor")["state"] == "finished"


def test_wandb_gets_the_job_type_inference_and_no_path(lab, tmp_path):
    output = tmp_path / "masks"
    output.mkdir()
    predict(output, tmp_path / ".trackio", "wandb")
    folder = output / ".monitor"
    records = lab.in_wandb(folder)
    assert [r["run"]["job_type"] for r in records if r["type"] == "run"] == ["inference"]
    assert [step for step, _ in lab.history(records)] == [number for number, _ in read_rows(folder)]
    (location,) = lab.offline_runs(folder)
    (file,) = location.glob("*.wandb")
    assert str(tmp_path).encode() not in file.read_bytes()


def test_off_records_and_starts_nothing(tmp_path):
    (tmp_path / "masks").mkdir()
    assert predict(tmp_path / "masks", tmp_path / ".trackio", "off") == {}
    assert len(list(read_rows(tmp_path / "masks" / ".monitor"))) == 4
    assert Settings.load(tmp_path / "masks" / ".monitor").job_type == "inference"


def test_no_such_tracker(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'trackio'"):
        InferenceLog(tmp_path, "unet2d", "trakio", tmp_path)
