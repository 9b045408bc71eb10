"""Where runs and recipes are found, without reading a config."""

import json

import pytest

from medseg import places
from medseg.places import find_recipe, homes, runs_dir, runs_root


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDSEG_RUNS", raising=False)
    return tmp_path


def a_run(root):
    (root / "unet2d" / "one").mkdir(parents=True)
    (root / "unet2d" / "one" / "run.json").write_text("{}")


def test_runs_are_looked_for_where_they_are_said_to_be(at, monkeypatch):
    monkeypatch.setattr(places, "homes", lambda: [at, at / "checkout"])
    assert runs_root() == at / "runs"
    a_run(at / "checkout" / "runs")
    assert runs_root() == at / "checkout" / "runs"
    a_run(at / "runs")
    assert runs_root() == at / "runs"
    monkeypatch.setenv("MEDSEG_RUNS", str(at / "variable"))
    assert runs_root() == at / "variable"
    assert runs_root("given") == at / "given"


def test_the_runs_of_a_bundle_go_where_they_are_looked_for(at, repository):
    assert runs_dir(str(repository / "bundles" / "unet2d")) == str(repository / "runs")
    assert repository in homes()
    assert runs_dir(str(at / "mine")) == str(at / "runs")


def test_runs_never_go_where_a_wheel_put_the_bundles(at, monkeypatch):
    monkeypatch.setattr(places, "installed", lambda: at / "environment" / "share" / "medseg")
    assert runs_dir(str(at / "environment" / "share" / "medseg" / "bundles" / "unet2d")) == str(at / "runs")


def test_a_run_that_is_its_own_bundle_stays_where_it_lies(at, monkeypatch):
    a_run(at / "elsewhere")
    monkeypatch.setenv("MEDSEG_RUNS", str(at / "variable"))
    assert runs_dir(str(at / "elsewhere" / "unet2d" / "one")) == str(at / "elsewhere")


def test_a_recipe_is_found_by_the_name_of_its_bundle(at):
    found = find_recipe("unet2d")
    assert found is not None
    assert "train" in json.loads(found.read_text())
    assert find_recipe("unet2d", "nothing") is None
    assert find_recipe("nobody") is None
