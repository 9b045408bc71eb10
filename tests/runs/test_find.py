"""Where runs and recipes lie, and which run a name means."""

import json

import pytest

from medseg.errors import ConfigError, RunError
from medseg.runs.find import (
    all_runs,
    find_run,
    find_runs,
    find_unfinished,
    pick,
    pick_latest,
    pick_resumable,
    pick_running,
    require_run_name,
    runs_dir,
    runs_root,
)
from medseg.runs.record import this_process
from medseg.search_path import find_recipe


@pytest.fixture
def at(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDSEG_RUNS", raising=False)
    return tmp_path


def write_run(folder, **record):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_runs_land_where_the_user_stands_and_are_looked_for_there(at, monkeypatch, repository):
    checkout = repository / "bundles" / "unet2d"
    assert runs_root() == at / "runs"
    assert {runs_dir(str(folder)) for folder in (checkout, at / "mine", at / "bundles" / "own")} == {str(at / "runs")}
    (at / "deeper").mkdir()
    monkeypatch.chdir(at / "deeper")
    assert runs_dir(str(checkout)) == str(runs_root()) == str(at / "deeper" / "runs")
    monkeypatch.setenv("MEDSEG_RUNS", str(at / "variable"))
    assert runs_dir(str(checkout)) == str(runs_root()) == str(at / "variable")
    assert runs_root("folder") == at / "deeper" / "folder"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("x" * 240, r"it has 240 letters, and at most 100 are possible \(got 'x{37}\.\.\.'\)"),
        ("liver/first", "it becomes the name of a folder"),
        ("..\\up", "it becomes the name of a folder"),
        ("a:b", "it becomes the name of a folder"),
        ("end.", "no dot at its ends"),
        ("line\nbreak", "it becomes the name of a folder"),
        ("CON", "the name of a device on Windows"),
        ("lpt1.txt", "the name of a device on Windows"),
        ("  ", "it must be a text"),
        (7, r"it must be a text \(got 7\)"),
    ],
)
def test_a_name_that_cannot_be_a_folder_is_one_error(name, problem):
    with pytest.raises(ConfigError, match=rf"run_name: .*{problem}.*Choose another name"):
        require_run_name(name)


@pytest.mark.parametrize("name", ["bs8-lr0.001", "Übung 2", "第一回", "a%b", "console"])
def test_a_name_that_can_be_a_folder_is_taken(name):
    require_run_name(name)


def test_a_run_that_is_its_own_bundle_stays_where_it_lies(at, monkeypatch):
    write_run(at / "elsewhere" / "unet2d" / "one")
    monkeypatch.setenv("MEDSEG_RUNS", str(at / "variable"))
    assert runs_dir(str(at / "elsewhere" / "unet2d" / "one")) == str(at / "elsewhere")


def test_a_recipe_is_found_by_the_name_of_its_bundle(at):
    recipe = find_recipe("unet2d")
    assert recipe is not None
    assert "train" in json.loads(recipe.read_text())
    assert find_recipe("unet2d", "nothing") is None
    assert find_recipe("missing") is None


def test_runs_are_found_by_folder_name_and_part(tmp_path):
    first = write_run(tmp_path / "unet2d" / "20260101-000000-quick")
    second = write_run(tmp_path / "unet2d" / "20260102-000000-quick-lr2")
    third = write_run(tmp_path / "segformer2d" / "20260103-000000-b0")
    write_run(tmp_path / "unet2d" / ".20260103-partial")
    assert find_runs(tmp_path) == [first, second, third]
    assert find_runs(tmp_path / "unet2d") == [first, second]
    assert find_run(first, tmp_path / "nowhere") == first
    assert find_run("20260101-000000-quick", tmp_path) == first
    assert find_run("b0", tmp_path) == third
    with pytest.raises(RunError, match="run 'quick': 2 runs have this in their name"):
        find_run("quick", tmp_path)
    with pytest.raises(RunError, match="Did you mean '20260103-000000-b0'"):
        find_run("20260103-000000-b1", tmp_path)


def test_the_latest_unfinished_run_of_an_identity_is_found(tmp_path):
    parent = tmp_path / "unet2d"
    states = [("1", "failed", "abc"), ("2", "finished", "abc"), ("3", "running", "xyz"), (".4", "failed", "abc")]
    for name, state, identity in states:
        write_run(parent / name, state=state, identity=identity, started=name)
    assert find_unfinished(parent, "abc") == parent / "1"
    assert find_unfinished(parent, "xyz") == parent / "3"
    assert find_unfinished(parent, "else") is None
    assert find_unfinished(tmp_path / "nowhere", "abc") is None


def test_all_runs_come_latest_first_with_the_damaged_ones(make_run, tmp_path):
    (make_run("bad") / "run.json").write_text("{")
    make_run("good", state="finished", started="2026-11-22T22:51:49+0000")
    good, bad = all_runs(tmp_path / "runs")
    assert (bad.state, good.state, good.started) == ("unreadable", "finished", 1795387909.0)
    assert "the file is no JSON object" in bad.error


def test_without_a_name_the_only_running_run_is_meant_or_the_latest(make_run, tmp_path):
    root = tmp_path / "runs"
    with pytest.raises(RunError, match="there are no runs here"):
        pick(None, root)
    first = make_run("1", state="running", **this_process())
    latest = make_run("2", state="finished")
    silent = {"state": "running", "host": "gpu-7", "updated": "1970-01-01T00:01:00+0000"}
    assert pick(None, root) == first
    assert pick_running(None, root) == first
    assert pick("2", root) == pick_running("2", root) == latest
    make_run("0", **silent)
    assert pick_running(None, root) == first
    make_run("3", state="running", **this_process())
    assert pick(None, root).name == "3"
    with pytest.raises(RunError, match="2 runs are running: 1, 3. Name one"):
        pick_running(None, root)


def test_without_a_name_the_latest_that_was_stopped_is_resumed(make_run, tmp_path):
    root = tmp_path / "runs"
    for choice in (pick_latest, pick_resumable):
        with pytest.raises(RunError, match="there are no runs here"):
            choice(None, root)
    running = make_run("1", state="running", **this_process())
    with pytest.raises(RunError, match="every run here is running: 1"):
        pick_resumable(None, root)
    assert pick_resumable("1", root) == pick_latest(None, root) == running
    finished = make_run("2", state="finished")
    assert pick_resumable(None, root) == pick_latest(None, root) == finished
    failed = make_run("3", state="failed")
    last = make_run("4", state="finished")
    make_run("5", state="failed", job_type="inference")
    assert pick_resumable(None, root) == failed
    assert pick_latest("4", root) == last
    assert pick_latest(None, root).name == "5"


def test_a_medseg_installed_with_user_or_target_finds_what_came_with_it(tmp_path, monkeypatch):
    """Its list of files says where they went, here as `pip install --target` puts them."""
    from importlib.metadata import PackagePath

    from medseg import search_path as module

    target = tmp_path / "target"
    (target / "share" / "medseg" / "configs").mkdir(parents=True)
    listed = PackagePath("share/medseg/configs/poly.json")
    listed.dist = type("Dist", (), {"locate_file": lambda self, path: target / path})()
    monkeypatch.setattr(module, "files", lambda name: [PackagePath("medseg/__init__.py"), listed])
    monkeypatch.setattr(module.sys, "prefix", str(tmp_path / "prefix"))
    module.installed.cache_clear()
    try:
        assert module.installed() == (target / "share" / "medseg").resolve()
        monkeypatch.setattr(module, "files", lambda name: None)
        module.installed.cache_clear()
        assert module.installed() == tmp_path / "prefix" / "share" / "medseg"
    finally:
        module.installed.cache_clear()
