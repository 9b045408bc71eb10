"""What every bundle keeps: MONAI's own rules, and ours. A new folder in bundles/ is tested without a new line here."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import monai.bundle
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from medseg.bundle import Bundle, default_handlers, run_bundle
from medseg.bundle.handlers import handler_class
from medseg.config.references import used_paths

BUNDLES = sorted(path.parents[1] for path in Path(__file__).parents[2].glob("bundles/*/configs/metadata.json"))
CONFIGS = ("train", "evaluate", "inference")
TRACKING = Path(__file__).parents[2] / "configs" / "tracking.json"  # for MONAI's --tracking, no overlay
COMMON = sorted(set(TRACKING.parent.glob("*.json")) - {TRACKING})

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("root", BUNDLES, ids=lambda root: root.name)]


def content(root: Path, name: str) -> dict:
    return json.loads((root / "configs" / f"{name}.json").read_text())


def overlays_of(root: Path) -> list[Path]:
    named = {*CONFIGS, "metadata"}
    return [*COMMON, *(path for path in sorted(root.glob("configs/*.json")) if path.stem not in named)]


def workflow(root: Path, config: str, kind: str, **overrides) -> ConfigWorkflow:
    made = ConfigWorkflow(str(root / "configs" / f"{config}.json"), workflow_type=kind, logging_file=False, **overrides)
    made.initialize()
    return made


def test_all_files_are_there_and_none_is_python(root):
    for name in (
        *(f"configs/{config}.json" for config in (*CONFIGS, "metadata")),
        "configs/logging.conf",
        "docs/README.md",
        "LICENSE",
    ):
        assert (root / name).is_file(), name
    assert (root / "models").is_dir()
    assert not list(root.rglob("*.py"))


def test_the_metadata_is_complete(root):
    metadata = content(root, "metadata")
    wanted = "version changelog monai_version pytorch_version numpy_version required_packages_version task description"
    for key in [*wanted.split(), "authors", "copyright", "intended_use", "network_data_format"]:
        assert metadata[key], key
    assert metadata["version"] in metadata["changelog"]
    assert metadata["name"] == root.name
    outputs = metadata["network_data_format"]["outputs"]["pred"]
    assert outputs["num_channels"] == len(outputs["channel_def"])


def test_monai_finds_every_property_of_training(root, settings):
    made = workflow(root, "train", "train", **settings)
    assert made.check_properties() == []
    assert (made.max_epochs, made.val_interval) == (1, 1)
    assert {Path(item["image"]).parts[-2] for item in made.train_dataset_data} <= {"p0000", "p0001", "images"}


def test_monai_finds_every_property_of_evaluation_and_inference(root, bundle_run, data, unseen):
    for config in ("evaluate", "inference"):
        given = data if config == "evaluate" else unseen
        assert workflow(bundle_run, config, "infer", dataset_dir=str(given)).check_properties() == []


def attached(path: str) -> list[dict]:
    return [{"_target_": "medseg.training.AttachHandlers", "handlers": f"@{path}"}]


def test_every_engine_attaches_its_handlers_by_name(root):
    train = content(root, "train")
    assert train["train"]["handler_set"]["_target_"] == "medseg.bundle.default_handlers"
    for engine, argument in (("train", "train_handlers"), ("validate", "val_handlers")):
        part = train[engine]
        assert part["handlers"] == attached(f"{engine}#handler_set")
        assert part["trainer" if engine == "train" else "evaluator"][argument] == f"@{engine}#handlers"
    for config in ("evaluate", "inference"):
        found = content(root, config)
        assert found["handlers"] == attached("handler_set")
        assert found["evaluator"]["val_handlers"] == "@handlers"


def test_every_default_handler_can_be_named(root):
    """Each has its settings in train.json, so that an overlay reaches it by its full path."""
    named = content(root, "train")["train"]["handler_set"]
    names = [name for name in inspect.signature(default_handlers).parameters if handler_class(name) is not None]
    assert len(names) > 12
    assert [name for name in names if not isinstance(named.get(name), dict)] == []


def test_nothing_is_addressed_by_position(root):
    position = re.compile(r"(#|::)\d+(#|::|$|\W)")
    for path in [*(root / "configs" / f"{config}.json" for config in CONFIGS), *overlays_of(root)]:
        found = json.loads(path.read_text())
        assert not [reference for reference in used_paths(found) if position.search(reference)]
        assert not [key for key in found if position.search(key)]


def test_train_evaluate_and_inference_share_network_and_preprocessing(root):
    how = {
        "sw_batch_size",
        "precision",
        "output_grid",
        "decode",
        "flips",
    }  # not what the network says

    def shared(config):
        found = content(root, config)
        return {**found, "inferer": {key: value for key, value in found["inferer"].items() if key not in how}}

    train = shared("train")
    for config in ("evaluate", "inference"):
        other = shared(config)
        for key in (
            "network_def",
            "preprocess_transforms",
            "inferer",
            "structures",
            "labels",
            "out_channels",
            "in_channels",
        ):
            # Only a training takes its classes from a data set; else they are those of the weights.
            expected = train[key]
            if key == "labels" and root.name == "unet2d":
                expected = expected.replace("(@dataset_dir,", "(None,")
            assert other[key] == expected, (config, key)
        assert other.get("standardize") == train.get("standardize")


def test_every_overlay_is_strict_and_changes_only_what_is_there(root):
    bundle = Bundle(root)
    for overlay in overlays_of(root):
        bundle.resolve("train", overlays=[overlay])


def test_an_overlay_changes_and_disables_a_handler_by_name(root, settings, tmp_path):
    overlay = tmp_path / "o.json"
    overlay.write_text(
        json.dumps(
            {"train#handler_set#history#log_every_n_batches": 1, "validate#handler_set#previews#_disabled_": True}
        )
    )
    bundle = Bundle(root)
    run_bundle(bundle, "training", "train", [overlay], settings)
    (run,) = (tmp_path / "runs" / root.name).iterdir()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert sum(row["kind"] == "batch" for row in rows) == 2
    assert not (run / "previews").exists()


def test_monais_tracking_adds_a_handler_to_each_engine(root, settings, tmp_path):
    handler = {"_target_": "StatsHandler", "name": "@who", "tag_name": "loss", "output_transform": "$lambda x: 1.0"}
    ids = {
        "trainer": {"id": "train#trainer", "handlers": "train#handlers"},
        "validator": {"id": "validate#evaluator", "handlers": "validate#handlers"},
        "evaluator": {"id": "evaluator", "handlers": "handlers"},
    }
    tracking = {
        "handlers_id": ids,
        "configs": {"who": "tracked", "trainer": handler, "validator": handler, "evaluator": handler},
    }
    (tmp_path / "tracking.json").write_text(json.dumps(tracking))
    made = workflow(root, "train", "train", tracking=str(tmp_path / "tracking.json"), **settings)
    assert made.check_properties() == []
    for handlers in (made.train_handlers, made.val_handlers):
        assert [type(one).__name__ for one in handlers if one is not None][-1] == "StatsHandler"
    made.run()
    (record,) = (tmp_path / "runs").glob("*/*/run.json")
    assert json.loads(record.read_text())["state"] == "finished"


def test_the_plain_monai_command_refuses_a_mistyped_override(root, settings):
    with pytest.raises(RuntimeError) as caught:
        monai.bundle.run(
            "training", config_file=str(root / "configs" / "train.json"), logging_file=None, lrr=0.5, **settings
        )
    causes = []
    error: BaseException | None = caught.value
    while error is not None:
        causes.append(str(error))
        error = error.__cause__
    assert any("config key 'lrr'" in text and "Did you mean 'lr'" in text for text in causes)


def flags(settings: dict) -> list[str]:
    found = []
    for key, value in settings.items():
        found += [f"--{key}", value if isinstance(value, str) else repr(value)]
    return found


def run_monai(location: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "monai.bundle", "run", *arguments]
    done = subprocess.run(command, cwd=location, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_one_run_whoever_starts_it_and_from_wherever(root, settings, runs, tmp_path, repository):
    """From the repository, from inside the bundle, from elsewhere, and through medseg: one identity, equal weights."""
    config = root / "configs" / "train.json"
    run_monai(repository, "training", "--config_file", str(config.relative_to(repository)), *flags(settings))
    run_monai(root, "training", "--config_file", "configs/train.json", *flags(settings))
    # Without an id MONAI runs what is called "run"; where nothing is, it does nothing and says nothing.
    run_monai(tmp_path, "--config_file", str(config), "--bundle_root", str(root), *flags(settings))
    run_bundle(Bundle(root), "training", "train", (), settings)
    folders = sorted((runs / root.name).iterdir())
    assert len(folders) == 4
    records = [json.loads((folder / "run.json").read_text()) for folder in folders]
    assert {record["state"] for record in records} == {"finished"}
    assert len({record["identity"] for record in records}) == 1
    states = [torch.load(folder / "models" / "model.pt", weights_only=True) for folder in folders]
    for state in states[1:]:
        assert all(torch.equal(state[name], states[0][name]) for name in states[0])
    effective = [json.loads((folder / "configs" / "train.json").read_text()) for folder in folders]
    assert {one["batch_size"] for one in effective} == {2}
    assert not list(root.glob("runs")) + list(root.glob("models/*.pt"))  # the recipe stays clean


def test_a_runs_folder_is_a_bundle_with_everything_in_it(root, bundle_run, small):
    for name in ("run.json", "train.log", "metrics.jsonl", "training_history.json", "label_map.json", "models/model.pt",
                 "checkpoints/last.pt", "checkpoints/best.pt", "LICENSE", "docs/README.md"):  # fmt: skip
        assert (bundle_run / name).is_file(), name
    assert list((bundle_run / "previews").glob("epoch_0000_*.png"))
    assert list((bundle_run / "previews").glob("epoch_0002_*.png"))
    labels = json.loads((bundle_run / "label_map.json").read_text())
    history = json.loads((bundle_run / "training_history.json").read_text())
    assert labels["0"] == "background"
    assert list(labels.values())[1:] == list(history["dice"])
    assert content(bundle_run, "metadata")["network_data_format"]["outputs"]["pred"]["channel_def"] == labels
    trained = content(bundle_run, "train")
    assert trained["max_epochs"] == 2
    said = {key.split("#")[0] for key in small if "#" not in key or key.startswith("network_def")} - {
        "max_epochs",
        "num_workers",
        "device",
    }
    for config in CONFIGS:
        effective = content(bundle_run, config)
        held = said & set(effective)
        assert {key: effective[key] for key in held} == {key: trained[key] for key in held}
        assert effective["network_def"] == trained["network_def"]
        assert effective["bundle_root"] == content(root, config)["bundle_root"]


def test_a_training_begins_with_the_weights_of_a_run(root, settings, bundle_run, runs, capfd):
    first = torch.load(bundle_run / "models" / "model.pt", weights_only=True)
    still = {"optimizer#lr": 0.0, "lr_scheduler": None}
    run = run_bundle(Bundle(root), "training", "train", (), {**settings, **still, "init_weights": str(bundle_run)})
    assert f"all taken from {bundle_run / 'models' / 'model.pt'}" in capfd.readouterr().err
    weights = torch.load(run.folder / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(weights[name], first[name]) for name in first if name.endswith("weight"))
    assert run.config["init_weights"] == str(bundle_run)


def test_a_run_evaluates_itself(root, bundle_run, data, tmp_path):
    run_bundle(
        Bundle(bundle_run), "evaluating", "evaluate", (), {"dataset_dir": str(data), "output_dir": str(tmp_path)}
    )
    scores = json.loads((tmp_path / "evaluation.json").read_text())
    history = json.loads((bundle_run / "training_history.json").read_text())
    assert scores["mean_dice"] == pytest.approx(history["best_dice"])
    assert set(scores["dice"]) == set(history["dice"])


def test_a_parser_alone_resolves_the_network_to_its_channels(root, bundle_run):
    parser = ConfigParser(content(bundle_run, "inference"))
    parser["bundle_root"] = str(bundle_run)
    network = parser.get_parsed_content("network").eval()
    size = parser.get_parsed_content("inferer").roi[1:]
    out = network(torch.zeros(1, parser.get_parsed_content("in_channels"), *size))
    assert tuple(out.shape) == (1, len(json.loads((bundle_run / "label_map.json").read_text())), *size)
