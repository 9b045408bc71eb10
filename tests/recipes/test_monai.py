"""What MONAI's own tools, and MONAI Label, do with our bundles: check, export, open and run them."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import monai.bundle
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigItem, ConfigParser
from monai.data import load_net_with_metadata
from monai.transforms import LoadImaged
from PIL import Image

from medseg.bundle import Bundle, Predictor
from medseg.bundle.verify import SCHEMA

BUNDLES = sorted(path.parents[1] for path in Path(__file__).parents[2].glob("bundles/*/configs/metadata.json"))
CONFIGS = ("train", "evaluate", "inference")
TRACED_ONLY = {"segformer2d"}  # bundles whose network torch.jit.script cannot take

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("root", BUNDLES, ids=lambda root: root.name)]


def content(root: Path, name: str) -> dict:
    return json.loads((root / "configs" / f"{name}.json").read_text())


def config(root: Path, name: str) -> str:
    return str(root / "configs" / f"{name}.json")


@pytest.fixture
def shared(root, bundle_run, tmp_path) -> Path:
    """A trained bundle as somebody else has it: what is needed to use it and nothing else."""
    folder = tmp_path / "elsewhere" / root.name
    for name in ("configs", "docs", "models"):
        shutil.copytree(bundle_run / name, folder / name)
    for name in ("LICENSE", "label_map.json"):
        shutil.copyfile(bundle_run / name, folder / name)
    return folder


@pytest.fixture
def expected(root, shared, unseen, tmp_path) -> dict[Path, np.ndarray]:
    """The masks that medseg makes of what the bundle has not seen, by the scan or the picture."""
    if not content(root, "train")["data"].get("slices"):
        scan = unseen / "ct.nii.gz"
        prediction = Predictor(Bundle(shared), {"device": "cpu"}).predict_case(scan)
        assert len(np.unique(prediction.label)) > 2
        return {scan: prediction.label}
    from medseg.bundle import BatchPredictor, SliceWriter
    from medseg.data import slice_items

    predictor = Predictor(Bundle(shared), {"device": "cpu"}, slices=True)
    outcomes = list(BatchPredictor(predictor, SliceWriter.of(predictor, tmp_path / "ours", slice_items(unseen))).run())
    return {Path(one.item["image"]): read(one.result.mask) for one in outcomes}


def read(mask: Path) -> np.ndarray:
    return np.asarray(nib.load(mask).dataobj if mask.name.endswith(".nii.gz") else Image.open(mask))


def agrees(folder: Path, expected: dict[Path, np.ndarray]) -> bool:
    """Whether the masks in a folder are those, in the same order of names."""
    masks = sorted(folder.glob("*.nii.gz")) or sorted(folder.glob("masks/*.png"))
    pairs = zip(masks, sorted(expected), strict=True)
    return all(np.array_equal(read(mask), expected[source]) and lies(mask, source) for mask, source in pairs)


def lies(mask: Path, source: Path) -> bool:
    """Whether a volume's mask lies where the scan lies."""
    return mask.suffix == ".png" or np.array_equal(nib.load(mask).affine, nib.load(source).affine)


def opened(bundle: Path, **how: object) -> object:
    return monai.bundle.load(bundle.name, bundle_dir=bundle.parent, device="cpu", source="github", **how)


# verify_metadata, verify_net_in_out, ckpt_export


def test_the_metadata_keeps_to_the_schema(root, bundle_run, tmp_path):
    schema = SCHEMA
    known = {"hash_val": hashlib.sha256(Path(schema).read_bytes()).hexdigest(), "hash_type": "sha256"}
    for folder in (root, bundle_run):
        # MONAI downloads nothing where the file is there already
        monai.bundle.verify_metadata(meta_file=config(folder, "metadata"), filepath=schema, **known)
    broken = tmp_path / "metadata.json"
    broken.write_text(json.dumps({**content(root, "metadata"), "network_data_format": {"inputs": {}}}))
    with pytest.raises(ValueError, match="Failed validating"):
        monai.bundle.verify_metadata(meta_file=str(broken), filepath=schema, **known)


def test_the_network_takes_and_gives_what_the_metadata_say(root, bundle_run):
    # A recipe whose classes come from the data has those of the phantom.
    for folder, more in ((root, {"dataset_dir": "$None"}), (bundle_run, {"bundle_root": str(bundle_run)})):
        for name in CONFIGS:
            files = {"meta_file": config(folder, "metadata"), "config_file": config(folder, name)}
            for n in (1, 2):
                monai.bundle.verify_net_in_out("network_def", **files, device="cpu", n=n, **more)
    monai.bundle.verify_net_in_out("network", **files, device="cpu", bundle_root=str(bundle_run))
    with pytest.raises(ValueError, match="output channel number"):
        monai.bundle.verify_net_in_out(
            "network_def", **files, device="cpu", **more, **{"_meta_#network_data_format#outputs#pred#num_channels": 77}
        )


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of sizes, which are tried below
@pytest.mark.parametrize("use_trace", [True, False], ids=["traced", "scripted"])
def test_the_weights_are_exported_with_configs_and_metadata(root, shared, use_trace):
    if not use_trace and root.name in TRACED_ONLY:
        pytest.skip("this network cannot be scripted")
    monai.bundle.ckpt_export(config_file=config(shared, "inference"), bundle_root=str(shared), use_trace=use_trace)
    parser = Bundle(shared).resolve("inference", {"device": "cpu"})
    network = parser.get_parsed_content("network").eval()
    exported, metadata, more = load_net_with_metadata(
        str(shared / "models" / "model.ts"), more_extra_files=("inference.json",)
    )
    assert metadata["network_data_format"] == content(shared, "metadata")["network_data_format"]
    assert json.loads(more["inference.json"]) == content(shared, "inference")
    channels = parser.get_parsed_content("in_channels")
    for shape in ((1, channels, 32, 32), (2, channels, 64, 96)):  # that of the trace, and another
        image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(exported.eval()(image), network(image), rtol=1e-4, atol=1e-5)
    loaded = monai.bundle.load(
        shared.name, bundle_dir=shared.parent, load_ts_module=True, device="cpu", source="github"
    )
    assert loaded[1]["version"] == metadata["version"]


# load, create_workflow, python -m monai.bundle run


def test_it_is_loaded_with_its_weights(shared):
    weights = torch.load(shared / "models" / "model.pt", weights_only=True)
    for kind in ("inference", "train"):
        state = opened(shared, workflow_type=kind).state_dict()
        assert list(state) == list(weights)
        assert all(torch.equal(state[name], weights[name]) for name in weights)
    assert {path.name for path in shared.iterdir()} == {"configs", "docs", "models", "LICENSE", "label_map.json"}


def test_a_workflow_made_by_hand_writes_the_same_voxels(shared, unseen, expected, tmp_path):
    workflow = monai.bundle.create_workflow(
        config_file=config(shared, "inference"),
        workflow_type="inference",
        dataset_dir=str(unseen),
        output_dir=str(tmp_path / "masks"),
        device="cpu",
    )
    assert workflow.check_properties() == []
    workflow.run()
    workflow.finalize()
    assert agrees(tmp_path / "masks", expected)


def test_the_plain_monai_command_writes_the_same_voxels(shared, unseen, expected):
    """As somebody does who got the folder: the data where inference.json says, the command of the docs."""
    given = shared / content(shared, "inference")["dataset_dir"].split("'/")[1].strip("'")
    shutil.copytree(unseen, given, ignore=shutil.ignore_patterns("segmentations"))
    command = ["-m", "monai.bundle", "run", "--config_file", "configs/inference.json", "--device", "cpu"]
    done = subprocess.run([sys.executable, *command], cwd=shared, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert agrees(shared / "eval", expected)


# MONAI Label: monailabel/tasks/infer/bundle.py, basic_infer.py and tasks/train/bundle.py of 0.8.5

INFER = ("bundle_root", "device", "network_def", "preprocessing", "inferer", "postprocessing")
TRAIN = ("bundle_root", "device", "network", "network_def", "train#trainer#max_epochs", "train#dataset#data",
         "train#handlers", "validate#dataset#data", "run_name", "run")  # fmt: skip


def test_monai_label_finds_every_key_that_it_asks_for(root, bundle_run):
    for folder in (root, bundle_run):
        for name, keys in (("inference", INFER), ("train", TRAIN)):
            parser = ConfigParser()
            parser.read_config(config(folder, name))
            assert [key for key in keys if key not in parser] == [], (folder, name)
        metadata = content(folder, "metadata")
        assert metadata["version"]
        assert metadata["description"]
        tensors = metadata["network_data_format"]
        # It takes the first input and output under whatever name, and its own item's entries by these two.
        assert [next(iter(tensors["inputs"])), next(iter(tensors["outputs"]))] == ["image", "pred"]
        assert len(tensors["inputs"]["image"]["spatial_shape"]) in (2, 3)
        named = tensors["outputs"]["pred"]["channel_def"]
        assert len({name.lower() for name in named.values()}) == len(named)  # it writes all names small
    assert named == json.loads((bundle_run / "label_map.json").read_text())  # values of the mask, by name


def test_what_monai_label_does_to_infer_gives_the_same_voxels(shared, expected):
    """Its steps, one after the other, with its own entries in the item."""
    source, label = next(iter(expected.items()))
    parser = ConfigParser()
    parser.read_config(config(shared, "inference"))
    parser.config.update({"bundle_root": str(shared), "use_click": False})
    network = parser.get_parsed_content("network_def", instantiate=True)
    weights = torch.load(shared / "models" / "model.pt", weights_only=True)
    network.load_state_dict(weights.get("model", weights), strict=True)
    parser.config.update({"device": "cpu"})
    parser.ref_resolver.items["device"] = ConfigItem(config="cpu", id="device")

    item = {"image": str(source), "image_path": str(source), "device": "cpu", "model": shared.name, "latencies": {}}
    for transform in parser.get_parsed_content("preprocessing", instantiate=True).transforms:
        if isinstance(transform, LoadImaged):
            transform._loader.image_only = False
        item = transform(item)
    assert item["image_path"] == str(source)
    inferer = parser.get_parsed_content("inferer", instantiate=True)
    with torch.no_grad():
        item["pred"] = inferer(item["image"][None], network.eval())[0]
    for transform in parser.get_parsed_content("postprocessing", instantiate=True).transforms:
        item = transform(item)

    # Its last step resizes to this shape and writes with this affine; turned or resampled voxels would land elsewhere.
    assert tuple(item["image"].meta["spatial_shape"]) == tuple(item["pred"].shape[1:])
    assert source.suffix == ".png" or np.allclose(item["image"].meta["original_affine"], nib.load(source).affine)
    assert np.array_equal(item["pred"][0].numpy(), label)
