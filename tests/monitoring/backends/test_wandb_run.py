import getpass
import json
import platform
import subprocess
import sys

import pytest

from medseg.monitoring.control import sync
from medseg.monitoring.settings import Settings, read_state
from medseg.runs.metrics_log import append_row

pytestmark = pytest.mark.slow


@pytest.fixture
def sent(lab, finished):
    """A finished run whose rows went to W&B's offline file, and what that holds."""
    chosen = {"backend": "wandb", "entity": "team", "notes": "a try", "tags": ["ct"], "mode": "offline"}
    Settings.of(chosen).filled(finished).save(finished)
    lab.feed(finished)
    return finished, lab.in_wandb(finished)


def test_an_offline_run_has_every_series_and_nothing_of_the_machine(lab, sent):
    folder, records = sent
    rows = lab.history(records)
    assert [step for step, _ in rows] == list(range(len(lab.rows_of_a_run())))
    keys = {key for _, values in rows for key in values}
    wanted = "train/loss train/dice_loss train/lr train/grad_norm train/samples_per_second train/data_wait "
    wanted += "train/seconds_left epoch/loss epoch/lr epoch/data_wait val/mean_dice val/dice/liver val/best_dice "
    wanted += "val/best_epoch val/f1/liver val/mean_f1 val/images/s0001.path parameters/conv.bins "
    wanted += "parameters/conv.values system/cpu system/gpu/0/load run/max_epochs iteration epoch"
    assert set(wanted.split()) <= keys
    assert [values["_timestamp"] for _, values in rows] == [row["time"] for row in lab.rows_of_a_run()]

    (run,) = [record["run"] for record in records if record["type"] == "run"]
    assert (run["project"], run["entity"], run["notes"], run["tags"]) == ("medseg-unet2d", "team", "a try", ["ct"])
    assert run["run_id"] == Settings.load(folder).id
    assert run["job_type"] == "train"
    assert run["config"]["update"]["lr"] == 0.01
    (alert,) = [record["alert"] for record in records if record["type"] == "alert"]
    assert (alert["title"], alert["text"], alert["level"]) == ("Disk", "(a file): nearly full", "WARN")
    summary = {}
    for record in records:
        summary |= record.get("summary", {}).get("update", {})
    assert (summary["best_dice"], summary["best_epoch"]) == (0.5, 2)

    steps = {m["glob_name"]: m["step_metric"] for m in (r.get("metric", {}) for r in records) if "glob_name" in m}
    assert steps["train/*"] == "iteration"
    assert steps["val/*"] == steps["epoch/*"] == "epoch"

    (location,) = lab.offline_runs(folder)
    (file,) = location.glob("*.wandb")
    held = file.read_bytes()
    words = [str(folder), str(folder.parent), "/home/max", "the-host", "/usr/bin", "run.json"]
    words += [word for word in (platform.node(), getpass.getuser()) if len(word) > 5]
    assert not [word for word in words if word.encode() in held]
    assert b"s0001" in held


def test_the_images_of_an_offline_run_are_beside_it(lab, sent):
    folder, _ = sent
    (location,) = lab.offline_runs(folder)
    pictures = {path.read_bytes() for path in (location / "files" / "media").rglob("*.png")}
    assert pictures == {path.read_bytes() for path in (folder / "previews").glob("*.png")}


def test_a_new_start_replaces_the_offline_file(lab, sent):
    folder, records = sent
    (earlier,) = lab.offline_runs(folder)
    (earlier / "mark").touch()
    lab.feed(folder)
    (location,) = lab.offline_runs(folder)
    assert not (location / "mark").exists()
    assert not list(location.parent.glob("replaced-*"))
    again = lab.in_wandb(folder)
    assert [step for step, _ in lab.history(again)] == [step for step, _ in lab.history(records)]
    assert [r["run"]["run_id"] for r in again if r["type"] == "run"] == [Settings.load(folder).id]


def test_without_a_key_a_run_is_offline_with_the_reason(lab, finished):
    Settings.of({"backend": "wandb"}).filled(finished).save(finished)
    lab.feed(finished)
    state = read_state(finished)
    assert (state["mode"], state["done"], state["error"]) == ("offline", True, None)
    assert "no key" in state["why"]
    assert len(lab.history(lab.in_wandb(finished))) == len(lab.rows_of_a_run())


def steps(server):
    return [row["_step"] for row in server.rows]


def test_online_each_row_arrives_once_over_several_starts(lab, finished, wandb_server):
    rows = len(lab.rows_of_a_run())
    Settings.of({"backend": "wandb"}).filled(finished).save(finished)
    lab.feed(finished)
    state = read_state(finished)
    assert (state["mode"], state["error"], state["sent"]) == ("online", None, rows)
    assert steps(wandb_server) == list(range(rows))
    pictures = {path.read_bytes() for path in (finished / "previews").glob("*.png")}
    assert pictures <= set(wandb_server.uploads.values())
    assert [alert["title"] for alert in wandb_server.alerts] == ["Disk"]

    append_row(finished, {"kind": "batch", "epoch": 3, "iteration": 9, "loss": 0.1})
    assert sync(finished).sent == 1
    assert steps(wandb_server) == list(range(rows + 1))
    assert sync(finished).sent == 0
    assert steps(wandb_server) == list(range(rows + 1))
    assert wandb_server.run["name"] == Settings.load(finished).id

    words = [str(finished), str(finished.parent), "/home/max", "the-host", "/usr/bin"]
    words += [word for word in (platform.node(), getpass.getuser()) if len(word) > 5]
    told = "\n".join(wandb_server.bodies) + "".join(str(v) for v in wandb_server.uploads.values())
    assert not [word for word in words if word in told]
    host = json.loads(next(body for body in wandb_server.bodies if '"config"' in body)).get("host")
    assert not host


def test_offline_rows_are_sent_later_under_the_same_id(lab, sent, wandb_server, monkeypatch):
    folder, _ = sent
    monkeypatch.setenv("WANDB_ENTITY", "team")  # nobody began this run here, so its team must be the user's
    done = sync(folder)
    assert (done.mode, done.sent) == ("online", len(lab.rows_of_a_run()))
    assert steps(wandb_server) == list(range(done.rows))
    assert wandb_server.run["name"] == Settings.load(folder).id
    assert lab.offline_runs(folder) == []  # what is there would be sent twice by hand


def test_a_server_that_falls_silent_is_not_waited_for_forever(lab, finished, wandb_server):
    Settings.of({"backend": "wandb"}).filled(finished).save(finished)
    wandb_server.silent.set()
    code = "import os, sys; from medseg.monitoring.backends import wandb_run; wandb_run.PATIENCE = 2.0; "
    code += "from medseg.monitoring import uploader; os._exit(uploader.main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, str(finished), "--once", "--need-server"]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 1
    assert "did not take the rest within 2 s" in read_state(finished)["error"]
    wandb_server.silent.clear()
    assert sync(finished).sent == len(lab.rows_of_a_run())
    assert steps(wandb_server) == list(range(len(lab.rows_of_a_run())))
