"""Hostile bundles, each made from a clean one by one change; every payload would leave a canary file behind.

A way to make one is a function of the bundle's folder and the canary's path that gives what is to be inspected. `ALL`
holds them by name, each with the code of the finding that must name it, or with `RUNS_NOTHING`: what it changes is
refused or not looked at.
"""

from __future__ import annotations

import functools
import io
import json
import os
import pickle
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from monai.networks.nets import BasicUNet

Make = Callable[[Path, Path], Path]
RECIPE = Path(__file__).parents[2] / "bundles" / "unet2d"
ALL: dict[str, tuple[str, Make]] = {}
RUNS_NOTHING = "runs-nothing"
TINY = {"structures": ["liver", "spleen"], "patch_size": [32, 32], "spacing": [-1, -1, -1]}
FEATURES = [4, 4, 8, 8, 8, 4]


def clean(folder: Path) -> Path:
    """A small trained bundle that nothing is wrong with."""
    root = Path(shutil.copytree(RECIPE, folder))
    path = root / "configs" / "inference.json"
    content = json.loads(path.read_text())
    content["network_def"]["features"] = FEATURES
    path.write_text(json.dumps(content | TINY))
    (root / "label_map.json").write_text('{"0": "background", "1": "liver", "2": "spleen"}')
    (root / "models").mkdir(exist_ok=True)
    (root / "models" / "model.pt").write_bytes(_weights())
    return root


@functools.cache
def _weights() -> bytes:
    network = BasicUNet(spatial_dims=2, in_channels=1, out_channels=3, features=FEATURES)
    made = io.BytesIO()
    torch.save(network.state_dict(), made)
    return made.getvalue()


def add(name: str, code: str, make: Make) -> None:
    if name in ALL:
        raise ValueError(name)
    ALL[name] = code, make


def setting(file: str, key: str, value: object) -> Make:
    """Change one key of a config; `CANARY` in strings becomes the canary's path."""

    def make(root: Path, canary: Path) -> Path:
        path = root / file
        content = json.loads(path.read_text()) if path.is_file() else {}
        location = content
        *above, last = key.split("#")
        for part in above:
            location = location.setdefault(part, {})
        location[last] = json.loads(json.dumps(value).replace("CANARY", canary.as_posix()))
        path.write_text(json.dumps(content))
        return root

    return make


def train(key: str, value: object) -> Make:
    """Change one key of the training, and let the preprocessing of the inference hold the same."""
    return both(setting("configs/train.json", key, value), inference(value))


def inference(value: object) -> Make:
    """Let the preprocessing of the inference config hold something more."""

    def make(root: Path, canary: Path) -> Path:
        root = setting("configs/inference.json", "evil", value)(root, canary)
        path = root / "configs" / "inference.json"
        content = json.loads(path.read_text())
        content["preprocess_transforms"].append("@evil")
        path.write_text(json.dumps(content))
        return root

    return make


def text(file: str, content: str | bytes) -> Make:
    """Put a file into the bundle."""

    def make(root: Path, canary: Path) -> Path:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else content.replace("CANARY", canary.as_posix()).encode()
        path.write_bytes(data)
        return root

    return make


def both(*makes: Make) -> Make:
    def make(root: Path, canary: Path) -> Path:
        for one in makes:
            root = one(root, canary)
        return root

    return make


TOUCH = "touch CANARY"
EXPRESSIONS = {
    "import-function": f"$__import__('os').system('{TOUCH}')",
    "eval": f'$eval(\'__import__("os").system("{TOUCH}")\')',
    "exec": '$exec(\'open("CANARY", "w")\')',
    "open": "$open('CANARY', 'w')",
    "getattr-chain": "$getattr(getattr(torch, 'hub'), 'load')('CANARY', 'x', source='local')",
    "class-walk": f"$[c for c in ().__class__.__base__.__subclasses__() if c.__name__ == 'Popen'][0](['{TOUCH}'])",
    "lambda-call": f"$(lambda f: f('{TOUCH}'))(__import__('os').system)",
    "lambda-default": f"$lambda x=__import__('os').system('{TOUCH}'): x",
    "comprehension": f"$[x('{TOUCH}') for x in [__import__('os').system]]",
    "comprehension-shadows-a-module": "$[torch.run('CANARY') for torch in [monai.bundle]]",
    "f-string": f'$f\'{{__import__("os").system("{TOUCH}")}}\'',
    "f-string-width": f'$f\'{{1:{{__import__("os").system("{TOUCH}")}}}}\'',
    "format-attribute": "$'{0.__class__.__init__.__globals__}'.format(@labels)",
    "walrus": f"$(s := __import__('os')).system('{TOUCH}')",
    "subscript-call": f"$[__import__('os').system][0]('{TOUCH}')",
    "wide-letters": f'$\uff45val(\'__import__("os").system("{TOUCH}")\')',
    "globals": f"$globals()['__builtins__']['eval']('__import__(\"os\").system(\"{TOUCH}\")')",
    "two-statements": f"$import os; os.system('{TOUCH}')",
    "torch-load": "$torch.load(@bundle_root + '/models/evil.pt', weights_only=False)",
    "torch-hub": "$torch.hub.load('somebody/something', 'model', trust_repo=True)",
    "cpp-extension": "$torch.utils.cpp_extension.load('x', [@bundle_root + '/docs/x.cpp'])",
    "torch-save": "$torch.save({}, 'CANARY')",
    "numpy-load": "$np.load(@bundle_root + '/docs/a.npy', allow_pickle=True)",
    "numpy-save": "$np.save('CANARY', np.zeros(1))",
    "monai-run": "$monai.bundle.run(config_file=@bundle_root + '/docs/other.json')",
    "monai-parser": "$monai.bundle.ConfigParser(@monitor).get_parsed_content('x')",
    "monai-download": "$monai.apps.download_url('http://example.org/x', 'CANARY')",
    "module-within-a-module": "$monai.utils.module.import_module('helper')",
    "medseg-run-bundle": "$medseg.run_bundle(@bundle_root, 'training')",
    "medseg-writes": "$medseg.write_phantom('CANARY')",
    "module-as-a-value": "$torch",
    "module-by-reference": "$@imports#0",
    "module-out-of-a-list": "$[m for m in @imports]",
    "references-by-hand": "$__local_refs['imports']",
    "moves-a-file": "$@current_run.folder.replace('CANARY')",
    "moves-a-file-later": "$@current_run.folder.replace",
    "writes-a-file": "$@current_run.folder.write_text('CANARY')",
    "calls-a-component": "$list(map(@augment, ['os.system'], ['touch']))",
    "sorts-by-a-component": "$sorted(['os.system'], key=@augment)",
    "sets-an-attribute": "$setattr(torch, 'load', @labels)",
    "star-arguments": "$medseg.bundle.start_run(*['/tmp', '/tmp'])",
    "unreadable": "$(((",
    "quotes-broken-by-a-reference": "$'@seed' + __import__('os').name + '@seed'",
}
for name, expression in EXPRESSIONS.items():
    add(f"expression-{name}", RUNS_NOTHING, train("evil", expression))

add("expression-in-metadata", RUNS_NOTHING, setting("configs/metadata.json", "task", EXPRESSIONS["eval"]))
add("expression-in-requires", RUNS_NOTHING, train("loss#_requires_", [EXPRESSIONS["open"]]))
add(
    "expression-in-initialize",
    RUNS_NOTHING,
    setting("configs/inference.json", "initialize", [EXPRESSIONS["eval"]]),
)
add("expression-in-an-overlay", RUNS_NOTHING, text("configs/quick.json", "{\"lr\": \"$open('CANARY', 'w')\"}"))
add("expression-in-another-folder", RUNS_NOTHING, text("docs/other.json", "{\"a\": \"$open('CANARY', 'w')\"}"))

IMPORTS = [
    "os.system",
    "functools",
    "operator",
    "subprocess",
    "importlib",
    "monai.bundle.scripts",
    "builtins",
    "pickle",
]
for module in IMPORTS:
    add(f"import-{module}", RUNS_NOTHING, train("imports", ["$import torch", "$import medseg", f"$import {module}"]))
add("import-from", RUNS_NOTHING, train("evil", "$from os import system"))
add("import-relative", RUNS_NOTHING, train("evil", "$from . import helper"))
add("import-in-metadata", RUNS_NOTHING, setting("configs/metadata.json", "authors", "$import helper"))
add("import-copied-by-a-macro", RUNS_NOTHING, train("evil", "%imports"))
add("import-under-another-name", RUNS_NOTHING, train("imports", ["$import os as torch", "$import medseg"]))

TARGETS = {
    "os-system": {"_target_": "os.system", "command": TOUCH},
    "popen": {"_target_": "subprocess.Popen", "args": ["touch", "CANARY"]},
    "eval": {"_target_": "builtins.eval", "source": "1"},
    "partial": {"_target_": "functools.partial", "func": "@labels"},
    "run-path": {"_target_": "runpy.run_path", "path_name": "docs/x.txt"},
    "short-name-of-monai": {"_target_": "instantiate", "__path": "os.system", "__mode": "default"},
    "short-name-run": {"_target_": "run", "config_file": "docs/other.json"},
    "short-name-download": {"_target_": "download_and_extract", "url": "http://example.org/x.zip"},
    "pickled-cache": {"_target_": "PersistentDataset", "data": [], "transform": None, "cache_dir": "docs"},
    "torchvision-by-name": {"_target_": "TorchVisiond", "keys": "image", "name": "functional"},
    "a-logger": {"_target_": "ignite.handlers.WandBLogger", "project": "x"},
    "module-of-a-known-class": {"_target_": "monai.transforms.io.array.locate", "path": "helper"},
    "torch-hub": {"_target_": "torch.hub.load", "repo_or_dir": "somebody/something", "model": "x"},
    "prefix-of-a-known-name": {"_target_": "monai.transforms.LoadImaged.__init__.__globals__"},
    "reference": {"_target_": "@where"},
    "expression": {"_target_": "$'os' + '.system'", "command": TOUCH},
    "macro": {"_target_": "%where"},
    "own-module": {"_target_": "helper.Evil"},
    "no-text": {"_target_": ["os.system"]},
}
for name, component in TARGETS.items():
    add(f"target-{name}", RUNS_NOTHING, both(train("where", "os.system"), train("evil", component)))
add("target-in-an-overlay", RUNS_NOTHING, text("configs/quick.json", '{"loss#_target_": "os.system"}'))
add(
    "target-in-tracking",
    RUNS_NOTHING,
    text("configs/tracking.json", '{"configs": {"trainer": {"_target_": "x.Y"}}}'),
)

LOAD = {"_target_": "LoadImaged", "keys": "image"}
SAVE = {"_target_": "SaveImaged", "keys": "image"}
CHECKPOINT = {"_target_": "CheckpointSaver", "save_dict": {}, "save_dir": "models"}
ARGUMENTS = {
    "reader": {**LOAD, "reader": "os.system", "args": [TOUCH]},
    "reader-in-a-list": {**LOAD, "reader": ["NibabelReader", "subprocess.Popen"]},
    "reader-by-reference": {**LOAD, "reader": "@where"},
    "reader-by-expression": {**LOAD, "reader": "$'os.' + 'system'"},
    "reader-in-an-image-dataset": {"_target_": "ImageDataset", "image_files": ["x"], "reader": "os.system"},
    "reader-pickles": {**LOAD, "reader": "NumpyReader", "allow_pickle": True},
    "writer": {**SAVE, "writer": "os.system"},
    "writes-elsewhere": {**SAVE, "output_dir": "/home/somebody/.ssh"},
    "writes-at-home": {**SAVE, "output_dir": "~/.ssh"},
    "writes-above": {**SAVE, "output_dir": "$@bundle_root + '/../..'"},
    "writes-above-in-pieces": {**SAVE, "output_dir": "$@bundle_root + '/.' + './x'"},
    "writes-beside": {**SAVE, "output_dir": "$@bundle_root + '-evil'"},
    "writes-by-a-second-root": {**SAVE, "output_dir": "$os.path.join(@bundle_root, '/etc')"},
    "writes-to-a-drive": {**SAVE, "output_dir": "C:/Windows"},
    "writes-hidden": {**SAVE, "output_dir": ".git/hooks"},
    "writes-configs": {**SAVE, "output_dir": "$@bundle_root + '/configs'"},
    "writes-unknown": {**SAVE, "output_dir": "$str(@labels)"},
    "name-climbs": {**SAVE, "output_postfix": "/../../x"},
    "name-by-a-function": {**SAVE, "output_name_formatter": "$lambda m, s: {'subject': '../../x'}"},
    "name-is-code": {"_target_": "LogfileHandler", "output_dir": "eval", "filename": "torch.py"},
    "name-is-a-startup-file": {**CHECKPOINT, "final_filename": ".bashrc"},
    "merger": {"_target_": "PatchInferer", "merger_cls": "os.system"},
    "compiler": {"_target_": "SupervisedTrainer", "compile_kwargs": {"options": {"cpp.cxx": ["CANARY"]}}},
    "download": {"_target_": "HoVerNet", "pretrained_url": "http://example.org/x.pth"},
    "debugger": {**LOAD, "_debug_": True},
    "callable": {"_target_": "LoadImaged", "_mode_": "callable"},
}
for name, component in ARGUMENTS.items():
    add(f"argument-{name}", RUNS_NOTHING, both(train("where", "os.system"), train("evil", component)))
add(
    "argument-in-an-overlay",
    RUNS_NOTHING,
    text("configs/quick.json", '{"train#handler_set#history#folder": "/etc"}'),
)
add("mode-debug", RUNS_NOTHING, train("loss#_mode_", "debug"))
RUN = "$medseg.bundle.start_run(@bundle_root, {}, @data, @labels, @run_name, {})"
add("call-writes-elsewhere", RUNS_NOTHING, train("current_run", RUN.format("'/home/somebody'", "True")))
add("call-goes-on-elsewhere", RUNS_NOTHING, train("current_run", RUN.format("@output_dir", "'/home/x/runs/1'")))
add("sends-a-copy", RUNS_NOTHING, train("backup", "s3://somebody/bucket"))
add("sends-the-key", RUNS_NOTHING, train("monitor#base_url", "https://example.org"))
add("sends-the-key-hidden", RUNS_NOTHING, train("monitor", "$dict(**{'base' + '_url': 'https://example.org'})"))

add("macro-other-file", RUNS_NOTHING, train("loss", "%docs/other.json::loss"))
add("macro-relative", RUNS_NOTHING, both(train("a", {"b": "@##c"}), train("d", {"e": "%a"})))
SHAPES = ["().__class__.__base__.__subclasses__()", 8]
PRED = "network_data_format#outputs#pred#spatial_shape"
add("metadata-shape", RUNS_NOTHING, setting("configs/metadata.json", PRED, SHAPES))
add(
    "config-key-twice",
    "config-unreadable",
    text("configs/train.json", '{"a": {"_target_": "UNet", "_target_": "os.system"}}'),
)
add("config-deep", "config-unreadable", text("configs/train.json", '{"a":' * 5000 + "1" + "}" * 5000))
add("config-other-encoding", "config-unreadable", text("configs/train.json", '{"a": 1}'.encode("utf-16")))
add("config-yaml", RUNS_NOTHING, text("configs/evaluate.yaml", "run: $open('CANARY', 'w')\n"))

LOGGING = (RECIPE / "configs" / "logging.conf").read_text()
LOGS = {
    "class": LOGGING.replace("class=StreamHandler", f"class=__import__('os').system('{TOUCH}')"),
    "arguments": LOGGING.replace("args=(sys.stderr,)", f"args=(__import__('os').system('{TOUCH}'),)"),
    "file": LOGGING.replace("class=StreamHandler", "class=FileHandler").replace("(sys.stderr,)", "('CANARY', 'w')"),
    "socket": LOGGING.replace("class=StreamHandler", "class=handlers.SocketHandler"),
    "formatter": LOGGING.replace("[formatter_plain]", "[formatter_plain]\nclass=helper.Evil"),
    "defaults": LOGGING.replace("[formatter_plain]", "[formatter_plain]\ndefaults={'a': open('CANARY', 'w')}"),
    "interpolation": f"[DEFAULT]\nevil=__import__('os').system('{TOUCH}')\n"
    + LOGGING.replace("StreamHandler", "%(evil)s"),
}
for name, content in LOGS.items():
    add(f"logging-{name}", RUNS_NOTHING, text("configs/logging.conf", content))

for file in ("scripts/__init__.py", "torch.py", "sitecustomize.pyc", "_ext.so", "models/x.PYD", "lib.so.1"):
    add(f"code-{file}", "code-in-bundle", text(file, "open('CANARY', 'w')"))


class Evil:
    """Loading a pickle of it runs a command."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.canary.as_posix()}",)


def weights(file: str, write: Callable[[Path, Path], object]) -> Make:
    def make(root: Path, canary: Path) -> Path:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, canary)
        return root

    return make


def torch_zip(content: bytes, prefix: str = "archive") -> bytes:
    """What torch.save writes around a pickle."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(f"{prefix}/data.pkl", content)
        archive.writestr(f"{prefix}/version", "3\n")
    return made.getvalue()


def _numpy(path: Path, canary: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Evil(canary)], dtype=object), allow_pickle=True)


def _npz(path: Path, canary: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.array([Evil(canary)], dtype=object))


def _legacy(path: Path, canary: Path) -> None:
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, Evil(canary), []]
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in parts))


# Built by hand: a name that is put together from two texts; a pickle that is broken behind its call.
BUILT = b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."
CUT = pickle.dumps(Evil(Path("CANARY")), protocol=2)[:-1] + b"\xff"
PICKLES: dict[str, tuple[str, Callable[[Path, Path], object]]] = {
    "torch": (
        "models/model.pt",
        lambda path, canary: path.write_bytes(torch_zip(pickle.dumps(Evil(canary), protocol=2))),
    ),
    "torch-older-format": ("models/model.pt", _legacy),
    "plain": ("docs/a.pkl", lambda path, canary: path.write_bytes(pickle.dumps(Evil(canary)))),
    "protocol-0": ("docs/a.pkl", lambda path, canary: path.write_bytes(pickle.dumps(Evil(canary), protocol=0))),
    "under-another-name": ("docs/scan.nii", lambda path, canary: path.write_bytes(pickle.dumps(Evil(canary)))),
    "array": ("docs/a.npy", _numpy),
    "array-under-another-name": ("docs/a.dat", _numpy),
    "arrays": ("docs/a.npz", _npz),
    "stack-global": ("models/model.pt", lambda path, canary: path.write_bytes(torch_zip(BUILT))),
    "behind-another": (
        "docs/a.pkl",
        lambda path, canary: path.write_bytes(pickle.dumps({}) + pickle.dumps(Evil(canary))),
    ),
    "runs-before-it-breaks": ("models/model.pt", lambda path, canary: path.write_bytes(torch_zip(CUT))),
}
for name, (file, write) in PICKLES.items():
    add(f"pickle-{name}", "pickle-unsafe", weights(file, write))
add("pickle-no-pickle", "pickle-unreadable", text("models/model.pt", b"not a pickle at all"))
add("pickle-tar", "pickle-unreadable", text("models/model.pt", b"storages" + bytes(600)))
SAVES = "class M(Module):\n  def forward(self, x):\n    torch.save(x, 'CANARY')\n    return x\n"


def _script(path: Path, canary: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/code/__torch__.py", SAVES)
        archive.writestr("m/constants.pkl", pickle.dumps((), protocol=2))


add("torchscript-writes", "program-in-bundle", weights("models/model.ts", _script))
EXPORTED = {"archive_format": "pt2", "models/model.json": json.dumps({"expr_str": EXPRESSIONS["eval"]})}


def _exported(path: Path, canary: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for record, content in EXPORTED.items():
            archive.writestr(f"m/{record}", content)


add("exported-program", "program-in-bundle", weights("models/model.pt2", _exported))
TABLE = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 400]}}).encode()
add(
    "safetensors-beyond-its-end", "weights-damaged", text("models/m.safetensors", struct.pack("<Q", len(TABLE)) + TABLE)
)
BASE_URL = {"backend": "wandb", "base_url": "https://example.org"}
add("run-sends-the-key", RUNS_NOTHING, text("monitor/settings.json", json.dumps(BASE_URL)))
COMMAND = {"command": ["medseg", "train", "unet2d", "lr=$open('CANARY', 'w')"]}
add("run-command", RUNS_NOTHING, text("run.json", json.dumps(COMMAND)))


def linked(name: str, target: str) -> Make:
    def make(root: Path, canary: Path) -> Path:
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(target)
        return root

    return make


def _fifo(root: Path, canary: Path) -> Path:
    (root / "models" / "model.pt").unlink()
    os.mkfifo(root / "models" / "model.pt")
    return root


if sys.platform != "win32":
    add("link-to-a-file", "link-outside", linked("models/model.pt", "/etc/passwd"))
    add("link-to-a-folder", "link-outside", linked("docs/home", "/etc"))
    add("link-up", "link-outside", linked("configs/train.json", "../../../x.json"))
    add("link-to-nowhere", "link-outside", linked("LICENSE", "nowhere"))
    add("pipe", "special-file", _fifo)
