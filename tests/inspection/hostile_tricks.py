"""Ways around a check that looks at names, found by trying: each got, or could have got, past an earlier one."""

from __future__ import annotations

import json
from typing import Any

IMPORTS = ["$import torch", "$import monai", "$import medseg", "$import os"]
LOADER = "$from monai.transforms import LoadImaged as str"
PATCH = {"image": "x.nii.gz", "image_meta_dict": {"filename_or_obj": "x", "patch_index": "/../../../x"}}
GIT = '[core]\n\trepositoryformatversion = 0\n\tfsmonitor = "touch CANARY"\n'


def collect(hostile: Any) -> dict[str, Any]:
    """All of them, made with what `hostile.py` has."""
    both, setting, text, train = hostile.both, hostile.setting, hostile.text, hostile.train
    RUNS_NOTHING = hostile.RUNS_NOTHING
    found: dict[str, Any] = {}
    # An import takes a name of Python's own, so that map(str, ...) calls what may be named by _target_ alone.
    found["import-as-a-builtin"] = (
        RUNS_NOTHING,
        both(train("imports", [*IMPORTS, LOADER]), train("evil", "$list(map(str, ['image'], ['os.system']))")),
    )
    found["import-as-the-references"] = RUNS_NOTHING, train("imports", [*IMPORTS, "$import os as __local_refs"])
    # os.replace(a, b) looks like str.replace(a, b) where os is a value.
    found["method-of-a-module"] = (
        RUNS_NOTHING,
        both(train("imports", IMPORTS), train("evil", "$@imports#3.replace('a', 'CANARY')")),
    )
    found["method-of-a-module-by-key"] = (
        RUNS_NOTHING,
        both(
            train("there", {"is": "$import os"}),
            train("evil", "$[one.replace('a', 'CANARY') for one in @there.values()]"),
        ),
    )
    # Path.replace of the class, with a text as its object, moves a file.
    found["method-of-a-class"] = (
        RUNS_NOTHING,
        both(train("i", "$import pathlib"), train("evil", "$pathlib.Path.replace('a', 'CANARY')")),
    )
    found["method-of-a-class-as-a-value"] = (
        RUNS_NOTHING,
        both(train("i", "$from pathlib import Path"), train("evil", "$[Path][0].replace('a', 'CANARY')")),
    )
    # A key that is a path: MONAI puts it elsewhere than where it stands.
    found["key-that-replaces-everything"] = (
        RUNS_NOTHING,
        setting("configs/quick.json", "", {"imports": ["$import os"]}),
    )
    found["key-that-is-a-path"] = (
        RUNS_NOTHING,
        text("configs/train.json", '{"a": {"b::_target_": "x"}}'),
    )
    found["key-with-a-plus"] = RUNS_NOTHING, text("configs/quick.json", '{"+loss": {"_target_": "os.system"}}')
    found["list-that-is-added"] = (
        RUNS_NOTHING,
        text("configs/quick.json", '{"+train#handlers": [{"_target_": "os.system", "command": "x"}]}'),
    )
    found["reader-of-a-macro"] = (
        RUNS_NOTHING,
        both(train("load", {"_target_": "LoadImaged", "reader": "%where"}), train("where", "os.system")),
    )
    found["argument-of-a-copy"] = (
        RUNS_NOTHING,
        text(
            "configs/quick.json", '{"copy": "%preprocess_transforms#0", "preprocess_transforms#0#reader": "os.system"}'
        ),
    )
    found["path-of-an-overlaid-part"] = (
        RUNS_NOTHING,
        text("configs/quick.json", '{"output_dir": "/home/x"}'),
    )
    found["run-that-is-none"] = (
        RUNS_NOTHING,
        text("configs/quick.json", '{"current_run": {"_target_": "ignite.engine.State", "folder": "/home/somebody"}}'),
    )
    found["saves-by-metadata"] = RUNS_NOTHING, train("dataset", {"_target_": "Dataset", "data": [PATCH]})
    found["saves-by-metadata-in-pieces"] = RUNS_NOTHING, train("evil", "${'patch' + '_index': '/../../x'}")
    found["saves-by-metadata-in-a-file"] = (
        RUNS_NOTHING,
        text("docs/datalist.json", json.dumps({"training": [PATCH]})),
    )
    found["saves-by-metadata-of-an-image"] = RUNS_NOTHING, text("docs/x.nrrd", "NRRD0004\npatch_index:=/../../x\n")
    found["expression-too-long"] = RUNS_NOTHING, train("evil", "$" + "1+" * 5000 + "1")
    found["macro-too-long"] = RUNS_NOTHING, train("evil", "%" + "x.json" * 5000)
    found["config-too-much"] = RUNS_NOTHING, train("evil", [0] * 30_000)
    # Names that become names of folders and files.
    found["name-of-the-bundle"] = RUNS_NOTHING, setting("configs/metadata.json", "name", "../../x")
    CHANNELS = "network_data_format#outputs#pred#channel_def"
    found["name-of-a-structure"] = "label-name", setting("configs/metadata.json", f"{CHANNELS}#1", "../../x")
    found["name-of-a-structure-in-its-map"] = "label-name", text("label_map.json", '{"0": "background", "1": "/etc/x"}')
    # What other programs read in the folder that they are started in.
    found["git-settings"] = RUNS_NOTHING, both(text(".git/HEAD", "ref: x"), text(".git/config", GIT))
    found["git-elsewhere"] = RUNS_NOTHING, both(text("docs/a/HEAD", "ref: x"), text("docs/a/config", GIT))
    found["git-by-a-file"] = RUNS_NOTHING, text(".git", "gitdir: docs/a")
    found["git-hook"] = RUNS_NOTHING, text(".git/hooks/post-checkout", "touch CANARY")
    found["wandb-settings"] = RUNS_NOTHING, text("wandb/settings", "[default]\nbase_url = https://example.org\n")
    found["entry-points"] = (
        "code-in-bundle",
        text("x-1.dist-info/entry_points.txt", "[a]\ninit = os:getcwd\n"),
    )
    found["yaml-beside-json"] = RUNS_NOTHING, text("configs/Train.YML", "a: 1")
    found["config-in-capitals"] = RUNS_NOTHING, text("Configs/x.JSON", '{"a": "$open(1)"}')
    # Numbers in a list that are written in another way, or stand behind those of another file.
    found["index-from-the-end"] = (
        RUNS_NOTHING,
        text("configs/quick.json", '{"truth#-1#reader": "x"}'),
    )
    found["index-with-a-zero"] = (
        RUNS_NOTHING,
        text("configs/quick.json", '{"truth#00#reader": "x"}'),
    )
    added = {"+places": ["x", "/home/x"], "save": {"_target_": "MetricsSaver", "save_dir": "@places#3"}}
    found["index-behind-the-end"] = (
        RUNS_NOTHING,
        both(
            train("places", ["a", "b"]),
            setting("configs/evaluate.json", "places", ["a", "b", "c", "d"]),
            text("configs/quick.json", json.dumps(added)),
        ),
    )
    found["runs-beside-another"] = RUNS_NOTHING, train("output_dir", "$medseg.bundle.runs_dir('/home/bundles/x')")
    found["bundle-of-another-name"] = RUNS_NOTHING, train("bundle_root", "$medseg.bundle.bundle_root('../../x')")
    start = "$medseg.bundle.start_run('/home/x', @output_dir, @data, @labels, @run_name)"
    found["run-of-another-bundle"] = RUNS_NOTHING, train("current_run", start)
    found["key-that-is-a-file"] = RUNS_NOTHING, setting("configs/evaluate.json", "key_metric", {"../../x": 1})
    found["key-that-is-a-file-in-an-expression"] = RUNS_NOTHING, train("evil", "${'../../x': 1}")
    network = {"_target_": "medseg.networks.SegFormer", "variant": {"_attn_implementation": "somebody/kernel"}}
    found["network-of-a-downloaded-kernel"] = RUNS_NOTHING, train("network_def", network)
    # Overlays that change what is in an argument.
    loader = {"_target_": "LoadImaged", "keys": "image"}
    found["reader-changed-in-its-list"] = (
        RUNS_NOTHING,
        both(train("ld", {**loader, "reader": ["ITKReader"]}), text("configs/o.json", '{"ld#reader#0": "os.system"}')),
    )
    found["reader-changed-in-its-component"] = (
        RUNS_NOTHING,
        both(
            train("ld", {**loader, "reader": {"_target_": "ITKReader"}}),
            text("configs/o.json", '{"ld#reader#_target_": "copy.deepcopy", "ld#reader#x": "os.system"}'),
        ),
    )
    formatter = {"_target_": "monai.transforms.Lambda", "func": "$lambda m, s: {'subject': '../../x'}"}
    found["names-made-by-an-overlay"] = (
        RUNS_NOTHING,
        both(
            train("save", {"_target_": "SaveImaged", "keys": "image", "output_name_formatter": {}}),
            text(
                "configs/o.json", json.dumps({f"save#output_name_formatter#{key}": formatter[key] for key in formatter})
            ),
        ),
    )
    # Settings that are only made when they are used.
    server = {"base_url": "https://example.org"}
    hidden = {"_target_": "copy.deepcopy", "x": server}
    found["settings-made-by-a-copy"] = RUNS_NOTHING, train("monitor", hidden)
    for name, settings in {
        "a-copy": {"_target_": "copy.deepcopy", "x": {"settings": server}},
        "an-expression": "${'settings': {'base_url': 'https://example.org'}}",
        "another-entry": "@made",
    }.items():
        handlers = {"_target_": "medseg.bundle.default_handlers", "run": "@current_run", "monitor": settings}
        found[f"handler-made-by-{name}"] = (
            RUNS_NOTHING,
            both(train("made", "$dict(settings=@monitor)"), train("evil", handlers)),
        )
    model = {
        "_target_": "medseg.bundle.default_handlers",
        "run": "@current_run",
        "checkpoints": {"model_path": "/etc/x"},
    }
    found["handler-that-writes-elsewhere"] = RUNS_NOTHING, train("evil", model)
    # Bytes taken for the address of an object.
    forged = "$np.ndarray((1,), dtype='O', buffer=b'A' * 64)[0]"
    found["object-by-its-address"] = RUNS_NOTHING, train("evil", forged)
    buffer = {"_target_": "numpy.ndarray", "shape": [1], "dtype": "O", "buffer": "$b'A' * 64"}
    found["object-by-its-address-as-a-target"] = RUNS_NOTHING, train("evil", buffer)
    # An object whose method is a lambda of the bundle's, called by a name that means something else of other objects.
    state = {"_target_": "ignite.engine.State", "strftime": "$lambda form: '/home/x'"}
    saver = {"_target_": "MetricsSaver", "save_dir": "$@state.strftime('eval')"}
    found["method-of-its-own"] = RUNS_NOTHING, both(train("state", state), train("saver", saver))
    return found
