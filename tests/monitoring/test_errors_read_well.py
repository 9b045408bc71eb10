"""What a person reads when monitoring is set up wrongly, as printed."""

import pytest

from medseg.errors import ConfigError, RunError
from medseg.monitoring.control import switch_on, sync
from medseg.monitoring.dashboard import serve
from medseg.monitoring.settings import Settings


def message(kind, call, *arguments):
    with pytest.raises(kind) as error:
        call(*arguments)
    return str(error.value)


def test_settings_that_mean_nothing():
    assert message(ConfigError, Settings.of, {"backend": "wand"}) == (
        "monitor#backend: use one of trackio, wandb, off (got 'wand'). Did you mean 'wandb'?"
    )
    assert message(ConfigError, Settings.of, {"projekt": "x"}) == (
        "monitor#projekt: the monitor has no such setting. Did you mean 'project'?"
    )
    assert message(ConfigError, Settings.of, {"images": "no"}) == "monitor#images: use true or false (got 'no')."


def test_runs_that_cannot_be_shown_or_synced(finished, tmp_path):
    assert message(RunError, switch_on, finished) == (
        "run '20261122-try': only a running run is shown live, and this one is finished. "
        "To bring its rows to a tracker: medseg runs sync 20261122-try"
    )
    assert message(RunError, sync, tmp_path) == f"{tmp_path}: there is no metrics.jsonl to sync."
    assert message(ConfigError, sync, finished, "off") == "backend: 'off' is no tracker. Use trackio or wandb."


def test_a_dashboard_without_runs(tmp_path):
    assert message(RunError, serve, tmp_path) == (
        f"{tmp_path}: no run here was shown with trackio. Train with monitor#backend=trackio, "
        "or run: medseg runs sync RUN --backend trackio"
    )
