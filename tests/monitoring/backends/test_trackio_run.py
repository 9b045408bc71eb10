import contextlib
import socket
import threading

import pytest

from medseg.monitoring.settings import Settings

pytestmark = pytest.mark.slow


def test_every_series_is_there_once_in_order(lab, finished):
    lab.feed(finished)
    rows, ids, alerts = lab.in_trackio(finished)
    assert [step for step, _ in rows] == list(range(len(lab.rows_of_a_run())))
    assert len(ids) == 1
    keys = {key for _, values in rows for key in values}
    wanted = "train/loss train/dice_loss train/lr train/grad_norm train/samples_per_second train/data_wait "
    wanted += "train/seconds_left epoch/loss epoch/lr epoch/data_wait val/mean_dice val/dice/liver val/best_dice "
    wanted += "val/best_epoch val/f1/liver val/mean_f1 val/images/s0001 parameters/conv system/cpu system/gpu/0/load "
    wanted += "run/max_epochs iteration epoch"
    assert set(wanted.split()) <= keys
    (step,) = [step for step, row in enumerate(lab.rows_of_a_run()) if row["kind"] == "warning"]
    assert alerts == [(step, "Disk", "(a file): nearly full", "warn")]
    picture = next(values["val/images/s0001"] for _, values in rows if "val/images/s0001" in values)
    stored = finished.parent.parent / ".trackio" / "media" / picture["file_path"]
    assert stored.read_bytes() == (finished / "previews" / "epoch_0001_s0001.png").read_bytes()


def test_two_runs_of_one_name_stay_two(lab, finished, tmp_path):
    other = lab.make_run(tmp_path / "runs" / "unet2d" / "20261122-try-2", lab.rows_of_a_run()[:3])
    lab.feed(finished)
    lab.feed(other)
    rows, ids, _ = lab.in_trackio(finished)
    assert len(ids) == 2
    assert len(rows) == len(lab.rows_of_a_run()) + 3


def test_nothing_is_sent_away_even_with_a_token(lab, finished, monkeypatch):
    asked = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def watch():
            with contextlib.suppress(OSError):
                asked.append(listener.accept())

        threading.Thread(target=watch, daemon=True).start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        for name in ("HF_ENDPOINT", "TRACKIO_SERVER_URL", "HTTPS_PROXY", "HTTP_PROXY"):
            monkeypatch.setenv(name, address)
        monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 34)
        monkeypatch.setenv("TRACKIO_SPACE_ID", "somebody/space")
        lab.feed(finished)
    assert asked == []
    assert len(lab.in_trackio(finished)[0]) == len(lab.rows_of_a_run())


def test_images_are_not_sent_where_that_is_chosen(lab, finished):
    Settings.of({"backend": "trackio", "images": False}).filled(finished).save(finished)
    lab.feed(finished)
    rows, _, _ = lab.in_trackio(finished)
    assert len(rows) == len(lab.rows_of_a_run())
    assert not [key for _, values in rows for key in values if "images" in key]
