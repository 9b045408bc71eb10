"""A config with one wrong key is one error of ours, or works; it never ends in an error of MONAI, torch or Python."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.networks.nets import BasicUNet, UNet

from medseg.bundle import Bundle, Predictor
from medseg.config.paths import at, walk
from medseg.config.references import is_component
from medseg.errors import MedsegError
from medseg.grid import Grid
from medseg.runs.origin import remember_bundle
from medseg.search_path import bundles

DATA = Path(os.environ.get("MEDSEG_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
SCAN = np.random.default_rng(0).integers(-900, 900, (20, 18, 3)).astype(np.int16)
GRID = Grid(SCAN.shape, np.diag([3.0, 3.0, 5.0, 1.0]))
WRONG_KINDS = ("abc", [1, 2], None, {"a": 1}, -1)


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory):
    """unet2d for two structures with a tiny network and weights that were never trained."""
    root = tmp_path_factory.mktemp("broken") / "small"
    shutil.copytree(bundles()["unet2d"], root)
    config = json.loads((root / "configs/inference.json").read_text())
    config |= {"structures": ["liver", "spleen"], "patch_size": [32, 32], "spacing": [-1, -1, -1], "device": "cpu"}
    config["network_def"]["features"] = [4, 4, 4, 4, 4, 4]
    remember_bundle(root)
    (root / "configs/inference.json").write_text(json.dumps(config))
    network = Bundle.open(root).resolve("inference").get_parsed_content("network_def")
    torch.save(network.state_dict(), root / "models/model.pt")
    return root


def at_parent(config, path):
    parent, _, leaf = path.rpartition("#")
    holder = at(config, parent)
    return holder, int(leaf) if isinstance(holder, list) else leaf


def mutations(config):
    """Yield a name and a changed copy of the config, for each way of breaking one of its entries."""

    def changed(path, value=None, remove=False, rename=None):
        copy = json.loads(json.dumps(config))
        holder, leaf = at_parent(copy, path)
        if rename is not None:
            holder[rename] = holder.pop(leaf)
        elif remove:
            del holder[leaf]
        else:
            holder[leaf] = value
        return copy

    for key in config:
        yield f"without {key}", changed(key, remove=True)
    for path, value in walk(config):
        leaf = path.rpartition("#")[2]
        if is_component(value):
            yield f"{path}: target", changed(f"{path}#_target_", f"{value['_target_']}x")
            for argument in [name for name in value if name != "_target_"][:2]:
                yield f"{path}#{argument}: misspelt", changed(f"{path}#{argument}", rename=f"{argument}x")
                yield f"{path}#{argument}: left out", changed(f"{path}#{argument}", remove=True)
        elif isinstance(value, str) and value.startswith("@"):
            yield f"{path}: reference", changed(path, f"{value}x")
        elif isinstance(value, str) and value.startswith("$"):
            yield f"{path}: name", changed(path, f"{value}.nothing")
            yield f"{path}: syntax", changed(path, "$(")
        elif leaf != "_target_" and not path.startswith(("handler", "evaluator", "data")):
            for wrong in WRONG_KINDS:
                yield f"{path}: {wrong}", changed(path, wrong)


@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.long)])
def test_every_broken_entry_of_an_inference_config_is_one_error_or_none(small_bundle, monkeypatch, step):
    """Without inspection, which would refuse some of them before they are resolved."""
    monkeypatch.setattr("medseg.bundle.bundle.is_own", lambda *_: True)
    file = small_bundle / "configs" / "inference.json"
    config = json.loads(file.read_text())
    problems, count, refused = [], 0, 0
    for name, broken in list(mutations(config))[::step]:
        file.write_text(json.dumps(broken))
        count += 1
        try:
            predictor = Predictor(Bundle.open(small_bundle))
            predictor.segment(predictor.load_array(SCAN, GRID))
        except MedsegError as error:
            refused += 1
            if len(str(error)) > 500 or "\n" in str(error) or ":" not in str(error):
                problems.append(f"{name}: long: {error}")
        except Exception as error:
            problems.append(f"{name}: {type(error).__name__}: {error}")
    file.write_text(json.dumps(config))
    assert not problems, "\n".join(problems)
    assert count >= 100
    assert refused > 70


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "inferer#overlap",
            "@overlp",
            "inference.json: inferer: it refers to @overlp, and the config has no such key.",
        ),
        ("spacing", [1.5, 1.5], "spacing: use a list of 3 numbers from 0.01 to 100 or -1 (got [1.5, 1.5])."),
        ("imports", [], "inference.json: device: nothing is called 'medseg' ($medseg.training.select_device('auto'))."),
        ("inferer#roi_siz", 3, "inference.json: inferer#roi_siz: medseg.inference.StreamingInferer takes no argument"),
        ("network_def#_target_", "BasicUNett", "inference.json: network_def#_target_: there is no class or function"),
        ("network", "$3", "inference.json: network: it must give a Module (got int 3)."),
        ("labels", ["liver"], "inference.json: labels: it must give a LabelMap (got list ['liver'])."),
        ("preprocessing", "@preprocesing", "inference.json: preprocessing: it refers to @preprocesing, and the config"),
        ("hu_curve", [[0, 0], [0, 1]], "inference.json: preprocess_transforms#4: HU must rise"),
        ("inferer#flips", [[9]], "inference.json: inferer#flips: must name axes"),
        ("device", "$torch.nowhere", "inference.json: device: this failed: AttributeError: module 'torch' has no"),
    ],
)
def test_the_key_is_named(small_bundle, monkeypatch, path, value, message):
    monkeypatch.setattr("medseg.bundle.bundle.is_own", lambda *_: True)
    file = small_bundle / "configs" / "inference.json"
    content = file.read_text()
    config = json.loads(content)
    holder, leaf = at_parent(config, path)
    holder[leaf] = value
    config["device"] = value if path == "device" else "$medseg.training.select_device('auto')"
    file.write_text(json.dumps(config))
    try:
        with pytest.raises(MedsegError) as raised:
            predictor = Predictor(Bundle.open(small_bundle))
            predictor.segment(predictor.load_array(SCAN, GRID))
    finally:
        file.write_text(content)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("key", ["ckpt_path", "labels", "network", "inferer", "preprocessing", "postprocessing"])
def test_a_key_that_is_missing_is_named(small_bundle, monkeypatch, key):
    monkeypatch.setattr("medseg.bundle.bundle.is_own", lambda *_: True)
    file = small_bundle / "configs" / "inference.json"
    content = file.read_text()
    config = json.loads(content)
    del config[key]
    file.write_text(json.dumps(config))
    try:
        with pytest.raises(
            MedsegError, match=rf"^bundle '.*': its inference\.json has no key '{key}', which medseg needs"
        ):
            Predictor(Bundle.open(small_bundle))
    finally:
        file.write_text(content)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("j055", "inference.json: network: it refers to @cice, and the config has no such key."),
        ("j069", "bundle 'unet2d': its inference.json has no key 'ckpt_path', which medseg needs for this."),
        ("j082", "inference.json: network_def: UNet failed with these arguments: TypeError: "),
        ("j104", "inference.json: inferer: it refers to @sw_batch_size, and the config has no such key."),
        ("j121", "inference.json: device: nothing is called 'medseg' ($medseg.training.select_device('auto')). Add"),
        ("misspelt_inferer_key", "inference.json: inferer#painting_order: this failed: AttributeError: 'LabelMap'"),
    ],
)
def test_configs_that_once_ended_in_a_traceback(tmp_path, name, message):
    source = DATA / "found" / "configs" / name
    if not source.is_dir():
        pytest.skip("the folder MEDSEG_TEST_DATA is not there")
    shutil.copytree(source, tmp_path / "b" / "configs")
    network = json.loads((source / "inference.json").read_text()).get("network_def", {})
    arguments = {key: value for key, value in network.items() if key not in ("_target_", "in_channels", "out_channels")}
    kind = UNet if "channels" in arguments else BasicUNet
    (tmp_path / "b" / "models").mkdir()
    torch.save(kind(**arguments, in_channels=1, out_channels=25).state_dict(), tmp_path / "b/models/model.pt")
    with pytest.raises(MedsegError) as raised:
        predictor = Predictor(Bundle.open(tmp_path / "b", trust=True))
        predictor.segment(predictor.load_array(SCAN, GRID))
    assert str(raised.value).startswith(message)
