"""Ways that beat a list of what may run, and ways tried against a builder that runs nothing."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

HOME = "/home/somebody"
IDENTITY = {"_target_": "Identityd", "keys": "image"}


def collect(hostile: Any) -> dict[str, Any]:
    """All of them, made with what `hostile.py` has."""
    both, setting, text, train, inference = (
        hostile.both, hostile.setting, hostile.text, hostile.train, hostile.inference,
    )  # fmt: skip
    nothing = hostile.RUNS_NOTHING
    found: dict[str, Any] = {}

    def predicts(name: str, key: str, value: object) -> None:
        found[name] = nothing, setting("configs/inference.json", key, value)

    def loads(name: str, value: object) -> None:
        found[name] = nothing, inference(value)

    def saves(**options: object) -> dict[str, Any]:
        return {"_target_": "Compose", "transforms": [{"_target_": "SaveImaged", "keys": "pred", **options}]}

    # What beat the list. A log file that is called after the time zone, which is empty.
    log = {"_target_": "LogfileHandler", "output_dir": "$time.strftime('%Z/CANARY')", "filename": "log"}
    found["a-path-of-an-empty-time-zone"] = (
        nothing,
        both(setting("configs/inference.json", "handlers", [log]), setting("configs/train.json", "evil", log)),
    )
    # Metadata of an image that a loader of the list reads from a file of the bundle.
    item = {"image": "x.nii.gz", "image_meta_dict": {"filename_or_obj": "CANARY/..", "patch\\u005findex": "/../x"}}
    found["an-escaped-key-in-a-datalist"] = (
        nothing,
        both(
            text("docs/list.json", json.dumps({"testing": [item]})),
            setting("configs/inference.json", "dataset", {"_target_": "Dataset", "data": [item]}),
            setting("configs/inference.json", "postprocessing", saves(output_dir="CANARY")),
        ),
    )
    predicts("a-name-that-ends-above", "dataset", {"_target_": "Dataset", "data": [item]})
    predicts("a-saver-of-its-own", "postprocessing", saves(output_dir="CANARY"))
    predicts("a-saver-beside-the-bundle", "postprocessing", saves(output_dir="$@bundle_root + '-beside'"))
    loads("a-saver-in-the-preprocessing", {"_target_": "SaveImaged", "keys": "image", "output_dir": "CANARY"})

    def evil(file: str) -> Any:
        return hostile.weights(file, lambda path, canary: path.write_bytes(pickle.dumps(hostile.Evil(canary))))

    for name, file in {
        "a-cache-of-numba": "__pycache__/kernels.thin_accumulator-1.py311.nbi",
        "settings-of-numba": ".numba_config.yaml",
        "a-cache-of-matplotlib": "fontlist-v390.json",
    }.items():
        found[name] = "pickle-unsafe" if file.endswith("nbi") else nothing, evil(file)
    elsewhere = {"working_directory": "CANARY", "command": ["medseg", "train", "unet2d", "lr=$open('CANARY', 'w')"]}
    found["a-recorded-working-directory"] = nothing, text("run.json", json.dumps(elsewhere))
    filters = '[filter "x"]\n\tclean = touch CANARY\n\trequired = true\n'
    found["a-filter-of-git"] = (
        nothing,
        both(
            text(".git/HEAD", "ref: refs/heads/x"), text(".git/config", filters), text(".gitattributes", "* filter=x")
        ),
    )
    found["a-filter-of-git-by-its-common-folder"] = (
        nothing,
        both(text(".git/HEAD", "ref: x"), text(".git/commondir", "../docs"), text("docs/config", filters)),
    )
    found["an-entity-of-a-stranger"] = nothing, train("monitor", {"backend": "wandb", "entity": "stranger"})

    def doubling(root: Path, canary: Path) -> Path:
        content: dict[str, Any] = {f"a{number}": [f"%a{number + 1}"] * 2 for number in range(60)}
        content["a60"] = "x"
        path = root / "configs" / "inference.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **content, "preprocess_transforms": "%a0"}))
        return root

    found["macros-that-double"] = nothing, doubling

    def doubling_a_little(root: Path, canary: Path) -> Path:
        levels = {f"a{number}": [f"%a{number + 1}"] * 9 for number in range(12)}
        path = root / "configs" / "inference.json"
        path.write_text(
            json.dumps({**json.loads(path.read_text()), **levels, "a12": 1, "preprocess_transforms": "%a0"})
        )
        return root

    found["macros-that-grow"] = nothing, doubling_a_little

    # What was tried against the builder. Components of other names.
    for name, target in {
        "of-another-module": "evil.Spacingd",
        "of-a-module-that-begins-alike": "monai.transformsx.Spacingd",
        "in-other-letters": "Spacing\u0501",
        "of-a-method": "monai.transforms.Spacingd.__init__",
        "of-a-module-behind-a-class": "monai.transforms.io.array.locate",
        "of-a-list": ["Spacingd"],
        "of-a-dictionary": {"_target_": "Spacingd"},
        "by-an-expression": "$'Spacing' + 'd'",
        "by-a-reference": "@name",
        "of-a-zoo-writer": "monai.data.NibabelWriter",
        "of-a-lambda": "Lambdad",
    }.items():
        loads(f"a-component-{name}", {"_target_": target, "keys": "image", "func": "$open('CANARY', 'w')"})
    # Arguments of components that are listed.
    compose = {"_target_": "Compose", "transforms": [{"_target_": "LoadImaged", "keys": "image"}]}
    for name, value in {
        "a-second-loader": {"_target_": "LoadImaged", "keys": "image"},
        "a-loader-within": compose,
        "a-reader-that-unpickles": {"_target_": "LoadImaged", "keys": "image", "allow_pickle": True},
        "a-reader-of-its-own": {"_target_": "LoadImaged", "keys": "image", "reader": "helper.Reader"},
        "a-call-in-an-argument": {"_target_": "Spacingd", "keys": "image", "pixdim": "$open('CANARY', 'w')"},
        "a-component-in-an-argument": {"_target_": "Spacingd", "keys": "image", "mode": {"_target_": "os.system"}},
        "a-listed-component-in-an-argument": {"_target_": "Spacingd", "keys": {"_target_": "Compose"}},
        "a-function-of-its-own": {"_target_": "Activationsd", "keys": "image", "other": "$lambda x: x"},
        "a-function-after-an-inverse": {"_target_": "Invertd", "keys": "image", "post_func": "$lambda x: x"},
        "a-requirement": {"_target_": "EnsureTyped", "keys": "image", "_requires_": ["$open('CANARY', 'w')"]},
        "a-switch": {"_target_": "EnsureTyped", "keys": "image", "_disabled_": "$open('CANARY', 'w')"},
        "a-mode": {"_target_": "EnsureTyped", "keys": "image", "_mode_": "debug"},
        "a-logger": {"_target_": "Compose", "transforms": [], "log_stats": "CANARY"},
    }.items():
        loads(name, value)
    net = "network_def"
    predicts("weights-from-elsewhere", net, {"_target_": "FlexibleUNet", "in_channels": 1, "out_channels": 3,
             "backbone": "efficientnet-b0", "pretrained": True})  # fmt: skip
    segformer = {"_target_": "medseg.networks.SegFormer", "in_channels": 3, "out_channels": 3, "variant": "b0"}
    predicts("weights-from-a-folder", net, {**segformer, "pretrained": "/home/somebody/model"})
    predicts("a-kernel-from-the-hub", net, {**segformer, "variant": {"_attn_implementation": "somebody/kernel"}})
    # Paths.
    for name, path in {
        "absolute": "/etc/passwd", "above": "$@bundle_root + '/../elsewhere.pt'", "at-home": "~/model.pt",
        "of-a-server": "http://example.org/model.pt", "with-a-null": "models/\0.pt", "of-a-list": ["/etc/passwd"],
    }.items():  # fmt: skip
        predicts(f"weights-at-a-path-{name}", "ckpt_path", path)
    found["a-root-of-its-own"] = (
        nothing,
        both(
            setting("configs/inference.json", "bundle_root", "/"),
            setting("configs/inference.json", "output_dir", "CANARY"),
        ),
    )
    found["a-label-map-that-climbs"] = (
        "label-name",
        both(
            setting("configs/inference.json", "labels", None),
            text("label_map.json", '{"0": "background", "1": "../../CANARY", "2": "x"}'),
        ),
    )
    found["a-device-that-is-a-path"] = nothing, setting("configs/inference.json", "device", "CANARY")
    # Expressions that are large, deep or clever.
    for name, expression in {
        "a-power-of-powers": "$10**10**10",
        "a-power-of-a-reference": "$@context + 9**9**9**9",
        "a-long-list": "$[0] * 10**9",
        "a-list-of-lists": "$[[0] * 9999] * 9999",
        "a-long-text": "$'a' * 10**9",
        "a-wide-format": "$'%1000000000d' % 1",
        "a-shift": "$1 << 10**9",
        "a-deep-expression": "$" + "(" * 1900 + "1" + ")" * 1900,
        "a-chain-of-signs": "$" + "-" * 3900 + "1",
        "a-long-number": "$" + "9" * 3900,
        "a-comprehension": "$[x for x in range(10**9)]",
        "a-lambda": "$(lambda: open('CANARY', 'w'))()",
        "a-walrus": "$(x := open('CANARY', 'w'))",
        "a-class-of-a-value": "$@labels.__class__.__init__.__globals__",
        "a-format": "$'{0.__class__}'.format(@labels)",
        "an-f-string": '$f\'{open("CANARY", "w")}\'',
        "a-reference-in-a-text": "$'@device'",
        "a-call-of-a-reference": "$@labels('CANARY')",
        "a-call-with-names": "$len(obj='x')",
        "a-star": "$len(*@spacing)",
        "a-slice-of-slices": "$@spacing[::0]",
        "an-import": "$import helper",
        "an-await": "$await open('CANARY', 'w')",
    }.items():
        predicts(f"expression-{name}", "out_channels", expression)
    for name, key in {"of-itself": "@out_channels", "of-a-part": "@out_channels#0", "of-everything": "@"}.items():
        predicts(f"reference-{name}", "out_channels", key)
    for name, macro in {
        "of-another-file": "%docs/other.json::x", "of-itself": "%out_channels", "of-a-system-file": "%/etc/x.json::a",
    }.items():  # fmt: skip
        predicts(f"macro-{name}", "out_channels", macro)

    def chain(root: Path, canary: Path) -> Path:
        path = root / "configs" / "inference.json"
        links = {f"a{number}": f"@a{number + 1}" for number in range(5000)}
        path.write_text(json.dumps({**json.loads(path.read_text()), **links, "out_channels": "@a0"}))
        return root

    found["a-chain-of-references"] = nothing, chain
    loads("a-long-row", ["x"] * 100_000)
    found["many-keys"] = nothing, setting("configs/inference.json", net, {f"k{number}": 1 for number in range(50_000)})
    # What stands beside.
    for name, file in {"a-module": "wandb.py", "a-package": "monai/__init__.py", "site": "sitecustomize.py"}.items():
        found[f"code-that-hides-{name}"] = "code-in-bundle", text(file, "open('CANARY', 'w')")
    found["an-evaluation-that-runs"] = nothing, setting("configs/evaluate.json", "data", "$open('CANARY', 'w')")
    found["metadata-that-runs"] = nothing, setting("configs/metadata.json", "name", "$open('CANARY', 'w')")
    deep = pickle.dumps([None] * 900_000, protocol=0)
    found["a-pickle-of-many-opcodes"] = "pickle-unreadable", text("docs/a.pkl", deep)
    return found
