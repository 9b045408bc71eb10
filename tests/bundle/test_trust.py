"""The gate as the bundle floor has it: what of a bundle from elsewhere runs, and what needs trust."""

import json
import logging
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import medseg
from medseg.bundle import run_bundle
from medseg.bundle.bundle import Bundle
from medseg.bundle.mask_parts import BuiltParts
from medseg.cli.main import cli
from medseg.errors import UntrustedError, WeightsError
from medseg.runs.origin import is_own, remember_bundle


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def change(root, name, **values):
    path = root / "configs" / f"{name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture
def foreign(trained, tmp_path):
    """A trained bundle from elsewhere: one of its configs is not as it was when the run was begun."""
    root = Path(shutil.copytree(trained, tmp_path / "b"))
    change(root, "inference", note="from elsewhere")
    return root


@pytest.fixture
def hostile(foreign, tmp_path):
    """A trained bundle whose configs make a file when they are evaluated."""
    touch = f"$__import__('pathlib').Path({str(tmp_path / 'canary')!r}).touch() or 1"
    for name in ("inference", "train", "evaluate"):
        change(foreign, name, initialize=[touch], run=[touch], out_channels=touch)
    return foreign


def run(*arguments):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_predict_train_and_evaluate_refuse_what_would_run(hostile, phantom, tmp_path):
    scan = phantom / "p0003" / "ct.nii.gz"
    for arguments, reason in (
        (["predict", hostile, scan, "-o", tmp_path / "out"], "'out_channels' does not run: it calls"),
        (["train", hostile, "--data", phantom], "runs whatever that holds"),
        (["evaluate", hostile, "--data", phantom, "-o", tmp_path / "out"], "'out_channels' does not run: it calls"),
    ):
        result = run(*arguments)
        assert isinstance(result.exception, UntrustedError), (arguments, result.exception, result.output)
        assert reason in str(result.exception)
        assert "--trust" in str(result.exception)
    assert not (tmp_path / "canary").exists()


def test_python_refuses_it_before_anything_of_it_runs(hostile, tmp_path):
    for use in (
        lambda: medseg.Predictor(Bundle.open(hostile)),
        lambda: medseg.load(hostile),
        lambda: medseg.segment(np.zeros((4, 4, 4)), hostile, affine=np.eye(4)),
        lambda: medseg.train(hostile, None),
        lambda: Bundle.open(hostile).resolve("evaluate"),
        lambda: Bundle.open(hostile).resolve("train", {"lr": 0.1}),
    ):
        with pytest.raises(UntrustedError, match="does not run|runs whatever"):
            use()
    assert not (tmp_path / "canary").exists()


def test_trust_lets_it_pass_in_python(hostile, tmp_path):
    Bundle.open(hostile, trust=True).resolve("inference").get_parsed_content("out_channels")
    assert (tmp_path / "canary").exists()


def test_the_parts_that_no_mask_needs_are_not_looked_at(foreign, phantom, tmp_path):
    touch = f"$__import__('pathlib').Path({str(tmp_path / 'canary')!r}).touch()"
    change(foreign, "inference", initialize=[touch], run=[touch], handlers=[touch], dataset=touch, evaluator=touch)
    scan = phantom / "p0003" / "ct.nii.gz"
    result = run("predict", foreign, scan, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    result = run("evaluate", foreign, "--data", phantom, "-o", tmp_path / "evaluated", "--subset", "test")
    assert result.exit_code == 0, result.output
    assert not (tmp_path / "canary").exists()


def test_both_ways_of_building_give_the_same_mask(trained, foreign, phantom):
    scan = phantom / "p0003" / "ct.nii.gz"
    own, built = medseg.load(trained), medseg.load(foreign)
    assert Bundle.open(trained).is_own
    assert isinstance(Bundle.open(foreign).resolve("inference"), BuiltParts)
    first, second = own.predict_case(scan), built.predict_case(scan)
    assert np.array_equal(first.label, second.label)
    assert first.label.max() > 0
    assert first.labels == second.labels
    image = own.load(scan).item["image"][None]
    assert torch.equal(image, built.load(scan).item["image"][None])


def test_both_ways_of_building_give_the_same_mask_of_slices(trained_slices, tmp_path):
    root = Path(shutil.copytree(trained_slices, tmp_path / "b"))
    change(root, "inference", note="from elsewhere")
    image = (np.random.default_rng(0).random((96, 80)) * 255).astype(np.uint8)
    own, built = (medseg.load(bundle, slices=True) for bundle in (trained_slices, root))
    assert isinstance(Bundle.open(root).resolve("inference"), BuiltParts)
    assert torch.equal(*(made.infer(made.load_slice_array(image).item["image"][None]) for made in (own, built)))
    assert np.array_equal(*(made.segment(made.load_slice_array(image)).label for made in (own, built)))


def test_an_unlisted_component_is_named_with_its_key(foreign):
    change(foreign, "inference", network_def={"_target_": "scripts.net.Mine", "in_channels": 1})
    with pytest.raises(UntrustedError) as error:
        medseg.load(foreign)
    assert error.value.problem == (
        "without trust its key 'network_def' does not run: the component 'scripts.net.Mine' is not on the list of what "
        "runs without trust"
    )
    assert error.value.fix == "If you trust its maker, give --trust (trust=True in Python)."


def test_weights_outside_of_the_bundle_are_the_users_to_name(foreign, tmp_path):
    weights = Path(shutil.copyfile(foreign / "models" / "model.pt", tmp_path / "elsewhere.pt"))
    assert medseg.load(foreign, ckpt_path=str(weights)).labels
    change(foreign, "inference", ckpt_path=str(weights))
    with pytest.raises(UntrustedError, match="lies outside of the bundle"):
        medseg.load(foreign)
    (foreign / "models" / "model.pt").unlink()
    (foreign / "models" / "model.pt").symlink_to(weights)
    change(foreign, "inference", ckpt_path="$@bundle_root + '/models/model.pt'")
    with pytest.raises(UntrustedError, match="lies outside of the bundle"):
        medseg.load(foreign)


def test_own_is_what_ships_what_was_created_and_what_was_begun_here(trained, tmp_path, repository, monkeypatch):
    assert is_own(repository / "bundles" / "unet2d")
    assert is_own(trained)
    assert not is_own(tmp_path)
    copy = Path(shutil.copytree(trained, tmp_path / "moved"))
    assert is_own(copy)
    (copy / "wandb.py").write_text("")
    assert not is_own(copy)
    bundle = Path(shutil.copytree(repository / "bundles" / "unet2d", tmp_path / "bundles" / "unet2d"))
    assert not is_own(bundle)
    monkeypatch.chdir(tmp_path)
    assert not Bundle.open("unet2d").is_own  # a folder that hides medseg's own by its name
    remember_bundle(bundle)
    assert is_own(bundle)
    remember_bundle(bundle, is_own=False)
    assert not is_own(bundle)


def test_an_overlay_of_the_working_directory_hides_none_of_medsegs_own(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    for file in ("poly", "poly.json", "configs/poly.json"):
        (tmp_path / file).write_text(json.dumps({"lr": f"$open({str(tmp_path / 'canary')!r}, 'w') and 1"}))
    root = repository / "bundles" / "unet2d"
    Bundle(root).resolve("train", {}, ["poly"]).get_parsed_content("lr")
    assert not (tmp_path / "canary").exists()


def test_addresses_of_a_bundle_from_elsewhere_are_dropped_with_a_line(foreign, tmp_path, monkeypatch, caplog):
    monitor = {"backend": "wandb", "entity": "stranger", "base_url": "https://example.org", "project": None}
    recipe = json.loads((foreign / "configs" / "train.json").read_text())["monitor"]
    change(foreign, "train", monitor={**recipe, **monitor}, backup="s3://stranger/bucket")
    (foreign / "monitor").mkdir(exist_ok=True)
    (foreign / "monitor" / "settings.json").write_text(json.dumps(monitor))
    started = {}

    class Workflow:
        def __init__(self, root, name, **options):
            started.update(options, nulls=json.loads(Path(options["config_file"][-1]).read_text(encoding="utf-8")))
            raise RuntimeError("far enough")

    monkeypatch.setattr("medseg.bundle.run.BundleWorkflow", Workflow)
    with caplog.at_level(logging.WARNING), pytest.raises(RuntimeError, match="far enough"):
        run_bundle(Bundle(foreign, trust=True), "training", overrides={"monitor#entity": "mine"})
    assert f"{foreign} came from elsewhere: its backup, monitor#backend, monitor#base_url do not count" in caplog.text
    assert started["monitor#backend"] == "$medseg.monitoring.default_backend()"
    assert started["monitor#entity"] == "mine"
    assert not (foreign / "monitor" / "settings.json").exists()
    assert started["nulls"] == {"backup": None, "monitor#base_url": None}


def test_weights_that_would_run_code_are_refused_even_if_trusted(foreign, phantom, tmp_path):
    torch.save(Evil(tmp_path / "canary"), foreign / "models" / "model.pt")
    for trust in ([], ["--trust"]):
        result = run("predict", foreign, phantom / "p0003" / "ct.nii.gz", "-o", tmp_path / "out", *trust)
        causes: list[BaseException | None] = [result.exception]
        while causes[-1] is not None:
            causes.append(causes[-1].__cause__)
        assert any(isinstance(error, WeightsError) for error in causes)
    assert not (tmp_path / "canary").exists()
    with pytest.raises(pickle.UnpicklingError):
        torch.load(foreign / "models" / "model.pt", weights_only=True)
