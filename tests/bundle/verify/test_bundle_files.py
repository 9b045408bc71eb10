"""Files as they are, overlays merged with what they change, values without the data."""

from __future__ import annotations

import json

import pytest

from medseg.bundle.verify.bundle_files import BundleFiles, UnknownValueError, root_cause
from tests.bundle.verify.broken import change, overlay


def test_evaluate_json_as_overlay_is_merged_on_train(plain):
    (plain / "configs" / "evaluate.json").write_text(json.dumps({"validate#handlers": [], "run": []}))
    bundle = BundleFiles(plain)
    assert bundle.configs["evaluate"]["validate"]["handlers"] == []
    assert bundle.configs["evaluate"]["network_def"] == bundle.configs["train"]["network_def"]
    assert bundle.configs["train"]["validate"]["handlers"]


def test_an_overlay_is_recognized_by_name_or_keys(plain):
    overlay("multi_gpu_train", device="cuda")(plain)
    overlay("fast", preprocessing__transforms=[])(plain)
    overlay("nowhere_inference", **{"x": 1})(plain)
    assert BundleFiles(plain).overlays == {
        "multi_gpu_train": ("train",), "fast": ("evaluate",), "nowhere_inference": ("inference",)
    }  # fmt: skip


def test_values_are_those_of_monai_with_the_bundle_root(plain):
    bundle = BundleFiles(plain)
    assert bundle.value("train", "network_def#out_channels") == 4
    assert bundle.value("inference", "output_dir") == f"{plain.resolve()}/eval"
    assert bundle.value("train", "deterministic#3#pixdim") == [1.5, 1.5]


def test_expressions_that_open_the_data_are_not_evaluated(plain):
    change(plain, "train", many="$len(@train#dataset)", labels="$medseg.LabelMap(['a'] * @many)")
    with pytest.raises(UnknownValueError, match="depends on the dataset") as caught:
        BundleFiles(plain).value("train", "labels")
    assert caught.value.needs_data


def test_a_failing_expression_gives_the_root_cause(plain):
    change(plain, "train", spacing="$1 / 0")
    with pytest.raises(UnknownValueError, match="ZeroDivisionError: division by zero") as caught:
        BundleFiles(plain).value("train", "spacing")
    assert not caught.value.needs_data


def test_the_network_of_inference_is_built_first_and_without_downloads(plain):
    assert list(BundleFiles(plain).networks) == ["inference"]
    for config in ("inference", "evaluate"):
        change(plain, config, labels="$medseg.data.discover(@dataset_dir)")
    assert list(BundleFiles(plain).networks) == ["inference", "evaluate", "train"]
    assert BundleFiles(plain).network is not None
    change(plain, "train", network_def__pretrained="nvidia/mit-b0")
    assert BundleFiles(plain).network is None


def test_a_recipe_is_not_a_run(plain):
    assert not BundleFiles(plain).is_recipe
    (plain / "label_map.json").unlink()
    assert BundleFiles(plain).is_recipe
    (plain / "run.json").write_text("{}")
    assert not BundleFiles(plain).is_recipe
    assert BundleFiles(plain).is_run


def test_the_cause_is_one_line():
    outer, inner = RuntimeError("outer"), ValueError("\n  first\nsecond")
    outer.__cause__ = inner
    assert root_cause(outer) == "ValueError: first"
