"""What a person reads when something about a run is wrong, as printed."""

import pytest

from medseg.errors import ConfigError, RunError
from medseg.runs import Run, find_run
from medseg.runs.find import pick_latest, pick_running
from medseg.runs.notify import Notifier
from medseg.runs.record import this_process
from medseg.runs.resume import resume_command
from medseg.runs.stop import stop


def message(kind, call, *arguments):
    with pytest.raises(kind) as error:
        call(*arguments)
    return str(error.value)


def test_names_that_mean_no_run_or_several(make_run, tmp_path):
    root = tmp_path / "runs"
    assert message(RunError, pick_latest, None, root) == (
        f"{root}: there are no runs here. Name their folder with --runs DIR or MEDSEG_RUNS."
    )
    make_run("20260101-quick", state="finished")
    make_run("20260102-quick", state="finished")
    assert message(RunError, find_run, "quick", root) == (
        "run 'quick': 2 runs have this in their name, among them 20260101-quick, 20260102-quick. Give more of the name."
    )
    assert message(RunError, find_run, "full", root) == (
        f"run 'full': no run under {root} has this name. The latest are: 20260101-quick, 20260102-quick."
    )
    assert message(RunError, pick_running, None, root) == f"{root}: no run is running here."


def test_a_folder_that_is_no_run(tmp_path):
    assert message(RunError, Run, tmp_path) == (
        f"{tmp_path}: this is no folder of a run: it holds neither run.json nor metrics.jsonl nor "
        "training_history.json."
    )


def test_states_in_which_a_run_cannot_be_stopped_or_resumed(make_run):
    assert message(RunError, stop, make_run("a", state="failed")) == (
        "run 'a': it is not running, its state is 'failed'. To resume it: medseg runs resume a"
    )
    assert message(RunError, stop, make_run("b", state="running", host="gpu-7")) == (
        "run 'b': it runs on another machine, gpu-7. Stop it there."
    )
    assert message(RunError, resume_command, make_run("c", state="finished", config={})) == (
        "run 'c': it has finished. To train on, change a setting, for example max_epochs=N."
    )
    process = this_process()
    assert message(RunError, resume_command, make_run("d", state="running", config={}, **process)) == (
        f"run 'd': it is running, as process {process['pid']}. Stop it first: medseg runs stop d"
    )


def test_a_webhook_that_is_no_address():
    assert message(ConfigError, Notifier, None, "example.org/hook") == (
        "webhook: the address must begin with http:// or https:// and name a host (got no scheme)."
    )
