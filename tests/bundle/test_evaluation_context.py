import json

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

from medseg.bundle import Bundle, bundle_root, evaluation_context, runs_dir
from medseg.bundle.evaluation_context import BundleWorkflow, current_context
from medseg.errors import ConfigError


@pytest.fixture
def bundle(tmp_path):
    configs = tmp_path / "bundles" / "small" / "configs"
    configs.mkdir(parents=True)
    (configs / "metadata.json").write_text("{}")
    content = {
        "imports": ["$import medseg"],
        "bundle_root": "$medseg.bundle.bundle_root('small')",
        "runs": "$medseg.bundle.runs_dir(@bundle_root)",
        "seen": "$__import__('medseg.bundle.evaluation_context', fromlist=['x']).current_context().config()",
        "lr": 0.1,
        "initialize": ["$@bundle_root"],
        "handler_set": {"a": {"_target_": "StatsHandler"}, "b": {"_target_": "StatsHandler", "_disabled_": True}},
        "handlers": ["%handler_set#b", "%handler_set#a"],
    }
    (configs / "train.json").write_text(json.dumps(content))
    return tmp_path / "bundles" / "small"


def workflow(bundle, **overrides):
    made = ConfigWorkflow(str(bundle / "configs" / "train.json"), logging_file=False, workflow_type=None, **overrides)
    made.initialize()
    return made


def test_the_root_is_the_folder_of_the_config_wherever_one_stands(bundle, tmp_path, monkeypatch):
    for location in (tmp_path, bundle, tmp_path / "bundles"):
        monkeypatch.chdir(location)
        assert workflow(bundle).parser.get_parsed_content("bundle_root") == str(bundle.resolve())


def test_a_relative_config_path_does_as_well(bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(bundle)
    made = ConfigWorkflow("configs/train.json", logging_file=False, workflow_type=None)
    made.initialize()
    assert made.parser.get_parsed_content("bundle_root") == str(bundle.resolve())


def test_without_a_workflow_the_working_directory_decides(bundle, tmp_path, monkeypatch):
    content = json.loads((bundle / "configs" / "train.json").read_text())
    for location in (tmp_path, bundle):
        monkeypatch.chdir(location)
        assert ConfigParser(content).get_parsed_content("bundle_root") == str(bundle.resolve())


def test_a_root_that_cannot_be_found_says_how_to_name_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="--bundle_root FOLDER"):
        bundle_root("small")


def test_the_effective_config_holds_the_overrides(bundle):
    seen = workflow(bundle, lr=0.7).parser.get_parsed_content("seen")
    assert seen["lr"] == 0.7
    assert seen["handlers"] == ["%handler_set#b", "%handler_set#a"]
    assert current_context() is None


def test_what_medseg_starts_itself_needs_no_look_at_the_call_stack(bundle, monkeypatch):
    monkeypatch.setattr(evaluation_context, "_on_stack", pytest.fail)
    parser = Bundle(bundle, trust=True).resolve("train", {"lr": 0.7})
    assert parser.get_parsed_content("seen")["lr"] == 0.7
    options = {"config_file": str(bundle / "configs" / "train.json"), "logging_file": False, "workflow_type": None}
    started = BundleWorkflow(bundle, run_id="seen", **options, lr=0.5)
    started.initialize()
    (seen,) = started.run()
    assert seen["lr"] == 0.5


def test_two_configs_that_monai_evaluates_at_once_are_refused(bundle):
    inner = ConfigParser(json.loads((bundle / "configs" / "train.json").read_text()))

    class Outer(ConfigParser):
        def evaluate(self):
            return inner.get_parsed_content("seen")

    with pytest.raises(RuntimeError) as caught:
        Outer({}).evaluate()
    assert str(caught.value.__cause__) == (
        "ConfigParser: MONAI evaluates more than one config at once, so it is not known which one is meant (found 2). "
        "Run the bundle with medseg, or evaluate one config after the other."
    )


def test_runs_lie_beside_bundles_or_in_the_working_directory(bundle, tmp_path, monkeypatch):
    monkeypatch.delenv("MEDSEG_RUNS", raising=False)
    assert runs_dir(str(bundle)) == str((tmp_path / "runs").resolve())
    monkeypatch.chdir(tmp_path)
    assert runs_dir(str(tmp_path / "elsewhere" / "small")) == str((tmp_path / "runs").resolve())
    monkeypatch.setenv("MEDSEG_RUNS", "/data/runs")
    assert runs_dir(str(bundle)) == "/data/runs"
