import pytest

from medseg.errors import ConfigError, RunError
from medseg.monitoring.settings import Settings, check_settings, default_backend, read_state, store_of


def test_the_default_stays_on_this_machine_whatever_keys_there_are(monkeypatch):
    monkeypatch.delenv("MEDSEG_MONITOR")
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert default_backend() == "trackio"
    assert Settings.of({}).backend == Settings.of(None).backend == "trackio"


def test_the_environment_fills_in_for_the_config(monkeypatch):
    monkeypatch.setenv("MEDSEG_MONITOR", "wandb")
    assert Settings.of({}).backend == "wandb"
    assert Settings.of({"backend": "off"}).backend == "off"
    monkeypatch.setenv("MEDSEG_MONITOR", "wanbd")
    with pytest.raises(ConfigError, match="Did you mean 'wandb'"):
        Settings.of({})


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (
            {"backend": "wand"},
            "monitor#backend: use one of trackio, wandb, off [(]got 'wand'[)]. Did you mean 'wandb'",
        ),
        ({"mode": "onlin"}, "Did you mean 'online'"),
        ({"projekt": "x"}, "monitor#projekt: .*Did you mean 'project'"),
        ({"images": "no"}, "monitor#images: use true or false"),
        ({"tags": "ct"}, "monitor#tags: use a list of words"),
        ({"name": 3}, "monitor#name: use a text or null"),
        ({"id": "mine"}, "monitor#id: the monitor has no such setting"),
    ],
)
def test_settings_that_mean_nothing_are_refused(chosen, said):
    with pytest.raises(ConfigError, match=said):
        Settings.of(chosen)


def test_project_and_name_are_made_from_the_run(finished):
    settings = Settings.of({}).filled(finished)
    assert (settings.project, settings.name) == ("medseg-unet2d", finished.name)
    assert settings.store == str(finished.parent.parent / ".trackio")
    assert len(settings.id) == 12
    assert settings.filled(finished) == settings
    assert Settings.of({"project": "p", "name": "n"}).filled(finished).name == "n"


@pytest.mark.parametrize(
    ("chosen", "variable", "problem"),
    [
        ({"project": "liver/first"}, "", r"monitor#project: W&B takes 1 to 128 letters without # .*got 'liver/first'"),
        ({"project": "a:b"}, "", "monitor#project"),
        ({"project": "x" * 129}, "", "monitor#project.*with 129 letters"),
        ({}, "team/liver", "monitor#project: .*got 'team/liver'"),
        ({"name": " "}, "", "monitor#name: W&B takes 1 to 128 letters"),
        ({"entity": "my team"}, "", "monitor#entity"),
        ({"tags": ["ct", "t" * 65]}, "", "monitor#tags: a tag has 1 to 64 letters"),
        ({"tags": [""]}, "", "monitor#tags: a tag has 1 to 64 letters"),
    ],
)
def test_what_wandb_would_refuse_is_refused_before_anything_starts(monkeypatch, chosen, variable, problem):
    monkeypatch.setenv("WANDB_PROJECT", variable)
    with pytest.raises(ConfigError, match=problem):
        check_settings(chosen)
    check_settings({"project": "x" * 128, "name": "a/b", "tags": ["t" * 64]})


def test_settings_are_saved_and_loaded(finished):
    assert Settings.load(finished) is None
    settings = Settings.of({"tags": ["ct", "quick"], "images": False}).filled(finished)
    settings.save(finished)
    assert Settings.load(finished) == settings
    (finished / "monitor" / "settings.json").write_text("{")
    with pytest.raises(RunError, match="the settings of the monitor cannot be read"):
        Settings.load(finished)


def test_trackios_files_are_beside_the_runs_or_in_trackio_dir(tmp_path, monkeypatch):
    assert store_of(tmp_path / "eval" / "medseg-run-1", {"bundle": "spleen"}) == tmp_path / "eval" / ".trackio"
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "mine"))
    assert store_of(tmp_path / "runs" / "unet2d" / "r", {"bundle": "unet2d"}) == tmp_path / "mine"


def test_a_missing_state_is_empty(tmp_path):
    assert read_state(tmp_path) == {}
