"""What configs would run: targets, expressions, arguments with rules, and configs laid over each other."""

import inspect
import pydoc

import pytest

from medseg.bundle.handlers import handler_class
from medseg.inspection.allowlist import EVERY_CALLABLE, argument_rules, canonical_name, positional_arguments
from medseg.inspection.configs import Part, is_config, judge_configs, strings
from medseg.inspection.merged_configs import MergedConfigs, UnreadableError, parse_config

FILE = "configs/train.json"


def codes(content, **more):
    return [(finding.code, finding.location) for finding in judge_configs({FILE: content, **more}).findings]


def test_every_target_and_every_expression_is_a_part():
    judgement = judge_configs(
        {FILE: {"a": {"_target_": "UNet", "x": "$1 + @b"}, "imports": ["$import torch"], "b": ["$f()"]}}
    )
    assert judgement.parts == [
        Part("target", "UNet", f"{FILE}, a#_target_", True),
        Part("expression", "$1 + @b", f"{FILE}, a#x", True),
        Part("expression", "$import torch", f"{FILE}, imports#0", True),
        Part("expression", "$f()", f"{FILE}, b#0", False, "it calls 'f', which is not known"),
    ]
    assert [(finding.code, finding.location) for finding in judgement.findings] == [
        ("expression-unknown", f"{FILE}, b#0")
    ]


def test_names_of_imports_hold_in_every_file():
    assert codes({"imports": ["$import glob as g"]}, other={"a": "$g.glob('x')"}) == []
    assert codes({}, other={"a": "$g.glob('x')"}) == [("expression-unknown", "other, a")]


def test_one_name_for_two_modules_is_refused():
    assert ("import-alias", "imports") in codes({"a": "$import glob as x"}, other={"b": "$import math as x"})


def test_a_component_with_rules_may_not_be_made_a_callable():
    component = {"_target_": "LoadImaged", "_mode_": "callable"}
    assert codes({"a": component}) == [("argument-unsafe", f"{FILE}, a#_mode_")]
    assert codes({"a": {"_target_": "Compose", "_mode_": "callable"}}) == []
    assert codes({"a": {"_target_": "Compose", "_mode_": "default"}}) == []


def test_a_checkpoint_loader_may_be_called_and_no_other_component():
    loader = {"_target_": "CheckpointLoader", "load_path": "models/model.pt", "load_dict": {}}
    assert codes({"a": loader, "b": "$@a(@c)", "c": 1}) == []
    assert codes({"a": loader, "b": "$@a(@c)", "c": 1}, other={"a#_target_": "Compose"})
    assert codes({"a": loader, "b": "$@a(@c)", "c": 1}, other={"a": "$len"})
    assert codes({"a": {**loader, "_mode_": "callable"}, "b": "$@a('x')"})
    assert codes({"a": {"_target_": "Compose"}, "b": "$@a('x')"}) == [("expression-unknown", f"{FILE}, b")]


def test_macros_within_the_config_are_allowed():
    assert codes({"a": {"_target_": "UNet"}, "b": "%a", "c": ["%b"]}) == []


def test_a_config_may_have_the_key_under_which_monai_keeps_the_metadata():
    assert codes({"_meta_": "$1 + 1"}) == []
    assert codes({"_meta_": "$open('x')"}) == [("expression-unknown", f"{FILE}, _meta_")]


def test_a_finding_is_reported_once():
    run = "$medseg.bundle.start_run('a', '.', 1, 2, 'n', backup=@backup)"
    findings = codes({"imports": ["$import medseg"], "backup": "s3://x", "run": run})
    assert findings == [("sends-elsewhere", f"{FILE}, run")]


def test_json_that_monai_would_run_is_recognized():
    assert is_config({"a": [{"_target_": "UNet"}]})
    assert is_config({"a": "$1"})
    assert not is_config({"a": "costs 5$", "b": [1, None]})
    assert list(strings({"a": ["b", {"c": 1}]})) == ["a", "b", "c"]


def problems(component, **keys):
    return [finding.message for finding in judge_configs({"a.json": {"x": component, **keys}}).findings]


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
def test_arguments_of_ordinary_bundles_are_allowed(component):
    assert problems(component, reader="NibabelReader") == []


def test_a_problem_names_callable_argument_and_choices():
    (message,) = problems({"_target_": "LoadImageD", "reader": "os.system"})
    assert message.startswith("monai.transforms.LoadImaged: reader: it must be one of ITKReader, NibabelReader")
    assert problems({"_target_": "SupervisedTrainer", "compile_kwargs": {"backend": "x"}}) == [
        "monai.engines.SupervisedTrainer: compile_kwargs: only dynamic, fullgraph, mode may be given"
    ]


def test_a_callable_with_rules_is_refused_in_an_expression():
    assert "may be named by _target_ alone" in problems("$monai.transforms.SaveImage('/etc')")[0]
    assert "only known when it runs" in problems("$medseg.bundle.start_run(**@a)", i="$import medseg", a={})[0]


@pytest.mark.parametrize("name", sorted(set(argument_rules()) - {EVERY_CALLABLE, "pathlib.Path"}))
def test_rules_are_for_listed_callables_and_arguments_they_take(name):
    assert canonical_name(name) == name
    target = pydoc.locate(name)
    assert target is not None
    parameters = inspect.signature(target).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for rule in argument_rules()[name]:
        argument, _, setting = rule.partition("#")
        assert argument in parameters or takes_any, rule
        assert not setting or setting in inspect.signature(handler_class(argument)).parameters, rule
    positional = list(positional_arguments().get(name, []))
    assert list(parameters)[: len(positional)] == positional


def test_positional_arguments_are_checked():
    messages = problems("$medseg.bundle.start_run(1, '/etc', 3, 4, 5)", i="$import medseg")
    assert "output_dir: it would write to '/etc'" in messages[0]


def test_a_path_has_a_value_for_each_file_that_sets_it():
    configs = MergedConfigs()
    configs.add("train.json", {"loss": {"_target_": "A", "x": 1}, "list": ["a"]})
    configs.add("overlay.json", {"loss#_target_": "B", "+list": ["b"], "new": {"y": "@#z"}})
    assert [entry.value for entry in configs.at("loss#_target_")] == ["A", "B"]
    assert [entry.location for entry in configs.at("loss#_target_")] == [
        "train.json, loss#_target_",
        "overlay.json, loss#_target_",
    ]
    assert [entry.value for entry in configs.at("list#+overlay.json.1.0")] == ["b"]
    assert [entry.value for entry in configs.at("new#y")] == ["@new::z"]
    assert configs.holds_relative("new")
    assert not configs.holds_relative("loss")


def test_entries_are_found_through_a_macro_or_a_reference():
    configs = MergedConfigs()
    configs.add("a.json", {"b": {"c": 1}, "d": "%b", "e": "@d", "f": "@f"})
    assert [entry.value for entry in configs.at("d#c")] == [1]
    assert [entry.value for entry in configs.at("e#c")] == [1]
    assert configs.at("f#c") == []  # a circle


def test_imports_are_found_with_all_that_is_above_them():
    configs = MergedConfigs()
    configs.add("a.json", {"imports": ["$import torch", "$import os.path as p"], "x": "$import glob"})
    assert configs.names["p"] == {"os.path"}
    assert configs.names["np"] == {"numpy"}
    assert configs.holds_import("imports")
    assert configs.holds_import("imports#0")
    assert configs.holds_import("")
    assert not configs.holds_import("import")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"[1]", "no JSON object"),
        (b"{", "no JSON in UTF-8"),
        (b"\xff\xfe{", "no JSON in UTF-8"),
        (b'{"a": {"b": 1, "b": 2}}', "'b' stands twice"),
        (b'{"a":' * 100_000, "too deep"),
    ],
)
def test_bytes_that_are_no_config_are_refused(data, reason):
    with pytest.raises(UnreadableError, match=reason):
        parse_config(data)


def test_a_deep_config_is_refused():
    content = {}
    for _ in range(100):
        content = {"a": content}
    with pytest.raises(UnreadableError, match="too deep"):
        MergedConfigs().add("a.json", content)
