import contextlib
import json
import subprocess
import sys

import monai
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from medseg.bundle import Bundle, bundle_root, evaluation_context
from medseg.bundle.evaluation_context import BundleWorkflow, current_context
from medseg.errors import ConfigError, medseg_error


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


@pytest.fixture
def others(tmp_path, monkeypatch):
    """A working directory that is another bundle, and has one of the same name below it."""
    for folder in (tmp_path / "others", tmp_path / "others" / "bundles" / "small"):
        (folder / "configs").mkdir(parents=True)
        (folder / "configs" / "metadata.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "others")


NETWORK = {
    "_target_": "torch.nn.Conv2d",
    "in_channels": 1,
    "out_channels": "$2 if @bundle_root else 0",
    "kernel_size": 1,
}
TENSOR = {"num_channels": 1, "spatial_shape": [8, 8], "dtype": "float32", "value_range": [0, 1]}


@pytest.fixture
def with_network(bundle, others):
    """The files of a bundle whose network depends on where the bundle lies, for MONAI's commands."""
    configs = bundle / "configs"
    content = json.loads((configs / "train.json").read_text())
    (configs / "inference.json").write_text(json.dumps({**content, "network_def": NETWORK}))
    tensors = {"inputs": {"image": TENSOR}, "outputs": {"pred": {**TENSOR, "num_channels": 2}}}
    (configs / "metadata.json").write_text(json.dumps({"network_data_format": tensors}))
    (bundle / "models").mkdir()
    torch.save(torch.nn.Conv2d(1, 2, 1).state_dict(), bundle / "models" / "model.pt")
    return {"config_file": str(configs / "inference.json"), "meta_file": str(configs / "metadata.json")}


@pytest.fixture
def seen_roots(monkeypatch):
    """The roots that a bundle was given."""
    roots, real = [], evaluation_context.bundle_root
    monkeypatch.setattr("medseg.bundle.bundle_root", lambda name: roots.append(real(name)) or roots[-1])
    return roots


def export(kind, bundle, target, files):
    getattr(monai.bundle, kind)(
        "network_def",
        filepath=str(target),
        ckpt_file=str(bundle / "models" / "model.pt"),
        input_shape=[1, 1, 8, 8],
        **files,
    )


@pytest.mark.parametrize("kind", ["verify_net_in_out", "ckpt_export", "onnx_export"])
def test_what_starts_no_workflow_takes_the_bundle_of_its_config(
    bundle, with_network, seen_roots, tmp_path, kind, monkeypatch
):
    if kind == "verify_net_in_out":
        monai.bundle.verify_net_in_out("network_def", device="cpu", **with_network)
    else:
        with contextlib.suppress(ModuleNotFoundError):  # onnxscript comes with the extra onnx
            export(kind, bundle, tmp_path / "model", with_network)
    assert seen_roots
    assert set(seen_roots) == {str(bundle.resolve())}
    monkeypatch.chdir(bundle / "configs")
    seen_roots.clear()
    monai.bundle.verify_net_in_out(
        "network_def", device="cpu", config_file=["inference.json"], meta_file="metadata.json"
    )
    assert set(seen_roots) == {str(bundle.resolve())}


def test_a_config_of_which_the_file_is_not_known_is_refused(bundle, others, tmp_path, monkeypatch):
    content = json.loads((bundle / "configs" / "train.json").read_text())
    for location in (tmp_path / "others", tmp_path, bundle):
        monkeypatch.chdir(location)
        with pytest.raises(RuntimeError) as caught:
            ConfigParser(content).get_parsed_content("bundle_root")
        assert "it is not known where the config of bundle 'small' lies" in str(caught.value.__cause__)
    parser = ConfigParser(content)
    parser["bundle_root"] = str(bundle)
    assert parser.get_parsed_content("bundle_root") == str(bundle)


def test_a_config_that_lies_in_no_bundle_is_refused(bundle, others, tmp_path):
    config = tmp_path / "lost" / "configs" / "train.json"
    config.parent.mkdir(parents=True)
    config.write_text((bundle / "configs" / "train.json").read_text())
    started = ConfigWorkflow(str(config), logging_file=False, workflow_type=None, meta_file=None)
    with pytest.raises(RuntimeError) as caught:
        started.initialize()
    assert "--bundle_root FOLDER" in str(medseg_error(caught.value))


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        (["--max_epochs", "two"], 'max_epochs: use a whole number from 1 to 1000000 (got "two").'),
        (
            ["--in_channels", "3"],
            "in_channels: it follows from context and is 1 (got 3). Leave it out, and change context",
        ),
    ],
)
def test_the_plain_monai_command_ends_with_our_sentence_alone(repository, tmp_path, override, message):
    config = repository / "bundles" / "unet2d" / "configs" / "train.json"
    command = ["-m", "monai.bundle", "run", "training", "--config_file", str(config), "--output_dir", str(tmp_path)]
    done = subprocess.run([sys.executable, *command, *override], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"Error: {message}")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
