"""Callables that are harmless only with some arguments."""

import inspect as python_inspect
import pydoc

import pytest

from medseg.inspection.configs import judge
from medseg.inspection.known import known
from medseg.inspection.rules import POSITIONAL, RULES


def faults(component, **more):
    return [one.message for one in judge({"a.json": {"x": component, **more}}).findings]


@pytest.mark.parametrize(
    "component",
    [
        {"_target_": "LoadImaged", "keys": "image", "reader": "NibabelReader"},
        {"_target_": "LoadImaged", "keys": "image", "reader": ["PILReader", {"_target_": "ITKReader"}]},
        {"_target_": "LoadImaged", "keys": "image", "reader": "$monai.data.ITKReader"},
        {"_target_": "LoadImaged", "keys": "image", "reader": "@reader"},
        {
            "_target_": "SaveImaged",
            "keys": "pred",
            "output_dir": "eval",
            "output_postfix": "seg",
            "output_ext": ".nii.gz",
        },
        {"_target_": "CheckpointSaver", "save_dir": "models", "save_dict": {}, "key_metric_filename": "model.pt"},
        {"_target_": "MetricsSaver", "save_dir": "eval", "metrics": ["val_mean_dice"], "summary_ops": "*"},
        {"_target_": "SupervisedTrainer", "compile": True, "compile_kwargs": {"dynamic": False, "mode": "default"}},
        {"_target_": "TensorBoardStatsHandler", "log_dir": "eval"},
        {"_target_": "HoVerNet", "pretrained_url": None},
    ],
)
def test_what_bundles_say_is_allowed(component):
    assert faults(component, reader="NibabelReader") == []


def test_the_fault_names_callable_argument_and_what_may_be():
    (said,) = faults({"_target_": "LoadImageD", "reader": "os.system"})
    assert said.startswith("monai.transforms.LoadImaged: reader: must be one of ITKReader, NibabelReader")
    assert faults({"_target_": "SupervisedTrainer", "compile_kwargs": {"backend": "x"}}) == [
        "monai.engines.SupervisedTrainer: compile_kwargs: dynamic, fullgraph, mode may be given"
    ]


def test_a_ruled_callable_is_refused_in_an_expression():
    assert "may be named by _target_ alone" in faults("$monai.transforms.SaveImage('/etc')")[0]
    assert "only known when it runs" in faults("$medseg.bundle.start_run(**@a)", i="$import medseg", a={})[0]


@pytest.mark.parametrize("name", [name for name in RULES if name != "pathlib.Path"])
def test_rules_are_for_known_callables_and_arguments_that_they_take(name):
    assert known(name) == name
    found = pydoc.locate(name)
    assert found is not None
    parameters = python_inspect.signature(found).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    for argument in RULES[name]:
        assert argument in parameters or takes_any, argument
    if name in POSITIONAL:
        assert list(parameters)[: len(POSITIONAL[name])] == list(POSITIONAL[name])


def test_a_call_by_position_is_read_as_the_callable_reads_it():
    said = faults("$medseg.bundle.start_run(1, '/etc', 3, 4, 5)", i="$import medseg")
    assert "output_dir: it would write to '/etc'" in said[0]
