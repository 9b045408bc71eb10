import json

import pytest

from medseg.errors import ConfigError, RunError
from medseg.monitoring.settings import Settings, read_state
from medseg.monitoring.switching import is_fed, settings_of, switch_off, switch_on, wait_until_sent
from medseg.runs.metrics_log import append_row
from medseg.runs.record import this_process


@pytest.fixture
def going(lab, tmp_path):
    """A run that goes and was started with monitoring off: this process is its trainer."""
    folder = lab.make_run(tmp_path / "runs" / "unet2d" / "r1", lab.rows_of_a_run()[:4], "running")
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, **this_process()}))
    Settings.of({"backend": "off", "dashboard": False}).filled(folder).save(folder)
    return folder


def test_on_brings_what_was_recorded_before_and_off_leaves_the_run_alone(lab, going):
    assert switch_on(going).backend == "trackio"
    lab.wait_for(lambda: read_state(going).get("rows") == 4)
    assert is_fed(going)
    assert switch_off(going)
    assert not is_fed(going)
    append_row(going, {"kind": "batch", "epoch": 1, "iteration": 9, "loss": 0.1})
    assert len(lab.in_trackio(going)[0]) == 4

    switch_on(going)
    lab.wait_for(lambda: read_state(going).get("rows") == 5)
    assert switch_off(going)
    rows, ids, _ = lab.in_trackio(going)
    assert [step for step, _ in rows] == [0, 1, 2, 3, 4]
    assert ids == {Settings.load(going).id}


def test_another_tracker_takes_over_while_the_run_goes(lab, going):
    switch_on(going, "trackio")
    lab.wait_for(lambda: read_state(going).get("rows") == 4)
    switch_on(going, "wandb")
    lab.wait_for(lambda: read_state(going).get("backend") == "wandb" and read_state(going).get("rows") == 4)
    assert switch_off(going)
    assert len(lab.history(lab.in_wandb(going))) == len(lab.in_trackio(going)[0]) == 4


def test_what_cannot_be_switched_says_so(lab, finished, going):
    with pytest.raises(RunError, match="must be going to be shown live [(]a run that is finished"):
        switch_on(finished)
    with pytest.raises(ConfigError, match="must be a tracker to switch on"):
        switch_on(going, "off")
    with pytest.raises(ConfigError, match="Did you mean 'trackio'"):
        switch_on(going, "trackoi")


def test_settings_of_a_run_that_was_never_monitored_are_made_of_its_record(finished):
    assert settings_of(finished).project == "medseg-unet2d"


def test_there_is_nothing_to_wait_for_where_nobody_feeds(finished):
    assert wait_until_sent(finished, 5)


def test_a_feed_that_does_not_get_on_is_not_waited_for(finished):
    state = {"done": False, "updated": 1.0, **this_process()}
    (finished / "monitor").mkdir()
    (finished / "monitor" / "state.json").write_text(json.dumps(state))
    assert is_fed(finished)
    assert not wait_until_sent(finished, 0.3)
