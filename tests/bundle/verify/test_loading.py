"""Inference loads the weights that are there; where there are none, the files' rule says so."""

from __future__ import annotations

from medseg.bundle.verify import loading
from tests.bundle.verify.broken import change


def test_a_whole_bundle_loads_them(found):
    assert found(loading) == []


def test_a_recipe_has_none_to_load(found):
    gone = [lambda root: (root / "models/model.pt").unlink(),
            lambda root: change(root, "inference", network="$@network_def.to(@device)")]  # fmt: skip
    assert found(loading, *gone) == []


def test_both_configs_are_looked_at(found):
    faults = [lambda root, name=name: change(root, name, network="$@network_def") for name in ("evaluate", "inference")]
    places = ["configs/evaluate.json", "configs/inference.json"]
    assert found(loading, *faults) == [("weights-not-loaded", location) for location in places]


def test_a_checkpoint_loader_will_do(found):
    loader = {"_target_": "CheckpointLoader", "load_path": "@ckpt_path", "load_dict": {"model": "@network"}}
    changes = {"network": "$@network_def", "checkpointloader": loader}
    assert found(loading, lambda root: change(root, "inference", **changes)) == []


def test_weights_that_are_called_otherwise(found):
    renamed = [lambda root: (root / "models/model.pt").rename(root / "models/model.safetensors")]
    places = [f"configs/{name}.json, ckpt_path" for name in ("evaluate", "inference")]
    assert found(loading, *renamed) == [("weights-missing", location) for location in places]
